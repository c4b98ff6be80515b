//! What badges count: the rooms of a user that have something unread, kept on disk with the place of the follower.

use std::{collections::BTreeSet, sync::Arc};

use chappe_store::{
    Reader, RoomNid, Tx,
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
                let sure = self.users.get(user).filter(|listener| listener.doubtful.is_empty());
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
        let needed = self.cursor != self.saved && (!self.users.is_empty() || self.saved.is_some());
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
        let Some(listener) = self.users.get_mut(user) else { return };
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

    /// Which rooms have something unread. All are counted once, and again with other push rules, else only those where
    /// something happened.
    pub(super) async fn unread(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        settings: &Settings,
        changed: Option<RoomNid>,
    ) -> Result<UnreadRooms, Error> {
        let mark = settings.mark;
        let Some(listener) = self.users.get(user) else {
            return Ok(UnreadRooms { mark, rooms: BTreeSet::new() });
        };
        let known = listener.unread.as_ref().filter(|known| known.mark == mark);
        let (mut unread, rooms) = match known {
            Some(known) => {
                (known.rooms.clone(), changed.into_iter().chain(listener.doubtful.iter().copied()).collect())
            }
            None => (BTreeSet::new(), listener.rooms.clone()),
        };
        unread.retain(|nid| listener.rooms.contains(nid));
        for nid in rooms.intersection(&listener.rooms) {
            if self.has_unread(reader, user, settings, *nid).await? {
                unread.insert(*nid);
            } else {
                unread.remove(nid);
            }
        }
        Ok(UnreadRooms { mark, rooms: unread })
    }

    async fn has_unread(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        settings: &Settings,
        nid: RoomNid,
    ) -> Result<bool, Error> {
        let tail = self.delivery.tail(reader, nid).await?;
        let numbered = (nid, tail.room_id.clone());
        let view = self.delivery.0.rooms.view_with(reader.clone(), numbered, tail.head.clone())?;
        let reading = Reading { user, view: &view, tail: &tail, settings, signal: None };
        Ok(self.delivery.unread(&reading).await?.total.notifications > 0)
    }
}
