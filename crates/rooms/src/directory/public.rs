//! The list of public rooms.

use std::{cmp::Reverse, fmt::Display, ops::Range, str::FromStr, sync::Arc};

use chappe_store::{RoomHead, RoomNid, rooms::RoomHeads};
use ruma::{
    OwnedServerName, ServerName, UInt,
    api::federation::directory::get_public_rooms_filtered,
    directory::{Filter, PublicRoomsChunk, RoomNetwork, RoomTypeFilter},
};
use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

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

impl PublicRooms {
    fn none() -> Self {
        Self { total: Some(0), ..Self::default() }
    }
}

/// Where a room stands: the biggest first, rooms of one size by a key.
pub(super) type Place<K> = (Reverse<u64>, K);

/// A place in the list that a page begins after, or ends before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Since<K> {
    After(Place<K>),
    Before(Place<K>),
}

impl<K: FromStr> Since<K> {
    /// From the token of an earlier page.
    pub(super) fn parse(token: &str) -> Result<Self> {
        let parse = || {
            let (joined, key) = token.get(1..)?.split_once('_')?;
            let place = (Reverse(joined.parse().ok()?), key.parse().ok()?);
            match token.as_bytes().first()? {
                b'n' => Some(Self::After(place)),
                b'p' => Some(Self::Before(place)),
                _ => None,
            }
        };
        parse().ok_or(Error::InvalidParam("unknown token".to_owned()))
    }
}

/// Which of the rows, sorted by place, make a page, and the tokens of the next one and of the one before.
pub(super) fn page_of<T, K: Ord + Display>(
    rows: &[T],
    since: Option<Since<K>>,
    limit: Option<u64>,
    place: impl Fn(&T) -> Place<K>,
) -> (Range<usize>, Option<String>, Option<String>) {
    let limit = usize::try_from(limit.unwrap_or(USUAL).clamp(1, LONGEST)).unwrap_or(1);
    let (from, to) = match since {
        None => (0, limit.min(rows.len())),
        Some(Since::After(at)) => {
            let from = rows.partition_point(|row| place(row) <= at);
            (from, (from + limit).min(rows.len()))
        }
        Some(Since::Before(at)) => {
            let to = rows.partition_point(|row| place(row) < at);
            (to.saturating_sub(limit), to)
        }
    };
    let token = |kind: char, row: &T| {
        let (Reverse(joined), key) = place(row);
        format!("{kind}{joined}_{key}")
    };
    let page = &rows[from..to];
    let next = page.last().filter(|_| to < rows.len()).map(|row| token('n', row));
    let prev = page.first().filter(|_| from > 0).map(|row| token('p', row));
    (from..to, next, prev)
}

type Listed = (RoomNid, RoomHead, Arc<Summary>);

impl Rooms {
    /// `POST /publicRooms` for users of this server: its own rooms, those of another one, or, where all networks are asked
    /// for and there is a directory of the network, those of all its servers. Externals see none.
    pub async fn public_rooms(&self, request: &PublicRoomsRequest) -> Result<PublicRooms> {
        if self.is_external(&self.0.server) {
            return Ok(PublicRooms::none());
        }
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
        match self.neighbours() {
            Some(servers) if request.server.is_none() && request.network == RoomNetwork::All => {
                self.network_rooms(request, &servers).await
            }
            _ => self.own_public_rooms(request, None).await,
        }
    }

    /// `POST /publicRooms` for another server: the rooms of this one that its users may enter. Servers of externals see none.
    pub async fn public_rooms_for(
        &self,
        asker: &ServerName,
        request: &PublicRoomsRequest,
    ) -> Result<PublicRooms> {
        if self.is_external(asker) {
            return Ok(PublicRooms::none());
        }
        self.own_public_rooms(request, Some(asker)).await
    }

    async fn own_public_rooms(
        &self,
        request: &PublicRoomsRequest,
        asker: Option<&ServerName>,
    ) -> Result<PublicRooms> {
        let since = request.since.as_deref().map(Since::<u32>::parse).transpose()?;
        let mut rooms = self.listed(&request.network, asker).await?;
        let total = rooms.len() as u64;
        if !request.filter.is_empty() {
            rooms.retain(|(_, _, summary)| matches(&request.filter, &summary.room.clone().into()));
        }
        let place = |(nid, head, _): &Listed| (Reverse(u64::from(head.joined)), nid.0);
        let (range, next, prev) = page_of(&rooms, since, request.limit, place);
        let chunk = rooms[range].iter().map(|(_, _, summary)| summary.room.clone().into()).collect();
        Ok(PublicRooms { chunk, next_batch: next, prev_batch: prev, total: Some(total) })
    }

    /// All rooms listed for a network that somebody is in, biggest first; for another server, those that are open to it.
    pub(super) async fn listed(
        &self,
        network: &RoomNetwork,
        asker: Option<&ServerName>,
    ) -> Result<Vec<Listed>> {
        let reader = self.0.store.read();
        let nids = listed_for(&reader, network).await?;
        let heads = reader.get_many::<RoomHeads>(&nids).await?;
        drop(reader);
        let mut all = Vec::with_capacity(nids.len());
        for (nid, head) in nids.into_iter().zip(heads) {
            let Some(head) = head.filter(|head| head.joined > 0) else { continue };
            let summary = match self.0.known_summary((nid, head.state)) {
                Some(summary) => summary,
                None => match self.view_of(nid).await?.summary().await {
                    Ok(summary) => summary,
                    Err(Error::BadState(_)) => continue,
                    Err(error) => return Err(error),
                },
            };
            if asker.is_none() || summary.federated {
                all.push((nid, head, summary));
            }
        }
        all.sort_by_key(|(nid, head, _)| (Reverse(head.joined), *nid));
        Ok(all)
    }
}

/// Whether a room is one of those looked for: case and accents do not matter.
pub(super) fn matches(filter: &Filter, room: &PublicRoomsChunk) -> bool {
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
    let term = folded(term);
    let texts =
        [room.name.as_deref(), room.topic.as_deref(), room.canonical_alias.as_ref().map(|a| a.as_str())];
    texts.into_iter().flatten().any(|text| folded(text).contains(&term))
}

/// A text without case and accents.
fn folded(text: &str) -> String {
    text.nfkd().filter(|letter| !is_combining_mark(*letter)).collect::<String>().to_lowercase()
}
