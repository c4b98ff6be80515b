//! Rooms that were joined over federation before all their memberships are here.
//!
//! Until a room is whole, each server that the peer said to be in it counts as having one user more than its known
//! ones, so that all who ask which servers are in the room get the right answer.

use std::collections::BTreeSet;

use ruma::{OwnedEventId, OwnedServerName, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::{EventNum, Json, Membership, Reader, Tx, members::RoomServers, rooms::RoomNid, table, tx::Error};

/// What is still to be fetched of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialRoom {
    /// The join that the room came with.
    pub join: u32,
    /// The events before that join: the state after them is what is wanted.
    pub prev: Vec<OwnedEventId>,
    /// Who let the user in: asked first.
    pub via: OwnedServerName,
    /// Servers that were said to be in the room, this one left out.
    pub servers: Vec<OwnedServerName>,
}

impl PartialRoom {
    /// The number of the join that the room came with.
    pub fn join(&self) -> EventNum {
        EventNum(self.join)
    }
}

table! {
    /// Room → what is still to be fetched.
    PartialRooms = PARTIAL_ROOMS: RoomNid => Json<PartialRoom>;
    /// Room and remote user → the user's devices changed, and it is not known whether the user is in the room.
    UnplacedDevices = UNPLACED_DEVICES: (RoomNid, OwnedUserId) => ();
    /// Room and event → the event was refused while memberships were missing, and is to be judged once they are here.
    LateEvents = LATE_EVENTS: (RoomNid, EventNum) => ();
}

impl Reader<'_> {
    /// What is still to be fetched of a room, if anything is.
    pub async fn partial_room(&self, nid: RoomNid) -> Result<Option<PartialRoom>, Error> {
        Ok(self.get::<PartialRooms>(&nid).await?.map(|Json(partial)| partial))
    }

    /// All rooms of which something is still to be fetched.
    pub async fn partial_rooms(&self) -> Result<Vec<(RoomNid, PartialRoom)>, Error> {
        let rows = self.scan_all::<PartialRooms>(&()).await?;
        Ok(rows.into_iter().map(|(nid, Json(partial))| (nid, partial)).collect())
    }

    /// All rooms in which something is still to be done: fetching memberships, or what follows that.
    pub async fn unfinished_rooms(&self) -> Result<BTreeSet<RoomNid>, Error> {
        let partial = self.scan_all::<PartialRooms>(&()).await?.into_iter().map(|(nid, _)| nid);
        let late = self.scan_all::<LateEvents>(&()).await?.into_iter().map(|((nid, _), ())| nid);
        let devices = self.scan_all::<UnplacedDevices>(&()).await?.into_iter().map(|((nid, _), ())| nid);
        Ok(partial.chain(late).chain(devices).collect())
    }

    /// Events that are to be judged once more now that the room is whole, oldest first.
    pub async fn late_events(&self, nid: RoomNid) -> Result<Vec<EventNum>, Error> {
        let rows = self.scan_all::<LateEvents>(&nid).await?;
        Ok(rows.into_iter().map(|((_, num), ())| num).collect())
    }

    /// Whether a remote user is in a room or, where memberships are still to be fetched and theirs is not known, may well
    /// be: somebody of their server is.
    pub async fn may_be_joined(&self, nid: RoomNid, user: &UserId) -> Result<bool, Error> {
        match self.membership(nid, user).await? {
            Some((membership, _)) => Ok(membership == Membership::Join),
            None => {
                Ok(self.room_head(nid).await?.partial && self.server_joined(nid, user.server_name()).await?)
            }
        }
    }

    /// Remote users whose devices changed while it was not known whether they are in the room.
    pub async fn unplaced_devices(&self, nid: RoomNid) -> Result<Vec<OwnedUserId>, Error> {
        let rows = self.scan_all::<UnplacedDevices>(&nid).await?;
        Ok(rows.into_iter().map(|((_, user), ())| user).collect())
    }
}

impl Tx {
    /// Says that a room lacks memberships. The caller marks and replaces the head.
    pub fn begin_partial(&mut self, nid: RoomNid, partial: &PartialRoom) -> &mut Self {
        for server in &partial.servers {
            self.add::<RoomServers>(&(nid, server.clone()), 1);
        }
        self.put::<PartialRooms>(&nid, &Json(partial.clone()))
    }

    /// Says that a room lacks nothing any more. The caller marks and replaces the head.
    pub fn end_partial(&mut self, nid: RoomNid, partial: &PartialRoom) -> &mut Self {
        for server in &partial.servers {
            self.add::<RoomServers>(&(nid, server.clone()), -1);
        }
        self.delete::<PartialRooms>(&nid)
    }

    /// Forgets whose devices changed while it was not known whether they are in the room.
    pub fn forget_unplaced_devices(&mut self, nid: RoomNid) -> &mut Self {
        self.delete_prefix::<UnplacedDevices>(&nid)
    }
}
