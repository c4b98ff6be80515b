//! `/state`: the whole state or one event of it.

use chappe_rules::client::Form;
use ruma::{RoomId, events::StateEventType};
use serde_json::value::RawValue;

use crate::{Actor, Error, Result, Rooms, View, read::view::Event};

impl Rooms {
    /// `GET /rooms/{roomId}/state`: the current state for a member, the state on leaving for a former one.
    pub async fn state(&self, actor: &Actor, room: &RoomId) -> Result<Vec<Box<RawValue>>> {
        let (view, access) = self.whole_view(actor, room).await?;
        let at = access.state(view.head.state);
        let state = view.reader.full_state(view.nid, at).await?;
        let nums: Vec<_> = state.into_iter().map(|(_, num)| num).collect();
        view.load_each(&nums, None, |event| view.render_one(&event, Form::Full).map(Some)).await
    }

    /// `GET /rooms/{roomId}/state/{eventType}/{stateKey}`, as an event; [`Rooms::state_content`] gives its content.
    pub async fn state_event(
        &self,
        actor: &Actor,
        room: &RoomId,
        kind: StateEventType,
        state_key: &str,
    ) -> Result<Box<RawValue>> {
        let (view, event) = self.state_now(actor, room, kind, state_key).await?;
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
        let (_, event) = self.state_now(actor, room, kind, state_key).await?;
        Ok(event.pdu.content().to_owned())
    }

    /// A membership that is not here is waited for while members of the room are still being fetched.
    async fn state_now(
        &self,
        actor: &Actor,
        room: &RoomId,
        kind: StateEventType,
        state_key: &str,
    ) -> Result<(View<'_>, Event)> {
        let is_member = kind == StateEventType::RoomMember;
        let view = self.view(room).await.map_err(no_such_room)?;
        let at = view.access(&actor.user).await?.state(view.head.state);
        let mut found = (view.state_event_at(at, kind.clone(), state_key).await?, view);
        if found.0.is_none() && is_member && found.1.head.partial {
            drop(found);
            let (view, access) = self.whole_view(actor, room).await?;
            let at = access.state(view.head.state);
            found = (view.state_event_at(at, kind, state_key).await?, view);
        }
        let event = found.0.ok_or(Error::NotFound("state event"))?;
        Ok((found.1, event))
    }
}

/// A room that does not exist looks like one the user is not in.
pub(crate) fn no_such_room(error: Error) -> Error {
    match error {
        Error::NotFound("room") => Error::Forbidden("you are not a member of this room".to_owned()),
        other => other,
    }
}
