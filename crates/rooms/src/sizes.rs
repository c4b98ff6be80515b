//! Caches that are bounded by the memory they take: it is others who say how large an entry is.

use std::sync::Arc;

use chappe_store::{RoomNid, StateRef};
use quick_cache::{Weighter, sync::Cache};
use ruma::{
    EventEncryptionAlgorithm, MxcUri, OwnedRoomId, OwnedServerName, RoomAliasId, RoomVersionId,
    room::RoomType,
};

use crate::{Summary, desk::ServerCounts};

/// Bytes of all lists of servers, and of all summaries.
const SERVERS_BYTES: u64 = 64 << 20;
const SUMMARIES_BYTES: u64 = 32 << 20;
/// Entries of either, as one expects them: an entry may fill a part of the cache, and with so few the parts stay large.
const EXPECTED: usize = 500;
/// Bytes of an entry beside what is counted, about.
const ENTRY: usize = 200;
/// Bytes that a name in a list of servers, and an id in a list of rooms, takes beside its letters, about.
const SERVER: usize = 16 + size_of::<(OwnedServerName, u32)>();
const ROOM: usize = 16 + size_of::<OwnedRoomId>();

/// Servers with joined users, by committed version of a room's state.
pub(crate) type ServersByState = Cache<(RoomNid, StateRef), ServerCounts, BySize>;
/// What rooms tell of themselves, and by which state.
pub(crate) type Summaries = Cache<RoomNid, (StateRef, Arc<Summary>), BySize>;

pub(crate) fn servers_by_state() -> ServersByState {
    Cache::with_weighter(EXPECTED, SERVERS_BYTES, BySize)
}

pub(crate) fn summaries() -> Summaries {
    Cache::with_weighter(EXPECTED, SUMMARIES_BYTES, BySize)
}

/// Weighs entries by about the bytes that they take up.
#[derive(Clone)]
pub(crate) struct BySize;

impl Weighter<(RoomNid, StateRef), ServerCounts> for BySize {
    fn weight(&self, _: &(RoomNid, StateRef), servers: &ServerCounts) -> u64 {
        let names: usize = servers.iter().map(|(server, _)| SERVER + server.as_str().len()).sum();
        u64::try_from(ENTRY + names).unwrap_or(u64::MAX)
    }
}

impl Weighter<RoomNid, (StateRef, Arc<Summary>)> for BySize {
    fn weight(&self, _: &RoomNid, (_, summary): &(StateRef, Arc<Summary>)) -> u64 {
        u64::try_from(ENTRY + size_of::<Summary>() + texts_of(summary)).unwrap_or(u64::MAX)
    }
}

/// Bytes of what a room says itself of its summary, about.
fn texts_of(summary: &Summary) -> usize {
    let room = &summary.room;
    let texts = [
        room.name.as_deref(),
        room.topic.as_deref(),
        room.avatar_url.as_deref().map(MxcUri::as_str),
        room.canonical_alias.as_deref().map(RoomAliasId::as_str),
        room.room_type.as_ref().map(RoomType::as_str),
        room.encryption.as_ref().map(EventEncryptionAlgorithm::as_str),
        room.room_version.as_ref().map(RoomVersionId::as_str),
        Some(room.join_rule.as_str()),
    ];
    let texts: usize = texts.into_iter().flatten().map(str::len).sum();
    // The join rule names them as well.
    let allowed: usize = summary.allowed.iter().map(|room| 2 * (ROOM + room.as_str().len())).sum();
    texts + allowed
}

#[cfg(test)]
mod tests {
    use ruma::{
        UInt, owned_room_id,
        room::{JoinRuleSummary, RoomSummary},
    };

    use super::*;

    #[test]
    fn long_lists_of_servers_are_kept_for_fewer_states() {
        let name = |n: u32| OwnedServerName::try_from(format!("{n:0>200}.example")).unwrap();
        let servers: ServerCounts = Arc::new((0..1_000).map(|n| (name(n), 1)).collect());
        let kept = servers_by_state();
        for version in 0..1_000 {
            kept.insert((RoomNid(1), StateRef { line: 0, version }), servers.clone());
        }
        assert!(!kept.is_empty());
        assert!(u64::try_from(kept.len() * 1_000 * 200).unwrap() <= SERVERS_BYTES, "{} lists", kept.len());
    }

    #[test]
    fn long_summaries_are_kept_of_fewer_rooms() {
        let none = UInt::from(0_u32);
        let mut room =
            RoomSummary::new(owned_room_id!("!r:a.example"), JoinRuleSummary::Public, false, none, false);
        room.topic = Some("x".repeat(60_000));
        let summary = Arc::new(Summary::of(room));
        let kept = summaries();
        for nid in 0..1_000 {
            kept.insert(RoomNid(nid), (StateRef::EMPTY, summary.clone()));
        }
        assert!(!kept.is_empty());
        assert!(u64::try_from(kept.len() * 60_000).unwrap() <= SUMMARIES_BYTES, "{} summaries", kept.len());
    }
}
