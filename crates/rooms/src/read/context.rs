//! `/context`: an event with what happened around it.

use std::collections::BTreeSet;

use chappe_rules::client::Form;
use chappe_store::{StateRef, state::StateKey};
use ruma::{
    EventId, RoomId, UserId,
    api::{Direction, client::filter::RoomEventFilter},
    events::StateEventType,
};
use serde_json::value::RawValue;

use crate::{
    Actor, Error, Result, Rooms,
    read::{
        event::no_such_event,
        messages::{Stretch, wants_lazy_members},
        render::Bundle,
        token::Place,
        view::{Event, View},
    },
    visible::Seen,
};

/// Events around one at most.
const LONGEST: u64 = 200;

/// An event and its surroundings.
#[derive(Debug)]
pub struct Context {
    /// The event.
    pub event: Box<RawValue>,
    /// Those before it, the nearest first.
    pub before: Vec<Box<RawValue>>,
    /// Those after it, the nearest first.
    pub after: Vec<Box<RawValue>>,
    /// Token for what was before.
    pub start: String,
    /// Token for what came after.
    pub end: String,
    /// The state at the last event shown.
    pub state: Vec<Box<RawValue>>,
}

/// What is around an event.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Before it, the nearest first.
    pub before: Vec<Seen>,
    /// After it, the nearest first.
    pub after: Vec<Seen>,
    /// Token for what was before.
    pub start: String,
    /// Token for what came after.
    pub end: String,
}

impl Rooms {
    /// `GET /rooms/{roomId}/context/{eventId}`: up to `limit` events, half before and half after.
    pub async fn context(
        &self,
        actor: &Actor,
        room: &RoomId,
        event: &EventId,
        limit: u64,
        filter: &RoomEventFilter,
    ) -> Result<Context> {
        let view = self.view_as(actor, room).await.map_err(no_such_event)?;
        let seen = view.told(&actor.user, event).await?;
        let ordinal = seen.event.meta.ordinal.ok_or(Error::NotFound("event"))?;
        let limit = usize::try_from(limit.min(LONGEST)).unwrap_or(0);
        let sides = (limit / 2, limit - limit / 2);
        let Surroundings { before, after, start, end } =
            view.surroundings(&actor.user, ordinal, sides, filter).await?;
        let last = after.last().unwrap_or(&seen).event.clone();
        let all: Vec<Seen> = before.iter().chain(&after).chain(std::iter::once(&seen)).cloned().collect();
        let mut state = view.state_around(&last, &all, filter).await?;
        let at = [last.meta.before, last.meta.after];
        view.veil_state(&actor.user, &at, state.iter_mut().collect()).await?;
        let (form, bundle) = (Form::Full, Bundle::All);
        let mut event = view.render(actor, &[seen], form, bundle).await?;
        Ok(Context {
            event: event.pop().ok_or(Error::NotFound("event"))?,
            before: view.render(actor, &before, form, bundle).await?,
            after: view.render(actor, &after, form, bundle).await?,
            start,
            end,
            state: view.render_state(&state, form)?,
        })
    }
}

impl View<'_> {
    /// What a user may see around a place of the timeline: so many events before it and after it at most.
    pub async fn surroundings(
        &self,
        user: &UserId,
        ordinal: i64,
        (before, after): (usize, usize),
        filter: &RoomEventFilter,
    ) -> Result<Surroundings> {
        let back = Stretch { from: ordinal, to: None, direction: Direction::Backward, limit: before };
        let on = Stretch { from: ordinal + 1, to: None, direction: Direction::Forward, limit: after };
        let before = self.collect(user, back, (filter, None)).await?;
        let after = self.collect(user, on, (filter, None)).await?;
        Ok(Surroundings {
            start: Place(before.next).to_string(),
            end: Place(after.next).to_string(),
            before: before.seen,
            after: after.seen,
        })
    }

    async fn state_around(
        &self,
        last: &Event,
        shown: &[Seen],
        filter: &RoomEventFilter,
    ) -> Result<Vec<Event>> {
        let at = last.meta.after;
        if wants_lazy_members(filter) {
            return self.state_for(at, shown).await;
        }
        let state = self.reader.full_state(self.nid, at).await?;
        self.load(&state.into_iter().map(|(_, num)| num).collect::<Vec<_>>()).await
    }

    /// A state, of its members those who said what is shown. What it costs does not grow with the members.
    pub async fn state_for(&self, at: StateRef, shown: &[Seen]) -> Result<Vec<Event>> {
        let senders: BTreeSet<&UserId> = shown.iter().map(|seen| seen.event.pdu.sender()).collect();
        let keys: Vec<StateKey> =
            senders.into_iter().map(|user| StateKey::new(StateEventType::RoomMember, user)).collect();
        let rest = self.reader.state_without_members(self.nid, at).await?;
        let mut state = self.load(&rest.into_iter().map(|(_, num)| num).collect::<Vec<_>>()).await?;
        state.extend(self.state_events_at(at, &keys).await?.into_iter().flatten());
        Ok(state)
    }
}
