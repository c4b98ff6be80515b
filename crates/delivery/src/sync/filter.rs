//! Filters: what of a delta a device wants.

use chappe_rules::glob::{Glob, folded};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::client::filter::{Filter, LazyLoadOptions, RoomEventFilter, RoomFilter},
};

/// A type pattern: `*` matches anything.
fn type_matches(pattern: &str, kind: &str) -> bool {
    if pattern.contains('*') {
        Glob::new(&pattern.replace('?', "\u{fffd}")).matches(&folded(kind))
    } else {
        pattern == kind
    }
}

fn kind_passes(types: Option<&[String]>, not_types: &[String], kind: &str) -> bool {
    !not_types.iter().any(|pattern| type_matches(pattern, kind))
        && types.is_none_or(|types| types.iter().any(|pattern| type_matches(pattern, kind)))
}

fn sender_passes(senders: Option<&[OwnedUserId]>, not_senders: &[OwnedUserId], sender: &UserId) -> bool {
    !not_senders.iter().any(|not| not == sender)
        && senders.is_none_or(|senders| senders.iter().any(|one| one == sender))
}

fn room_passes(rooms: Option<&[OwnedRoomId]>, not_rooms: &[OwnedRoomId], room: &RoomId) -> bool {
    !not_rooms.iter().any(|not| not == room) && rooms.is_none_or(|rooms| rooms.iter().any(|one| one == room))
}

/// Whether a filter wants anything of a room.
pub(super) fn wants_room(filter: &RoomFilter, room: &RoomId) -> bool {
    room_passes(filter.rooms.as_deref(), &filter.not_rooms, room)
}

/// Whether a filter wants a type at all.
pub(super) fn wants_kind(filter: &RoomEventFilter, kind: &str) -> bool {
    kind_passes(filter.types.as_deref(), &filter.not_types, kind)
}

/// Whether a filter wants something that has a type and a sender alone: presence, global account data.
pub(super) fn wants(filter: &Filter, kind: &str, sender: Option<&UserId>) -> bool {
    kind_passes(filter.types.as_deref(), &filter.not_types, kind)
        && sender.is_none_or(|sender| sender_passes(filter.senders.as_deref(), &filter.not_senders, sender))
}

/// How members are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Members {
    /// All.
    All,
    /// Those who are needed and not known to the device.
    Lazy,
    /// Those who are needed.
    LazyRedundant,
}

impl Members {
    /// How a filter wants members. Either part may ask for lazy loading.
    pub(super) fn of(filter: &RoomFilter) -> Self {
        let part = |options: &LazyLoadOptions| match options {
            LazyLoadOptions::Enabled { include_redundant_members: true } => Self::LazyRedundant,
            LazyLoadOptions::Enabled { .. } => Self::Lazy,
            LazyLoadOptions::Disabled => Self::All,
        };
        part(&filter.state.lazy_load_options)
    }
}

#[cfg(test)]
mod tests {
    use super::{kind_passes, sender_passes};

    #[test]
    fn types_have_wildcards_and_exclusion_wins() {
        let types = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert!(kind_passes(None, &[], "m.room.message"));
        assert!(kind_passes(Some(&types(&["m.room.*"])), &[], "m.room.message"));
        assert!(!kind_passes(Some(&types(&["m.room.*"])), &types(&["*"]), "m.room.message"));
        assert!(!kind_passes(Some(&[]), &[], "m.room.message"));
        assert!(!kind_passes(Some(&types(&["m.room.?"])), &[], "m.room.x"));
        let user = ruma::user_id!("@a:a");
        assert!(sender_passes(None, &[], user) && !sender_passes(None, &[user.to_owned()], user));
        assert!(!sender_passes(Some(&[]), &[], user));
    }
}
