//! What badges count: the rooms of a user that have something unread, kept on disk with the place of the follower.

use std::{collections::BTreeSet, sync::Arc};

use chappe_store::{
    Membership, Reader, RoomNid, Tx,
    unread::{UnreadRooms, UnreadRoomsOf},
};
use ruma::UserId;

use super::{CURSOR, PAGE, Push, gateway::Notification};
use crate::{Error, signal::Settings, unread::Reading};

impl Push {
    /// Writes how far it has come; a failure is made good by the next time.
    pub(super) async fn save(&mut self) {
        if let Err(error) = self.write().await {
            tracing::warn!(%error, "the place of the push follower was not written");
        }
    }

    async fn write(&mut self) -> Result<(), Error> {
        let store = self.delivery.0.store.clone();
        // First what has something unread: of what comes after the cursor it is counted again.
        while !self.changed.is_empty() {
            let (some, mut tx) = (self.changed.iter().take(PAGE).cloned().collect::<Vec<_>>(), Tx::new());
            for user in &some {
                // What is doubtful is not known there: all is counted anew.
                let sure = self.listeners.get(user).filter(|listener| listener.doubtful.is_empty());
                match sure.and_then(|listener| listener.unread.as_ref()) {
                    Some(unread) => tx.put::<UnreadRoomsOf>(user, unread),
                    None => tx.delete::<UnreadRoomsOf>(user),
                };
            }
            store.commit(tx).await?;
            for user in &some {
                self.changed.remove(user);
            }
        }
        // Once there is a cursor it goes on, so that the log behind it can be dropped.
        let needed = self.cursor != self.saved && (!self.listeners.is_empty() || self.saved.is_some());
        let Some(cursor) = self.cursor.filter(|_| needed) else { return Ok(()) };
        let mut tx = Tx::new();
        tx.put::<chappe_store::Cursors>(&CURSOR.to_owned(), &cursor.0);
        store.commit(tx).await?;
        self.saved = self.cursor;
        Ok(())
    }

    /// Keeps what was found out of a listener, and sends what there is to be sent.
    pub(super) fn note(
        &mut self,
        user: &UserId,
        settings: &Arc<Settings>,
        news: Option<(UnreadRooms, Option<Notification>)>,
    ) {
        let Some(listener) = self.listeners.get_mut(user) else { return };
        listener.settings = Arc::downgrade(settings);
        let Some((unread, notification)) = news else { return };
        let doubted = !std::mem::take(&mut listener.doubtful).is_empty();
        let count = unread.rooms.len();
        if doubted || listener.unread.as_ref() != Some(&unread) {
            listener.unread = Some(unread);
            self.changed.insert(user.to_owned());
        }
        if let Some(notification) = notification {
            listener.told = Some(count);
            self.gateway.send(user, &listener.pushers, notification);
        }
    }

    /// Whether a room is known to have something unread: whatever else is said there changes nothing.
    pub(super) fn is_unread(&self, user: &UserId, nid: RoomNid) -> bool {
        self.listeners.get(user).is_some_and(|listener| listener.is_unread(nid))
    }

    /// Which rooms have something unread. All are looked at once, and again with other push rules, else only the one that
    /// has changed and those that are doubtful.
    pub(super) async fn unread(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        settings: &Settings,
        changed: Option<RoomNid>,
    ) -> Result<UnreadRooms, Error> {
        let mark = settings.mark;
        let Some(listener) = self.listeners.get(user) else {
            return Ok(UnreadRooms { mark, rooms: BTreeSet::new() });
        };
        let known = listener.unread.as_ref().filter(|known| known.mark == mark);
        let doubtful = listener.doubtful.iter().copied();
        let (mut unread, rooms): (_, BTreeSet<RoomNid>) = match known {
            Some(known) => (known.rooms.clone(), changed.into_iter().chain(doubtful).collect()),
            None => {
                let rooms = reader.user_rooms(user).await?.into_iter();
                let joined = rooms.filter(|(_, own)| own.value.membership == Membership::Join);
                (BTreeSet::new(), joined.map(|(nid, _)| nid).collect())
            }
        };
        for nid in rooms {
            if self.has_unread(reader, user, settings, nid).await? {
                unread.insert(nid);
            } else {
                unread.remove(&nid);
            }
        }
        Ok(UnreadRooms { mark, rooms: unread })
    }

    /// Whether a room has something unread for a user: it does not if they are not in it.
    async fn has_unread(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        settings: &Settings,
        nid: RoomNid,
    ) -> Result<bool, Error> {
        let own = reader.user_room(user, nid).await?;
        if own.is_none_or(|own| own.value.membership != Membership::Join) {
            return Ok(false);
        }
        let tail = self.delivery.tail(reader, nid).await?;
        let numbered = (nid, tail.room_id.clone());
        let view = self.delivery.0.rooms.view_with(reader.clone(), numbered, tail.head.clone())?;
        let reading = Reading { user, view: &view, tail: &tail, settings, signal: None };
        self.delivery.has_unread(&reading).await
    }
}
