//! One event.

use chappe_rules::client::Form;
use ruma::{EventId, RoomId};
use serde_json::value::RawValue;

use crate::{Actor, Error, Result, Rooms, read::render::Bundle};

impl Rooms {
    /// `GET /rooms/{roomId}/event/{eventId}`: the event for a client, if it is in this room and the user may see it; of
    /// whoever the user ignores state alone.
    pub async fn event(&self, actor: &Actor, room: &RoomId, event: &EventId) -> Result<Box<RawValue>> {
        let view = self.view_as(actor, room).await.map_err(no_such_event)?;
        let seen = view.told(&actor.user, event).await?;
        let mut rendered = view.render(actor, &[seen], Form::Full, Bundle::All).await?;
        rendered.pop().ok_or(Error::NotFound("event"))
    }

    /// `GET /events/{eventId}`: the same without knowing the room. [`Error::NotFound`] whatever the reason.
    pub async fn event_anywhere(&self, actor: &Actor, event: &EventId) -> Result<Box<RawValue>> {
        let reader = self.0.store.read();
        let (nid, _) = reader.event_address(event).await?.ok_or(Error::NotFound("event"))?;
        let room = reader.room_id(nid).await?;
        drop(reader);
        self.event(actor, &room, event).await
    }
}

/// An event of a room that does not exist is one that is not there.
pub(crate) fn no_such_event(error: Error) -> Error {
    match error {
        Error::NotFound(_) => Error::NotFound("event"),
        other => other,
    }
}
