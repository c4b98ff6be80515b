//! Removing every trace of a room.
//!
//! The room's number is never given out again and keeps an empty head: whoever still holds the number finds a room in
//! which nobody is and nothing was said.

use chappe_store::{
    Keeping, LogEntry, Membership, RoomHead, RoomNid, StateRef, Tx,
    members::{Forgotten, UserRooms},
    out_of_band::OutOfBand,
    rooms::DoomedRooms,
};
use ruma::RoomId;

use crate::{Error, Result, Rooms, turn::ATTEMPTS};

/// Users whose lists are changed in one commit.
const USERS: usize = 500;
/// Events removed in one commit.
const EVENTS: usize = 200;

impl Rooms {
    /// The number of a room, if this server knows it: what [`Rooms::purge`] is asked with, so that a purge that was
    /// broken off can be gone on with.
    pub async fn number(&self, room: &RoomId) -> Result<Option<RoomNid>> {
        Ok(self.0.store.read().room_nid(room).await?)
    }

    /// Removes everything that is kept of a room: nobody of this server may be in it. What is left to be told to
    /// devices that were away, that their user is out, stays until they have heard it. [`Error::BadState`] while
    /// somebody is in the room and `force` is not given.
    pub async fn purge(&self, room: &RoomId, nid: RoomNid, force: Force) -> Result<()> {
        if self.number(room).await? == Some(nid) {
            self.uproot(room, nid, force).await?;
        }
        self.sweep_room(room, nid).await
    }

    /// Takes the room out of its users' lists. Those who know of it are told that they are out.
    async fn take_from_lists(&self, room: &RoomId, nid: RoomNid) -> Result<()> {
        let view = self.view(room).await?;
        let mut locals = Vec::new();
        for is in Membership::ALL {
            let members = view.reader.members(nid, is).await?.into_iter();
            locals.extend(members.filter(|(user, _)| user.server_name() == self.0.server));
        }
        for some in locals.chunks(USERS) {
            let nums: Vec<_> = some.iter().map(|(_, num)| *num).collect();
            let events = view.load(&nums).await?;
            let mut tx = Tx::new();
            for ((user, _), event) in some.iter().zip(events) {
                let key = (user.clone(), nid);
                let forgotten = view.reader.forgotten(user, nid).await?.is_some();
                tx.delete::<UserRooms>(&key).delete::<Forgotten>(&key);
                tx.log(LogEntry::Member { room: nid.0, user: user.clone() });
                if !forgotten {
                    let farewell = OutOfBand {
                        membership: Membership::Leave.as_str().to_owned(),
                        event: event.pdu.to_raw(),
                        event_id: event.pdu.event_id().to_string(),
                        state: Vec::new(),
                        version: Some(view.head.version.to_string()),
                        via: Vec::new(),
                        number: Some(nid.0),
                    };
                    tx.put_out_of_band(user, room, &farewell);
                }
            }
            self.0.store.commit(tx).await?;
        }
        Ok(())
    }

    /// From here on nobody finds the room any more.
    async fn uproot(&self, room: &RoomId, nid: RoomNid, force: Force) -> Result<()> {
        // Whoever enters or is invited does so in a turn.
        let _turn = self.0.turn(room).await;
        if force == Force::No && !self.locals_in(room).await?.is_empty() {
            return Err(Error::BadState("users of this server are still in the room".to_owned()));
        }
        self.take_from_lists(room, nid).await?;
        for _ in 0..ATTEMPTS {
            let reader = self.0.store.read();
            let old = reader.room_head(nid).await?;
            let mut tx = Tx::new();
            for alias in reader.aliases_of(nid).await? {
                if let Some(target) = reader.alias(&alias).await? {
                    tx.delete_alias(&alias, &target);
                }
            }
            let bare = RoomHead {
                state: StateRef::EMPTY,
                extremities: Vec::new(),
                depth: 0,
                joined: 0,
                invited: 0,
                resident: false,
                keeping: Keeping::default(),
                ..old.clone()
            };
            tx.unpublish_room(nid).uproot_room(nid, room).replace_head(nid, &old, &bare);
            drop(reader);
            match self.0.store.commit(tx).await {
                Ok(at) => {
                    self.0.store.forget_room(at, room);
                    return Ok(());
                }
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Retry)
    }

    /// Removes what lies under the number of a room that was uprooted.
    async fn sweep_room(&self, room: &RoomId, nid: RoomNid) -> Result<()> {
        if !self.0.store.read().room_head(nid).await?.extremities.is_empty() {
            return Err(Error::BadState("this room is in use".to_owned()));
        }
        loop {
            let mut tx = Tx::new();
            let removed = tx.drop_events(&self.0.store.read(), nid, EVENTS).await?;
            if removed.ids.is_empty() {
                break;
            }
            let at = self.0.store.commit(tx).await?;
            self.0.store.forget(at, nid, &removed);
        }
        let mut tx = Tx::new();
        tx.sweep_room(nid);
        if self.0.store.read().get::<DoomedRooms>(&room.to_owned()).await? == Some(nid) {
            tx.delete::<DoomedRooms>(&room.to_owned());
        }
        self.0.store.commit(tx).await?;
        Ok(())
    }
}

/// Whether a room is purged with users of this server in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// No.
    No,
    /// They find themselves outside.
    Yes,
}
