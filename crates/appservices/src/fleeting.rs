//! Typing and presence: told while a service takes its transactions, forgotten while it does not.
//!
//! Specification: application service API, "Pushing ephemeral data".

use std::collections::BTreeMap;

use chappe_delivery::PresenceChange;
use chappe_store::RoomNid;
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::broadcast::error::RecvError;

use crate::{
    Error, Lane, Services,
    interest::{concerns, knows},
};

/// Rooms and users remembered for one service at most.
const MOST: usize = 1_000;

/// What happened since the last transaction: where others type now, and who is how.
#[derive(Default)]
pub(crate) struct Fleeting(Mutex<News>);

#[derive(Default)]
struct News {
    typing: BTreeMap<RoomNid, OwnedRoomId>,
    presence: BTreeMap<OwnedUserId, Box<RawValue>>,
}

impl Fleeting {
    fn typing(&self, nid: RoomNid, room: &RoomId) {
        let mut news = self.0.lock();
        if news.typing.len() < MOST {
            news.typing.insert(nid, room.to_owned());
        }
    }

    fn presence(&self, user: &UserId, event: Box<RawValue>) {
        let mut news = self.0.lock();
        if news.presence.len() < MOST || news.presence.contains_key(user) {
            news.presence.insert(user.to_owned(), event);
        }
    }

    /// Forgets it all.
    pub(crate) fn clear(&self) {
        *self.0.lock() = News::default();
    }
}

impl Services {
    /// What happened since this was last asked, as events.
    pub(crate) fn take_fleeting(&self, lane: &Lane) -> Vec<Box<RawValue>> {
        let News { typing, presence } = std::mem::take(&mut *lane.fleeting.0.lock());
        let now = |(nid, room): (RoomNid, OwnedRoomId)| {
            let users = self.0.deps.delivery.typing().in_room(nid);
            let content = serde_json::json!({ "user_ids": users });
            to_raw_value(&serde_json::json!({ "type": "m.typing", "room_id": room, "content": content })).ok()
        };
        typing.into_iter().filter_map(now).chain(presence.into_values()).collect()
    }

    pub(crate) async fn follow_typing(self) {
        let world = self.0.deps.link.world().clone();
        let mut news = self.0.deps.delivery.typing().news();
        loop {
            let change = tokio::select! {
                biased;
                () = world.stopping() => return,
                change = news.recv() => change,
            };
            match change {
                Ok((nid, room)) => {
                    if let Err(error) = self.tell_typing(nid, &room).await {
                        tracing::warn!(%error, "application services were not told who types");
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn tell_typing(&self, nid: RoomNid, room: &RoomId) -> Result<(), Error> {
        let reader = self.0.deps.store.read();
        for lane in self.0.lanes.values().filter(|lane| lane.service.wants.any_ephemeral()) {
            let users = reader.service_users_in(&[lane.service.id.as_str()], nid).await?;
            let users = users.first().copied().unwrap_or_default();
            if concerns(&reader, &lane.service, users, (nid, room)).await? {
                lane.fleeting.typing(nid, room);
                lane.wake.notify_one();
            }
        }
        Ok(())
    }

    pub(crate) async fn follow_presence(self) {
        let world = self.0.deps.link.world().clone();
        let mut news = self.0.deps.delivery.presence().news();
        loop {
            let some = tokio::select! {
                biased;
                () = world.stopping() => return,
                some = news.recv() => some,
            };
            match some {
                Ok(some) => {
                    if let Err(error) = self.tell_presence(&some).await {
                        tracing::warn!(%error, "application services were not told who is there");
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn tell_presence(&self, changes: &[PresenceChange]) -> Result<(), Error> {
        let reader = self.0.deps.store.read();
        for lane in self.0.lanes.values().filter(|lane| lane.service.wants.any_ephemeral()) {
            let mut any = false;
            for PresenceChange { user, now, .. } in changes.iter().filter(|change| !change.again) {
                if knows(&reader, &lane.service, user).await? {
                    lane.fleeting.presence(user, self.0.deps.delivery.presence().event(user, now));
                    any = true;
                }
            }
            if any {
                lane.wake.notify_one();
            }
        }
        Ok(())
    }
}
