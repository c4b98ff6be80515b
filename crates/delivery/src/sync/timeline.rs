//! The newest events of a room that a user may see and wants.

use std::collections::BTreeSet;

use chappe_rooms::{Event, Seen, View, passes};
use chappe_store::{EventNum, Position, timeline::TimelineRow};
use ruma::{OwnedUserId, UserId, api::client::filter::RoomEventFilter};

use crate::{Error, tail::Tail};

/// Events in an answer when the filter does not say how many.
const USUAL: usize = 10;
/// Events looked at for one answer at most; a filter that drops more gets a limited timeline.
const SCANNED: usize = 1_000;

/// A stretch of the timeline.
pub(super) struct Span {
    /// Events of commits after this; `None`: as far back as there are.
    pub(super) after: Option<Position>,
    /// Events before this ordinal.
    pub(super) before: i64,
}

/// What to leave out.
pub(super) struct Wanted<'a> {
    pub(super) user: &'a UserId,
    pub(super) filter: &'a RoomEventFilter,
    pub(super) ignored: &'a BTreeSet<OwnedUserId>,
    pub(super) most: usize,
}

impl Wanted<'_> {
    fn limit(&self) -> usize {
        let asked = self.filter.limit.map(|limit| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX));
        asked.unwrap_or(USUAL).min(self.most)
    }

    fn wants(&self, view: &View<'_>, event: &Event) -> bool {
        let from_ignored = event.pdu.state_key().is_none() && self.ignored.contains(event.pdu.sender());
        !from_ignored && passes(self.filter, &view.room_id, &event.pdu)
    }
}

/// The newest events of a span, oldest first.
#[derive(Default)]
pub(super) struct Slice {
    pub(super) events: Vec<Seen>,
    /// Whether there is more in the span, or a hole in what this server has.
    pub(super) limited: bool,
    /// The ordinal where paging backwards goes on.
    pub(super) start: i64,
    /// The oldest event of the span, wanted or not, if the slice reaches it.
    pub(super) first: Option<EventNum>,
}

/// Takes the newest events of a span.
pub(super) async fn slice(
    (view, tail): (&View<'_>, &Tail),
    span: &Span,
    wanted: &Wanted<'_>,
) -> Result<Slice, Error> {
    let limit = wanted.limit();
    let mut slice = Slice { start: span.before, ..Slice::default() };
    let mut scanned = 0;
    let hole = newest_hole(view, tail, span.before).await?;
    let (mut rows, mut events) = tail.back(span.before);
    let mut more = tail.has_older(span.after);
    loop {
        let inside = rows.iter().take_while(|row| is_inside(row, span)).count();
        events.truncate(inside);
        let mut seen = seen(view, events, wanted).await?.into_iter().peekable();
        for row in &rows[..inside] {
            let kept = seen.next_if(|seen| seen.event.num == row.num);
            // The event after a gap may have expired.
            let is_behind_gap = hole.is_some_and(|hole| hole > row.ordinal && hole < slice.start);
            if is_behind_gap || (kept.is_some() && slice.events.len() == limit) {
                slice.limited = true;
                return Ok(turned(slice));
            }
            slice.start = row.ordinal;
            slice.first = Some(row.num);
            slice.events.extend(kept);
            if hole == Some(row.ordinal) {
                slice.limited = true;
                return Ok(turned(slice));
            }
        }
        scanned += inside;
        if inside < rows.len() || !more {
            return Ok(turned(slice));
        }
        if scanned >= SCANNED {
            slice.limited = true;
            return Ok(turned(slice));
        }
        let page = (limit + 1).saturating_sub(slice.events.len()).max(20);
        let before = rows.last().map_or(slice.start, |row| row.ordinal);
        rows = view.reader.timeline_back(view.nid, before, page).await?;
        more = rows.len() == page;
        let nums: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
        events = if nums.is_empty() { Vec::new() } else { view.load(&nums).await? };
    }
}

/// The newest place before `before` before which this server lacks events: no slice goes further back.
async fn newest_hole(view: &View<'_>, tail: &Tail, before: i64) -> Result<Option<i64>, Error> {
    if tail.newest_hole.is_none_or(|hole| hole < before) {
        return Ok(tail.newest_hole);
    }
    let gaps = view.reader.gaps_back(view.nid, before, 1).await?;
    Ok(gaps.first().map(|gap| gap.ordinal))
}

/// Those of the events that the user may see and wants, in their order.
async fn seen(view: &View<'_>, mut events: Vec<Event>, wanted: &Wanted<'_>) -> Result<Vec<Seen>, Error> {
    events.retain(|event| wanted.wants(view, event));
    if events.is_empty() {
        return Ok(Vec::new());
    }
    Ok(view.visible(wanted.user, events).await?)
}

fn turned(mut slice: Slice) -> Slice {
    slice.events.reverse();
    slice
}

/// Back-filled events are never news.
fn is_inside(row: &TimelineRow, span: &Span) -> bool {
    span.after.is_none_or(|after| row.position > after && row.ordinal > 0)
}
