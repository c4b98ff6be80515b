//! Deleting a room: blocked first, then its users out, then every trace of it gone.

use chappe_rooms::{Evicted, Force, Replacement};
use chappe_store::RoomNid;
use ruma::OwnedRoomId;
use serde::{Deserialize, Serialize};

use super::{Doing, Stop, Work};
use crate::run::operator;

/// A room to be deleted, and what has come of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeleteRoom {
    /// Which.
    pub room: OwnedRoomId,
    /// Its number, once it was looked up: what is left to sweep is known by it.
    #[serde(default)]
    pub number: Option<u32>,
    /// Whether nobody is to enter it again.
    pub block: bool,
    /// Whether it is removed, or only left.
    pub purge: bool,
    /// Whether it is removed with users in it who could not be taken out.
    pub force: bool,
    /// The room that takes over.
    pub replacement: Option<Replacement>,
    /// What came of taking the users out.
    #[serde(default)]
    pub outcome: Evicted,
}

impl DeleteRoom {
    /// Goes through the steps; each may be done again.
    pub(super) async fn run(mut self, doing: &mut Doing<'_>) -> Result<(), Stop> {
        let rooms = &doing.jobs.rooms;
        if self.block {
            let server = doing.jobs.accounts.server_name();
            let own = doing.by().cloned().unwrap_or_else(|| operator(server));
            rooms.block(&self.room, &own).await?;
        }
        let known = rooms.number(&self.room).await?;
        if self.number.is_none() {
            self.number = known.map(|nid| nid.0);
        }
        if known.is_some() {
            self.evict(doing).await?;
        }
        let Some(nid) = self.number.map(RoomNid).filter(|_| self.purge) else { return Ok(()) };
        doing.note(&Work::DeleteRoom(self.clone())).await?;
        let force = if self.force { Force::Yes } else { Force::No };
        Ok(doing.jobs.rooms.purge(&self.room, nid, force).await?)
    }

    async fn evict(&mut self, doing: &mut Doing<'_>) -> Result<(), Stop> {
        if let Some(replacement) = self.replacement.as_ref().filter(|_| self.outcome.new_room_id.is_none()) {
            self.outcome.new_room_id = Some(doing.jobs.rooms.make_replacement(replacement).await?);
            doing.note(&Work::DeleteRoom(self.clone())).await?;
        }
        let into = self.outcome.new_room_id.clone();
        let now = doing.jobs.rooms.evict(&self.room, into.as_deref()).await?;
        let before = std::mem::replace(&mut self.outcome, now);
        let gone = before.kicked_users.into_iter().filter(|user| !self.outcome.kicked_users.contains(user));
        let gone: Vec<_> = gone.collect();
        self.outcome.kicked_users.extend(gone);
        doing.note(&Work::DeleteRoom(self.clone())).await?;
        Ok(())
    }
}
