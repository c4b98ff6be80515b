//! `/context`: an event with what happened around it.

use std::collections::BTreeSet;

use chappe_rules::client::Form;
use ruma::{
    EventId, RoomId,
    api::{Direction, client::filter::RoomEventFilter},
};
use serde_json::value::RawValue;

use crate::{
    Actor, Error, Result, Rooms,
    read::{
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
        let view = self.view_as(actor, room).await.map_err(|_| Error::NotFound("event"))?;
        let seen = view.seen_by(&actor.user, event).await?;
        let ordinal = seen.event.meta.ordinal.ok_or(Error::NotFound("event"))?;
        let limit = usize::try_from(limit.min(LONGEST)).unwrap_or(0);
        let back = Stretch { from: ordinal, to: None, direction: Direction::Backward, limit: limit / 2 };
        let on =
            Stretch { from: ordinal + 1, to: None, direction: Direction::Forward, limit: limit - limit / 2 };
        let before = view.collect(&actor.user, back, (filter, None)).await?;
        let after = view.collect(&actor.user, on, (filter, None)).await?;
        let (start, end) = (Place(before.next).to_string(), Place(after.next).to_string());
        let last = after.seen.last().unwrap_or(&seen).event.clone();
        let all: Vec<Seen> =
            before.seen.iter().chain(&after.seen).chain(std::iter::once(&seen)).cloned().collect();
        let state = view.state_around(&last, &all, filter).await?;
        let (form, bundle) = (Form::Full, Bundle::All);
        let mut event = view.render(actor, &[seen], form, bundle).await?;
        Ok(Context {
            event: event.pop().ok_or(Error::NotFound("event"))?,
            before: view.render(actor, &before.seen, form, bundle).await?,
            after: view.render(actor, &after.seen, form, bundle).await?,
            start,
            end,
            state: view.render_state(&state, form)?,
        })
    }
}

impl View<'_> {
    async fn state_around(
        &self,
        last: &Event,
        shown: &[Seen],
        filter: &RoomEventFilter,
    ) -> Result<Vec<Event>> {
        let mut state = self.reader.full_state(self.nid, last.meta.after).await?;
        if wants_lazy_members(filter) {
            let senders: BTreeSet<&str> = shown.iter().map(|seen| seen.event.pdu.sender().as_str()).collect();
            state.retain(|(key, _)| key.event_type() != "m.room.member" || senders.contains(&*key.state_key));
        }
        let nums: Vec<_> = state.into_iter().map(|(_, num)| num).collect();
        self.load(&nums).await
    }
}
