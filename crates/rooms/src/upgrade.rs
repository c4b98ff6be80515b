//! `upgrade`: a new room takes over from an old one.

use ruma::{OwnedRoomId, OwnedUserId, RoomId, RoomVersionId};

use crate::{Actor, Error, Result, Rooms};

impl Rooms {
    /// Replaces `room` by a new one of `version`: copies its state, moves local aliases, closes the old one.
    pub async fn upgrade(
        &self,
        _actor: &Actor,
        _room: &RoomId,
        _version: RoomVersionId,
        _additional_creators: Vec<OwnedUserId>,
    ) -> Result<OwnedRoomId> {
        Err(Error::Retry)
    }
}
