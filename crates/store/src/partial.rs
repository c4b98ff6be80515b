//! Rooms that were joined over federation before all their memberships are here.
//!
//! Until a room is whole, each server that the peer said to be in it counts as having one user more than its known
//! ones, so that all who ask which servers are in the room get the right answer.

use std::collections::BTreeSet;

use ruma::{OwnedEventId, OwnedServerName, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    EventNum, Json, Membership, Reader, Table, TableInfo, Tx, members::RoomServers, rooms::RoomNid, table,
    tx::Error,
};

/// What is still to be fetched of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialRoom {
    /// The join that the room came with.
    pub join: u32,
    /// The events before that join.
    pub prev: Vec<OwnedEventId>,
    /// Who let the user in: asked first.
    pub via: OwnedServerName,
    /// Servers that were said to be in the room, this one left out.
    pub servers: Vec<OwnedServerName>,
}

/// The same as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// What is still to be fetched.
    #[serde(flatten)]
    pub room: PartialRoom,
    /// Servers that were said to be in the room and do not count any more. They may be there, and know who is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubted: Vec<OwnedServerName>,
}

impl PartialRoom {
    /// The number of the join that the room came with.
    pub fn join(&self) -> EventNum {
        EventNum(self.join)
    }
}

table! {
    /// Room → what is still to be fetched.
    PartialRooms = PARTIAL_ROOMS: RoomNid => Json<Kept>;
    /// Room and remote user → the user's devices changed, and it is not known whether the user is in the room.
    UnplacedDevices = UNPLACED_DEVICES: (RoomNid, OwnedUserId) => ();
    /// Room and event → the event was refused while memberships were missing, and is to be judged once they are here.
    LateEvents = LATE_EVENTS: (RoomNid, EventNum) => ();
}

/// The rooms of [`PartialRooms`]: a row may be long.
struct RoomsAlone;

impl Table for RoomsAlone {
    const INFO: TableInfo = PartialRooms::INFO;
    type Key = RoomNid;
    type Value = ();
}

impl Reader<'_> {
    /// What is still to be fetched of a room, if anything is.
    pub async fn partial_room(&self, nid: RoomNid) -> Result<Option<PartialRoom>, Error> {
        Ok(self.get::<PartialRooms>(&nid).await?.map(|Json(kept)| kept.room))
    }

    /// Servers that were said to be in a room of which something is still to be fetched, and do not count any more.
    pub async fn doubted_servers(&self, nid: RoomNid) -> Result<Vec<OwnedServerName>, Error> {
        Ok(self.get::<PartialRooms>(&nid).await?.map(|Json(kept)| kept.doubted).unwrap_or_default())
    }

    /// All rooms of which something is still to be fetched.
    pub async fn partial_rooms(&self) -> Result<Vec<RoomNid>, Error> {
        let rows = self.scan_all::<RoomsAlone>(&()).await?;
        Ok(rows.into_iter().map(|(nid, ())| nid).collect())
    }

    /// All rooms in which something is still to be done: fetching memberships, or what follows that.
    pub async fn unfinished_rooms(&self) -> Result<BTreeSet<RoomNid>, Error> {
        let partial = self.partial_rooms().await?.into_iter();
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
        self.put::<PartialRooms>(&nid, &Json(Kept { room: partial.clone(), doubted: Vec::new() }))
    }

    /// Says that servers which were said to be in a room do not count as in it any more: nobody of theirs is known, and they
    /// are no longer in `room`. Those doubted `before` stay so. The caller replaces the head.
    pub fn doubt_partial(
        &mut self,
        nid: RoomNid,
        room: PartialRoom,
        before: Vec<OwnedServerName>,
        doubted: Vec<OwnedServerName>,
    ) -> &mut Self {
        for server in &doubted {
            self.delete::<RoomServers>(&(nid, server.clone()));
        }
        let doubted = [before, doubted].concat();
        self.put::<PartialRooms>(&nid, &Json(Kept { room, doubted }))
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

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};

    use super::*;
    use crate::{Store, golden::row};

    /// The same rows as they are on disk.
    struct Rows;

    impl Table for Rows {
        const INFO: TableInfo = PartialRooms::INFO;
        type Key = RoomNid;
        type Value = Vec<u8>;
    }

    #[test]
    fn who_is_doubted_is_kept_behind_what_is_to_be_fetched() {
        let bytes = |doubted: &[&str]| {
            let server = |name: &str| OwnedServerName::try_from(name).unwrap();
            let room =
                PartialRoom { join: 3, prev: Vec::new(), via: server("a.fr"), servers: vec![server("b.fr")] };
            let kept = Kept { room, doubted: doubted.iter().map(|name| server(name)).collect() };
            row::<PartialRooms>(RoomNid(1), Json(kept.clone()));
            serde_json::to_string(&kept).unwrap()
        };
        let alone = r#"{"join":3,"prev":[],"via":"a.fr","servers":["b.fr"]}"#;
        assert_eq!(bytes(&[]), alone);
        assert_eq!(bytes(&["c.fr"]), alone.replace('}', r#","doubted":["c.fr"]}"#));
    }

    #[tokio::test]
    async fn which_rooms_lack_members_is_known_without_reading_what_is_kept_of_them() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let mut tx = Tx::new();
        for nid in [3, 7] {
            tx.put::<Rows>(&RoomNid(nid), &b"no document".to_vec());
        }
        store.commit(tx).await.unwrap();
        let reader = store.read();
        assert!(reader.partial_room(RoomNid(3)).await.is_err());
        assert_eq!(reader.partial_rooms().await.unwrap(), [RoomNid(3), RoomNid(7)]);
        assert_eq!(reader.unfinished_rooms().await.unwrap().len(), 2);
    }
}
