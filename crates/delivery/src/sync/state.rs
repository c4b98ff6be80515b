//! The state part of a room: what the timeline does not tell.

use std::collections::{BTreeMap, BTreeSet};

use chappe_rooms::View;
use chappe_store::{EventMeta, EventNum, Position, StateRef, state::StateKey};
use ruma::OwnedUserId;

use super::timeline::Slice;
use crate::Error;

/// State events by key.
pub(super) type Nums = BTreeMap<StateKey, EventNum>;

/// State to tell.
#[derive(Default)]
pub(super) struct Part {
    pub(super) nums: Nums,
    /// Whether members are among what changed, those included of whom there is no event any more.
    pub(super) members: bool,
}

impl Part {
    fn of(nums: Nums) -> Self {
        let members = nums.keys().any(is_member);
        Self { nums, members }
    }
}

fn is_member(key: &StateKey) -> bool {
    key.event_type() == "m.room.member"
}

/// From where to where.
pub(super) struct Stretch<'a> {
    /// The state the device has; `None`: nothing.
    pub(super) from: Option<StateRef>,
    /// The state at the end of the timeline.
    pub(super) end: StateRef,
    /// Whether members are sent one by one, so that a whole state is wanted without them.
    pub(super) lazy: bool,
    /// The timeline.
    pub(super) slice: &'a Slice,
}

impl Stretch<'_> {
    /// The state before the first event of the timeline.
    pub(super) fn start(&self) -> StateRef {
        self.slice.events.first().map_or(self.end, |seen| seen.event.meta.before)
    }

    /// Whether the timeline starts from the state that the device has or from a later one. What came by a fork starts from
    /// an older one, or from one that never was the current one.
    pub(super) fn joins_on(&self) -> bool {
        let start = self.start();
        self.from.is_none_or(|from| start.line == from.line && start >= from)
    }

    /// Whether the timeline tells every change from its start on: each event goes on from the state that the one before it
    /// left.
    fn tells_all(&self) -> bool {
        let mut at = self.start();
        for seen in &self.slice.events {
            if at != seen.event.meta.before {
                return false;
            }
            at = seen.event.meta.after;
        }
        at == self.end
    }
}

/// The state that a device had when it had seen everything up to `seen`.
pub(super) async fn state_seen(view: &View<'_>, seen: Position, slice: &Slice) -> Result<StateRef, Error> {
    if view.head.position <= seen {
        return Ok(view.head.state);
    }
    if let Some(told) = told_from(slice, view.head.state) {
        return Ok(told);
    }
    match view.reader.state_as_of(view.nid, seen).await? {
        Some(state) => Ok(state),
        None => state_guessed(view, seen, slice).await,
    }
}

/// The state before a timeline that has all that is new and tells every change up to `end`.
fn told_from(slice: &Slice, end: StateRef) -> Option<StateRef> {
    let first = slice.events.first().filter(|seen| !slice.limited && slice.first == Some(seen.event.num))?;
    let stretch = Stretch { from: None, end, lazy: false, slice };
    stretch.tells_all().then_some(first.event.meta.before)
}

/// The same where it was not noted: what the events around tell of it.
async fn state_guessed(view: &View<'_>, seen: Position, slice: &Slice) -> Result<StateRef, Error> {
    let first = match slice.first {
        Some(first) if !slice.limited => Some(first),
        None if !slice.limited => return Ok(view.head.state),
        _ => {
            let ordinal = view.reader.ordinal_after(view.nid, seen).await?;
            view.reader.timeline_forward(view.nid, ordinal, 1).await?.first().map(|row| row.num)
        }
    };
    let Some(first) = first else { return Ok(view.head.state) };
    let meta = match slice.events.first().filter(|seen| seen.event.num == first) {
        Some(seen) => seen.event.meta.clone(),
        None => view.reader.event_meta(view.nid, first).await?,
    };
    if meta.before.line == view.head.state.line {
        return Ok(meta.before);
    }
    // The first new event is on a fork: the last event before it that was not says what the state was then. It may
    // say less than was told, never more.
    let mut ordinal = meta.ordinal.unwrap_or(1);
    loop {
        let rows = view.reader.timeline_back(view.nid, ordinal, 20).await?;
        let nums: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
        let metas = view.reader.event_metas(view.nid, &nums).await?;
        if let Some(meta) = metas.iter().find(|meta| meta.after.line == view.head.state.line) {
            return Ok(meta.after);
        }
        match rows.last() {
            Some(row) => ordinal = row.ordinal,
            None => return Ok(StateRef::EMPTY),
        }
    }
}

/// The member events of some users in the state `at`. While members of the room are still to come, that of a sender whom
/// this state does not know is the one that the sender's first event in the timeline rests on.
pub(super) async fn members_at(
    view: &View<'_>,
    at: StateRef,
    users: BTreeSet<OwnedUserId>,
    slice: &Slice,
) -> Result<Vec<(OwnedUserId, EventNum)>, Error> {
    let keys: Vec<StateKey> = users.iter().map(|user| StateKey::new("m.room.member", user)).collect();
    let found = view.reader.state_at(view.nid, at, &keys).await?;
    let mut members = Vec::with_capacity(found.len());
    for ((user, key), mut num) in users.into_iter().zip(keys).zip(found) {
        let first = slice.events.iter().find(|seen| seen.event.pdu.sender() == user);
        if let Some(first) = first.filter(|_| num.is_none() && view.head.partial) {
            num = view.reader.state_at(view.nid, first.event.meta.before, &[key]).await?.pop().flatten();
        }
        members.extend(num.map(|num| (user, num)));
    }
    Ok(members)
}

/// State between what the device has and the start of the timeline, and what no event of the timeline tells.
pub(super) async fn before(view: &View<'_>, stretch: &Stretch<'_>) -> Result<Part, Error> {
    let start = stretch.start();
    let mut part = match stretch.from {
        None => Part::of(whole(view, start, stretch.lazy).await?),
        Some(from) if stretch.joins_on() => changed(view, from, start).await?,
        Some(_) => Part::default(),
    };
    if stretch.joins_on() && stretch.tells_all() {
        return Ok(part);
    }
    let told: BTreeSet<EventNum> = stretch.slice.events.iter().map(|seen| seen.event.num).collect();
    let all = changed(view, stretch.from.unwrap_or(start), stretch.end).await?;
    part.members |= all.members;
    part.nums.extend(all.nums.into_iter().filter(|(_, num)| !told.contains(num)));
    Ok(part)
}

/// State between what the device has and the end of the timeline.
pub(super) async fn after(view: &View<'_>, stretch: &Stretch<'_>) -> Result<Part, Error> {
    match stretch.from {
        Some(from) => changed(view, from, stretch.end).await,
        None => Ok(Part::of(whole(view, stretch.end, stretch.lazy).await?)),
    }
}

/// The member events of those who had one at `seen` and have, or had meanwhile, another: whoever loads lazily may have
/// been shown them. For a room whose members came since, which no timeline tells. If the device has a `gap`, also those
/// that are in the timeline.
pub(super) async fn members_since(view: &View<'_>, seen: Position, gap: bool) -> Result<Nums, Error> {
    let limited = Slice { limited: true, ..Slice::default() };
    let from = state_seen(view, seen, &limited).await?;
    let mut courses = view.reader.state_course(view.nid, from, view.head.state).await?;
    courses.retain(|course| course.new != EventNum::NONE);
    let mut told = BTreeSet::new();
    if gap {
        let fresh = courses.iter().filter(|course| course.old == EventNum::NONE);
        let fresh: Vec<EventNum> = fresh.map(|course| course.new).collect();
        let metas = view.reader.event_metas(view.nid, &fresh).await?;
        let is_live = |meta: &EventMeta| meta.ordinal.is_some_and(|ordinal| ordinal > 0);
        told.extend(fresh.into_iter().zip(metas).filter(|(_, meta)| is_live(meta)).map(|(num, _)| num));
    }
    courses.retain(|course| course.old != EventNum::NONE || told.contains(&course.new));
    let ids: Vec<_> = courses.iter().map(|course| course.key).collect();
    let keys = view.reader.state_keys(view.nid, &ids).await?;
    let nums = keys.into_iter().zip(courses).filter(|(key, _)| is_member(key));
    Ok(nums.map(|(key, course)| (key, course.new)).collect())
}

/// A whole state, without its members if they come one by one.
pub(super) async fn whole(view: &View<'_>, at: StateRef, lazy: bool) -> Result<Nums, Error> {
    let (reader, nid) = (&view.reader, view.nid);
    let state = match (lazy, at == view.head.state) {
        (false, true) => reader.current_state(nid).await?,
        (false, false) => reader.full_state(nid, at).await?,
        (true, true) => reader.current_without_members(nid).await?,
        (true, false) => reader.state_without_members(nid, at).await?,
    };
    Ok(state.into_iter().collect())
}

async fn changed(view: &View<'_>, from: StateRef, to: StateRef) -> Result<Part, Error> {
    if from == to {
        return Ok(Part::default());
    }
    // What came and was taken back is told again: the timeline may have told that it came.
    let courses = view.reader.state_course(view.nid, from, to).await?;
    let ids: Vec<_> = courses.iter().map(|course| course.key).collect();
    let keys = view.reader.state_keys(view.nid, &ids).await?;
    let members = keys.iter().any(is_member);
    let nums = keys.into_iter().zip(courses).map(|(key, course)| (key, course.new));
    Ok(Part { nums: nums.filter(|(_, num)| *num != EventNum::NONE).collect(), members })
}
