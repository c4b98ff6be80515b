//! The list of public rooms.

use std::sync::Arc;

use chappe_store::{RoomHead, RoomNid, rooms::RoomHeads};
use ruma::{
    OwnedServerName, UInt,
    api::federation::directory::get_public_rooms_filtered,
    directory::{Filter, PublicRoomsChunk, RoomNetwork, RoomTypeFilter},
};

use super::service::listed_for;
use crate::{Error, Result, Rooms, directory::Summary};

/// Rooms of one page at most.
const LONGEST: u64 = 500;
/// Rooms of one page where the client does not say.
const USUAL: u64 = 100;

/// Which public rooms.
#[derive(Clone, Debug, Default)]
pub struct PublicRoomsRequest {
    /// Of this server; none: of this one.
    pub server: Option<OwnedServerName>,
    /// How many.
    pub limit: Option<u64>,
    /// Token of an earlier page.
    pub since: Option<String>,
    /// Which.
    pub filter: Filter,
    /// In the public directory, or listed by an application service for a network.
    pub network: RoomNetwork,
}

/// A page of public rooms, the one with most members first.
#[derive(Clone, Debug, Default)]
pub struct PublicRooms {
    /// The rooms.
    pub chunk: Vec<PublicRoomsChunk>,
    /// Token of the next page.
    pub next_batch: Option<String>,
    /// Token of the page before.
    pub prev_batch: Option<String>,
    /// How many there are in all.
    pub total: Option<u64>,
}

/// A place in the list: just before or just after a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    After(u32, RoomNid),
    Before(u32, RoomNid),
}

impl Since {
    fn parse(token: &str) -> Option<Self> {
        let (joined, nid) = token.get(1..)?.split_once('_')?;
        let (joined, nid) = (joined.parse().ok()?, RoomNid(nid.parse().ok()?));
        match token.as_bytes().first()? {
            b'n' => Some(Self::After(joined, nid)),
            b'p' => Some(Self::Before(joined, nid)),
            _ => None,
        }
    }
}

type Listed = (RoomNid, RoomHead, Arc<Summary>);

impl Rooms {
    /// `POST /publicRooms`, of this server or of another one.
    pub async fn public_rooms(&self, request: &PublicRoomsRequest) -> Result<PublicRooms> {
        if let Some(server) = request.server.as_ref().filter(|server| **server != self.0.server) {
            let mut ask = get_public_rooms_filtered::v1::Request::new();
            ask.limit = request.limit.and_then(|limit| UInt::try_from(limit.min(LONGEST)).ok());
            ask.since.clone_from(&request.since);
            ask.filter = request.filter.clone();
            ask.room_network = request.network.clone();
            let answer = self.0.peers.public_rooms(server, ask).await?;
            return Ok(PublicRooms {
                chunk: answer.chunk,
                next_batch: answer.next_batch,
                prev_batch: answer.prev_batch,
                total: answer.total_room_count_estimate.map(u64::from),
            });
        }
        self.own_public_rooms(request).await
    }

    async fn own_public_rooms(&self, request: &PublicRoomsRequest) -> Result<PublicRooms> {
        let since = match &request.since {
            Some(token) => Some(Since::parse(token).ok_or(Error::InvalidParam("unknown token".to_owned()))?),
            None => None,
        };
        let limit = usize::try_from(request.limit.unwrap_or(USUAL).clamp(1, LONGEST)).unwrap_or(1);
        let all = self.listed(&request.network).await?;
        let total = all.len() as u64;
        let found: Vec<Listed> =
            all.into_iter().filter(|(_, _, summary)| matches(&request.filter, summary)).collect();
        let place = |(nid, head, _): &Listed| (std::cmp::Reverse(head.joined), *nid);
        let at = |joined, nid| (std::cmp::Reverse(joined), nid);
        let (from, to) = match since {
            None => (0, limit.min(found.len())),
            Some(Since::After(joined, nid)) => {
                let from = found.partition_point(|row| place(row) <= at(joined, nid));
                (from, (from + limit).min(found.len()))
            }
            Some(Since::Before(joined, nid)) => {
                let to = found.partition_point(|row| place(row) < at(joined, nid));
                (to.saturating_sub(limit), to)
            }
        };
        let token = |kind: char, (nid, head, _): &Listed| format!("{kind}{}_{}", head.joined, nid.0);
        let page = &found[from..to];
        Ok(PublicRooms {
            chunk: page.iter().map(|(_, _, summary)| summary.room.clone().into()).collect(),
            next_batch: page.last().filter(|_| to < found.len()).map(|row| token('n', row)),
            prev_batch: page.first().filter(|_| from > 0).map(|row| token('p', row)),
            total: Some(total),
        })
    }

    /// All rooms listed for a network that somebody is in, biggest first.
    async fn listed(&self, network: &RoomNetwork) -> Result<Vec<Listed>> {
        let reader = self.0.store.read();
        let nids = listed_for(&reader, network).await?;
        let heads = reader.get_many::<RoomHeads>(&nids).await?;
        drop(reader);
        let mut all = Vec::with_capacity(nids.len());
        for (nid, head) in nids.into_iter().zip(heads) {
            let Some(head) = head.filter(|head| head.joined > 0) else { continue };
            let summary = match self.0.summaries.get(&(nid, head.state)) {
                Some(summary) => summary,
                None => match self.view_of(nid).await?.summary().await {
                    Ok(summary) => summary,
                    Err(Error::BadState(_)) => continue,
                    Err(error) => return Err(error),
                },
            };
            all.push((nid, head, summary));
        }
        all.sort_by_key(|(nid, head, _)| (std::cmp::Reverse(head.joined), *nid));
        Ok(all)
    }
}

fn matches(filter: &Filter, summary: &Summary) -> bool {
    let room = &summary.room;
    let of_type = |wanted: &RoomTypeFilter| match (&room.room_type, wanted) {
        (None, RoomTypeFilter::Default) => true,
        (Some(kind), wanted) => wanted.as_str() == Some(kind.as_str()),
        _ => false,
    };
    if !filter.room_types.is_empty() && !filter.room_types.iter().any(of_type) {
        return false;
    }
    let Some(term) = filter.generic_search_term.as_deref().filter(|term| !term.is_empty()) else {
        return true;
    };
    let term = term.to_lowercase();
    let texts =
        [room.name.as_deref(), room.topic.as_deref(), room.canonical_alias.as_ref().map(|a| a.as_str())];
    texts.into_iter().flatten().any(|text| text.to_lowercase().contains(&term))
}
