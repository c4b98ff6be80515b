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

impl Rooms {
    /// Copies a local user's settings of the room before `room`, if there is one and the user was in it. A failure is not
    /// the user's concern: the join has happened.
    pub(crate) async fn inherit_settings(&self, user: &UserId, room: &RoomId) {
        if let Err(error) = self.try_inherit(user, room).await {
            tracing::warn!(%user, %room, %error, "settings of the room before were not taken over");
        }
    }

    async fn try_inherit(&self, user: &UserId, room: &RoomId) -> Result<()> {
        let view = self.view(room).await?;
        let create = view.current(StateEventType::RoomCreate, "").await?;
        let before = create.and_then(|event| event.pdu.content_as::<Create>()?.predecessor);
        let Some(Predecessor { room_id: before }) = before else { return Ok(()) };
        let Some(old) = view.reader.room_nid(&before).await? else { return Ok(()) };
        if view.reader.user_room(user, old).await?.is_none() {
            return Ok(());
        }
        drop(view);
        if let Err(error) = self.0.accounts.copy_room_settings(user, &before, room).await {
            tracing::warn!(%user, %room, %error, "settings of the room before were not taken over");
        }
        Ok(())
    }
}
