//! `/messages`: a room's history, page by page.

use std::collections::BTreeSet;

use chappe_rules::client::Form;
use chappe_store::state::StateKey;
use ruma::{
    OwnedUserId, RoomId, UserId,
    api::{
        Direction,
        client::filter::{LazyLoadOptions, RoomEventFilter},
    },
    events::TimelineEventType,
};
use serde_json::value::RawValue;

use crate::{
    Actor, Result, Rooms,
    read::{
        filter::{Relations, passes},
        render::Bundle,
        state::no_such_room,
        token::Place,
        view::{Event, View},
    },
    visible::{Seen, is_hidden},
};

/// Events of one page at most, whatever the client asks for.
const LONGEST: u64 = 500;
/// Events looked at for one page at most; a strict filter then gives a shorter page and a token to go on.
const LOOKED_AT: usize = 2_000;
/// Times other servers are asked for one page at most.
const FETCHES: usize = 3;

/// What part of the history is asked for.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest<'a> {
    /// Where to begin; none: at the end the direction leads away from.
    pub from: Option<&'a str>,
    /// Where to stop.
    pub to: Option<&'a str>,
    /// Which way.
    pub direction: Direction,
    /// How many events.
    pub limit: u64,
    /// Which events.
    pub filter: &'a RoomEventFilter,
    /// With which relations; none: with any and without.
    pub relations: Option<&'a Relations>,
}

/// A page of history.
#[derive(Debug)]
pub struct Page {
    /// The token it begins at.
    pub start: String,
    /// The token to go on with; none where there is nothing more.
    pub end: Option<String>,
    /// Events in the order asked for.
    pub chunk: Vec<Box<RawValue>>,
    /// With lazy loading: the senders' member events.
    pub state: Vec<Box<RawValue>>,
}

/// A stretch of the timeline to collect from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    /// Where to begin.
    pub(crate) from: i64,
    /// Where to stop.
    pub(crate) to: Option<i64>,
    /// Which way.
    pub(crate) direction: Direction,
    /// How many events.
    pub(crate) limit: usize,
}

/// What was collected.
pub(crate) struct Collected {
    pub(crate) seen: Vec<Seen>,
    /// Where to go on.
    pub(crate) next: i64,
    /// Whether the timeline has nothing more that way.
    pub(crate) exhausted: bool,
}

impl Rooms {
    /// `GET /rooms/{roomId}/messages`. Where this server's history ends before the room's beginning, other servers are
    /// asked for more.
    pub async fn messages(&self, actor: &Actor, room: &RoomId, request: PageRequest<'_>) -> Result<Page> {
        let limit = usize::try_from(request.limit.clamp(1, LONGEST)).unwrap_or(1);
        let view = self.view_as(actor, room).await.map_err(no_such_room)?;
        let (stretch, start) = view.stretch(&actor.user, &request, limit).await?;
        let found = view.collect(&actor.user, stretch, (request.filter, request.relations)).await?;
        if request.direction == Direction::Forward {
            return view.page(actor, start, found, request.filter).await;
        }
        let (mut view, mut found) = (view, found);
        for _ in 0..FETCHES {
            let Some(gap) = view.gap_within(stretch, &found).await? else { break };
            drop(view);
            let fetched = self.fill_gap(room, gap, u16::try_from(limit.max(50)).unwrap_or(u16::MAX)).await;
            if let Err(error) = &fetched {
                tracing::debug!(%room, %error, "no older events from other servers");
            }
            view = self.view_as(actor, room).await?;
            if !fetched.is_ok_and(|count| count > 0) {
                break;
            }
            found = view.collect(&actor.user, stretch, (request.filter, request.relations)).await?;
        }
        view.page(actor, start, found, request.filter).await
    }
}

impl View<'_> {
    async fn stretch(
        &self,
        user: &UserId,
        request: &PageRequest<'_>,
        limit: usize,
    ) -> Result<(Stretch, Place)> {
        let access = self.access(user).await?;
        let end = access.end().min(self.head.next_live);
        let from = match (request.from, request.direction) {
            (Some(token), Direction::Backward) => self.place(token).await?.0.min(end),
            (Some(token), Direction::Forward) => self.place(token).await?.0,
            (None, Direction::Backward) => end,
            (None, Direction::Forward) => self.head.next_back,
        };
        let to = match request.to {
            Some(token) => Some(self.place(token).await?.0),
            None => None,
        };
        Ok((Stretch { from, to, direction: request.direction, limit }, Place(from)))
    }

    /// The newest place among those looked at before which history is missing.
    async fn gap_within(&self, stretch: Stretch, found: &Collected) -> Result<Option<i64>> {
        let lacking = found.seen.len() < stretch.limit;
        let lowest = match stretch.to {
            // The event after a gap, older than all that is here, may have expired.
            None if lacking && found.exhausted => i64::MIN,
            _ => found.next.saturating_add(i64::from(!lacking)),
        };
        self.newest_open_gap(lowest..=stretch.from).await
    }

    /// The events of a stretch that `user` may see, that are of nobody whom `user` ignores, and that pass the filter.
    pub(crate) async fn collect(
        &self,
        user: &UserId,
        stretch: Stretch,
        (filter, relations): (&RoomEventFilter, Option<&Relations>),
    ) -> Result<Collected> {
        let ignored = self.ignored_by(user).await?;
        let backward = stretch.direction == Direction::Backward;
        let mut all = Collected { seen: Vec::new(), next: stretch.from, exhausted: false };
        let mut looked_at = 0;
        while all.seen.len() < stretch.limit && looked_at < LOOKED_AT && !all.exhausted {
            let wanted = (stretch.limit - all.seen.len()).clamp(20, 200);
            let rows = if backward {
                self.reader.timeline_back(self.nid, all.next, wanted).await?
            } else {
                self.reader.timeline_forward(self.nid, all.next, wanted).await?
            };
            looked_at += rows.len();
            all.exhausted = rows.len() < wanted;
            let inside = |ordinal: i64| match stretch.to {
                Some(to) if backward => ordinal >= to,
                Some(to) => ordinal < to,
                None => true,
            };
            let nums: Vec<_> = rows.iter().filter(|row| inside(row.ordinal)).map(|row| row.num).collect();
            let cut = nums.len() < rows.len();
            let last = rows.iter().rfind(|row| inside(row.ordinal)).map(|row| row.ordinal);
            for seen in self.visible(user, self.load(&nums).await?).await? {
                let pdu = &seen.event.pdu;
                let wanted = !is_hidden(pdu, &ignored)
                    && passes(filter, &self.room_id, pdu)
                    && relations.is_none_or(|relations| relations.pass(pdu));
                if wanted && all.seen.len() < stretch.limit {
                    all.seen.push(seen);
                }
            }
            let full = all.seen.len() == stretch.limit;
            let reached = if full { all.seen.last().and_then(|seen| seen.event.meta.ordinal) } else { last };
            if let Some(reached) = reached {
                all.exhausted &= !full || Some(reached) == last;
                all.next = if backward { reached } else { reached + 1 };
            }
            if cut {
                all.exhausted |= !full;
                break;
            }
        }
        Ok(all)
    }

    async fn page(
        &self,
        actor: &Actor,
        start: Place,
        found: Collected,
        filter: &RoomEventFilter,
    ) -> Result<Page> {
        let form = Form::Full;
        let chunk = self.render(actor, &found.seen, form, Bundle::All).await?;
        let state = self.lazy_members(&actor.user, &found.seen, filter).await?;
        let state = self.render_state(&state, form)?;
        // A page that reaches the end still names it: more may come there, live or from other servers.
        let ended = found.exhausted && found.seen.is_empty();
        let end = (!ended).then(|| Place(found.next).to_string());
        Ok(Page { start: start.to_string(), end, chunk, state })
    }

    /// The member events of the senders of `events`, as of the first of them, if the filter wants members lazily.
    async fn lazy_members(
        &self,
        user: &UserId,
        events: &[Seen],
        filter: &RoomEventFilter,
    ) -> Result<Vec<Event>> {
        let Some(first) = events.first().filter(|_| wants_lazy_members(filter)) else {
            return Ok(Vec::new());
        };
        let senders: BTreeSet<OwnedUserId> =
            events.iter().map(|seen| seen.event.pdu.sender().to_owned()).collect();
        let keys: Vec<StateKey> =
            senders.iter().map(|user| StateKey::new(TimelineEventType::RoomMember, user)).collect();
        let at = [first.event.meta.before, first.event.meta.after];
        let members = self.state_events_at(first.event.meta.after, &keys).await?;
        let mut members: Vec<Event> = members.into_iter().flatten().collect();
        self.veil_state(user, &at, members.iter_mut().collect()).await?;
        Ok(members)
    }
}

/// Whether a filter asks for member events of senders only.
pub(crate) fn wants_lazy_members(filter: &RoomEventFilter) -> bool {
    matches!(filter.lazy_load_options, LazyLoadOptions::Enabled { .. })
}
