//! Whether two users meet anywhere, and what one is in a room.

use chappe_store::Membership;
use ruma::{OwnedRoomId, RoomId, UserId};

use crate::{Error, Result, Rooms};

impl Rooms {
    /// The rooms that the local user `local` and `other` are both joined to.
    pub async fn shared_rooms(&self, local: &UserId, other: &UserId) -> Result<Vec<OwnedRoomId>> {
        let reader = self.0.store.read();
        let mut shared = Vec::new();
        for (nid, own) in reader.user_rooms(local).await? {
            if own.value.membership == Membership::Join
                && reader.membership(nid, other).await?.is_some_and(|(theirs, _)| theirs == Membership::Join)
            {
                shared.push(reader.room_id(nid).await?);
            }
        }
        Ok(shared)
    }

    /// What a local user is in a room, as `m.room.member` says it; none if they never had a part in it.
    pub async fn membership(&self, local: &UserId, room: &RoomId) -> Result<Option<&'static str>> {
        let reader = self.0.store.read();
        let Some(nid) = reader.room_nid(room).await? else { return Ok(None) };
        Ok(reader.user_room(local, nid).await?.map(|own| own.value.membership.as_str()))
    }

    /// Refuses whoever is not joined to a room, or cannot be for all that is known of a room whose members are still to come.
    pub async fn check_joined(&self, user: &UserId, room: &RoomId) -> Result<()> {
        let reader = self.0.store.read();
        let joined = match reader.room_nid(room).await? {
            Some(nid) => reader.may_be_joined(nid, user).await?,
            None => false,
        };
        if joined { Ok(()) } else { Err(Error::Forbidden("you are not in this room".to_owned())) }
    }

    /// Whether the local user `local` and `other` are joined to a room together.
    pub async fn share_a_room(&self, local: &UserId, other: &UserId) -> Result<bool> {
        let reader = self.0.store.read();
        for (nid, own) in reader.user_rooms(local).await? {
            if own.value.membership == Membership::Join
                && reader.membership(nid, other).await?.is_some_and(|(theirs, _)| theirs == Membership::Join)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
