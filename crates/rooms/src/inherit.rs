//! Going along with a room upgrade: the user's tags and push rules of the old room hold for the new one as well.

use ruma::{OwnedRoomId, RoomId, UserId, events::StateEventType};
use serde::Deserialize;

use crate::{Result, Rooms};

#[derive(Deserialize)]
struct Create {
    predecessor: Option<Predecessor>,
}

#[derive(Deserialize)]
struct Predecessor {
    room_id: OwnedRoomId,
}

#[derive(Deserialize)]
struct Tombstone {
    replacement_room: OwnedRoomId,
}

impl Rooms {
    /// Copies a local user's settings of the room before `room`, if there is one and the user was in it, and if that room
    /// says so too or the user made `room`. A failure is not the user's concern: the join has happened.
    pub(crate) async fn inherit_settings(&self, user: &UserId, room: &RoomId) {
        if let Err(error) = self.try_inherit(user, room).await {
            tracing::warn!(%user, %room, %error, "settings of the room before were not taken over");
        }
    }

    async fn try_inherit(&self, user: &UserId, room: &RoomId) -> Result<()> {
        let view = self.view(room).await?;
        let Some(create) = view.current(StateEventType::RoomCreate, "").await? else { return Ok(()) };
        let before = create.pdu.content_as::<Create>().and_then(|create| create.predecessor);
        let Some(Predecessor { room_id: before }) = before else { return Ok(()) };
        let Some(old) = view.reader.room_nid(&before).await? else { return Ok(()) };
        if view.reader.user_room(user, old).await?.is_none() {
            return Ok(());
        }
        drop(view);
        // Anybody may say of a room of theirs that it follows another.
        if create.pdu.sender() != user && !self.is_replaced_by(&before, room).await? {
            return Ok(());
        }
        if let Err(error) = self.0.accounts.copy_room_settings(user, &before, room).await {
            tracing::warn!(%user, %room, %error, "settings of the room before were not taken over");
        }
        Ok(())
    }

    /// Whether `old` says that it goes on in `new`. (client-server API, `m.room.tombstone`)
    async fn is_replaced_by(&self, old: &RoomId, new: &RoomId) -> Result<bool> {
        let view = self.view(old).await?;
        let tombstone = view.current_content::<Tombstone>(StateEventType::RoomTombstone).await?;
        Ok(tombstone.is_some_and(|tombstone| *tombstone.replacement_room == *new))
    }
}
