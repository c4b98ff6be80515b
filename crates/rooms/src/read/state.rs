//! `/state`: the whole state or one event of it.

use chappe_rules::client::Form;
use ruma::{RoomId, events::StateEventType};
use serde_json::value::RawValue;

use crate::{Actor, Error, Result, Rooms, read::view::Event};

impl Rooms {
    /// `GET /rooms/{roomId}/state`: the current state for a member, the state on leaving for a former one.
    pub async fn state(&self, actor: &Actor, room: &RoomId) -> Result<Vec<Box<RawValue>>> {
        let view = self.view_as(actor, room).await.map_err(no_such_room)?;
        let at = view.access(&actor.user).await?.state(view.head.state);
        let state = view.reader.full_state(view.nid, at).await?;
        let nums: Vec<_> = state.into_iter().map(|(_, num)| num).collect();
        view.render_state(&view.load(&nums).await?, Form::Full)
    }

    /// `GET /rooms/{roomId}/state/{eventType}/{stateKey}`, as an event; [`Rooms::state_content`] gives its content.
    pub async fn state_event(
        &self,
        actor: &Actor,
        room: &RoomId,
        kind: StateEventType,
        state_key: &str,
    ) -> Result<Box<RawValue>> {
        let view = self.view(room).await.map_err(no_such_room)?;
        let at = view.access(&actor.user).await?.state(view.head.state);
        let event = view.state_event_at(at, kind, state_key).await?.ok_or(Error::NotFound("state event"))?;
        view.render_state(&[event], Form::Full)?.pop().ok_or(Error::NotFound("state event"))
    }

    /// The content of one state event.
    pub async fn state_content(
        &self,
        actor: &Actor,
        room: &RoomId,
        kind: StateEventType,
        state_key: &str,
    ) -> Result<Box<RawValue>> {
        let view = self.view(room).await.map_err(no_such_room)?;
        let at = view.access(&actor.user).await?.state(view.head.state);
        let found: Option<Event> = view.state_event_at(at, kind, state_key).await?;
        Ok(found.ok_or(Error::NotFound("state event"))?.pdu.content().to_owned())
    }
}

/// A room that does not exist looks like one the user is not in.
pub(crate) fn no_such_room(error: Error) -> Error {
    match error {
        Error::NotFound("room") => Error::Forbidden("you are not a member of this room".to_owned()),
        other => other,
    }
}
