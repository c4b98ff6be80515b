//! Where a search looks: rooms the user is or was in, narrowed by the filter, with what they replaced.

use std::{collections::BTreeSet, sync::Arc};

use chappe_rooms::Actor;
use chappe_store::{Membership, Reader, RoomNid};
use roaring::RoaringBitmap;
use ruma::{OwnedRoomId, OwnedUserId, api::client::filter::RoomEventFilter, events::StateEventType};
use serde::Deserialize;

use super::{Grouping, MOST, Query, USUAL};
use crate::{Error, Search, pages::Place};

/// Rooms of a filter that are looked at.
const NAMED: usize = 1_000;
/// How many rooms replaced each other at most.
const REPLACED: usize = 10;

/// What a search is limited to.
pub(super) struct Scope {
    pub(super) rooms: RoaringBitmap,
    /// None: anybody.
    pub(super) senders: Option<Vec<OwnedUserId>>,
    /// None, or not all of them can be said to the index: any.
    pub(super) kinds: Option<Vec<String>>,
    /// What else the filter asks.
    pub(super) filter: RoomEventFilter,
    /// Whom the user ignores.
    pub(super) ignored: Arc<BTreeSet<OwnedUserId>>,
    pub(super) limit: usize,
}

impl Scope {
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty() || self.senders.as_ref().is_some_and(Vec::is_empty)
    }
}

impl Search {
    pub(super) async fn scope(
        &self,
        actor: &Actor,
        query: &Query,
        page: Option<&Place>,
    ) -> Result<Scope, Error> {
        let reader = self.0.deps.store.read();
        let mut rooms = self.rooms(&reader, actor, &query.filter).await?;
        let mut senders = query.filter.senders.clone();
        match page.and_then(|page| page.group.as_ref()) {
            Some((Grouping::RoomId, room)) => {
                let room = OwnedRoomId::try_from(room.as_str()).map_err(|_| Error::BadToken)?;
                let only = reader.room_nid(&room).await?.map(|nid| nid.0);
                rooms &= only.into_iter().collect::<RoaringBitmap>();
            }
            Some((Grouping::Sender, user)) => {
                let user = OwnedUserId::try_from(user.as_str()).map_err(|_| Error::BadToken)?;
                let wanted = senders.as_ref().is_none_or(|senders| senders.contains(&user));
                senders = Some(if wanted { vec![user] } else { Vec::new() });
            }
            None => {}
        }
        let is_plain = |kinds: &Vec<String>| !kinds.iter().any(|kind| kind.contains('*'));
        let kinds = query.filter.types.clone().filter(is_plain);
        let asked =
            query.filter.limit.map_or(USUAL, |limit| usize::try_from(u64::from(limit)).unwrap_or(MOST));
        // Rooms were judged already, those that were replaced included.
        let mut filter = query.filter.clone();
        filter.rooms = None;
        filter.not_rooms = Vec::new();
        let ignored = Arc::new(self.0.deps.accounts.ignored_users(&reader, &actor.user).await?);
        Ok(Scope { rooms, senders, kinds, filter, ignored, limit: asked.clamp(1, MOST) })
    }

    async fn rooms(
        &self,
        reader: &Reader<'_>,
        actor: &Actor,
        filter: &RoomEventFilter,
    ) -> Result<RoaringBitmap, Error> {
        let own = reader.user_rooms(&actor.user).await?.into_iter();
        let been = |membership: Membership| !matches!(membership, Membership::Invite | Membership::Knock);
        let mut rooms: RoaringBitmap =
            own.filter(|(_, at)| been(at.value.membership)).map(|(nid, _)| nid.0).collect();
        if let Some(named) = &filter.rooms {
            let mut wanted = RoaringBitmap::new();
            for room in named.iter().take(NAMED) {
                let mut next = Some(room.clone());
                for _ in 0..=REPLACED {
                    let Some(room) = next.take() else { break };
                    let Some(nid) = reader.room_nid(&room).await?.filter(|nid| rooms.contains(nid.0)) else {
                        break;
                    };
                    if !wanted.insert(nid.0) {
                        break;
                    }
                    next = self.replaced_by(nid).await?;
                }
            }
            rooms = wanted;
        }
        for room in filter.not_rooms.iter().take(NAMED) {
            if let Some(nid) = reader.room_nid(room).await? {
                rooms.remove(nid.0);
            }
        }
        Ok(rooms)
    }

    /// The room that a room says it replaces. Whether the user may see anything there is judged by itself.
    async fn replaced_by(&self, nid: RoomNid) -> Result<Option<OwnedRoomId>, Error> {
        #[derive(Deserialize)]
        struct Create {
            predecessor: Option<Predecessor>,
        }
        #[derive(Deserialize)]
        struct Predecessor {
            room_id: OwnedRoomId,
        }
        let view = self.0.deps.rooms.view_of(nid).await?;
        let create = view.current_content::<Create>(StateEventType::RoomCreate).await?;
        Ok(create.and_then(|create| create.predecessor).map(|predecessor| predecessor.room_id))
    }
}
