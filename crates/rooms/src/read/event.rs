//! One event.

use chappe_rules::client::Form;
use ruma::{EventId, RoomId};
use serde_json::value::RawValue;

use crate::{Actor, Result, Rooms, read::render::Bundle};

impl Rooms {
    /// `GET /rooms/{roomId}/event/{eventId}`: the event for a client, if it is in this room and the user may see it.
    pub async fn event(&self, actor: &Actor, room: &RoomId, event: &EventId) -> Result<Box<RawValue>> {
        let seen = self.visible_to_user(&actor.user, room, event).await?;
        let view = self.view(room).await?;
        let mut rendered = view.render(actor, &[seen], Form::Full, Bundle::All).await?;
        rendered.pop().ok_or(crate::Error::NotFound("event"))
    }

    /// `GET /events/{eventId}`: the same without knowing the room. [`crate::Error::NotFound`] whatever the reason.
    pub async fn event_anywhere(&self, actor: &Actor, event: &EventId) -> Result<Box<RawValue>> {
        let reader = self.0.store.read();
        let (nid, _) = reader.event_address(event).await?.ok_or(crate::Error::NotFound("event"))?;
        let room = reader.room_id(nid).await?;
        drop(reader);
        self.event(actor, &room, event).await
    }
}
