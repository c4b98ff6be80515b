//! Rooms with something unread, for users with pushers: what the badges of their devices count.

use std::collections::BTreeSet;

use ruma::OwnedUserId;

use crate::{
    Value,
    pack::{Packer, Unpacker},
    rooms::RoomNid,
    table,
    tx::Error,
};

/// The rooms of a user that have something unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadRooms {
    /// Another number for other push rules.
    pub mark: u64,
    /// Which.
    pub rooms: BTreeSet<RoomNid>,
}

impl Value for UnreadRooms {
    fn to_bytes(&self) -> Vec<u8> {
        Packer::default().raw(&self.mark.to_be_bytes()).list(self.rooms.iter().map(|nid| nid.0)).done()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Unpacker::new(bytes, "rooms with something unread");
        let mark = u64::from_be_bytes(from.fixed()?);
        Ok(Self { mark, rooms: from.list()?.into_iter().map(RoomNid).collect() })
    }
}

table! {
    /// User with pushers → rooms with something unread, as they were where the cursor of push is, or later.
    UnreadRoomsOf = UNREAD_ROOMS: OwnedUserId => UnreadRooms;
}
