//! The newest events of a room that a user may see and wants.

use chappe_store::{EventNum, Position, Reader, timeline::TimelineRow};
use ruma::{OwnedUserId, UserId, api::client::filter::RoomEventFilter};
use std::collections::BTreeSet;

use super::filter;
use crate::{
    Error,
    events::{self, Found, Room},
};

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
    /// Which of them the user may see.
    pub(super) sight: Sight,
}

/// What a user may see of a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// All of it: they were in the room all the time.
    All,
    /// What the history visibility allows.
    Judged {
        /// Whether they were in the room after it.
        joined_since: bool,
    },
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

    fn wants(&self, event: &Found) -> bool {
        let from_ignored = event.pdu.state_key().is_none() && self.ignored.contains(event.pdu.sender());
        !from_ignored && filter::wants_event(self.filter, &event.pdu)
    }
}

/// The newest events of a span, oldest first.
#[derive(Default)]
pub(super) struct Slice {
    pub(super) events: Vec<Found>,
    /// Whether there is more in the span, or a hole in what this server has.
    pub(super) limited: bool,
    /// The ordinal where paging backwards goes on.
    pub(super) start: i64,
    /// The oldest event of the span, wanted or not, if the slice reaches it.
    pub(super) first: Option<EventNum>,
}

/// Takes the newest events of a span.
pub(super) async fn slice(
    reader: &Reader<'_>,
    room: &Room<'_>,
    span: &Span,
    wanted: &Wanted<'_>,
) -> Result<Slice, Error> {
    let limit = wanted.limit();
    let mut slice = Slice { start: span.before, ..Slice::default() };
    let (mut scanned, mut holes) = (0, None);
    loop {
        let page = (limit + 1).saturating_sub(slice.events.len()).max(20);
        let rows = reader.timeline_back(room.nid, slice.start, page).await?;
        let more = rows.len() == page;
        let inside: Vec<TimelineRow> = rows.iter().copied().take_while(|row| is_inside(row, span)).collect();
        let ended = inside.len() < rows.len() || !more;
        if !inside.is_empty() && holes.is_none() {
            holes = Some(holes_of(reader, room).await?);
        }
        let nums: Vec<EventNum> = inside.iter().map(|row| row.num).collect();
        for (row, event) in inside.iter().zip(events::load(reader, room, &nums).await?) {
            let keep = wanted.wants(&event) && is_seen(reader, room, span, wanted.user, &event).await?;
            if keep && slice.events.len() == limit {
                slice.limited = true;
                return Ok(turned(slice));
            }
            slice.start = row.ordinal;
            slice.first = Some(row.num);
            if keep {
                slice.events.push(event);
            }
            if holes.as_ref().is_some_and(|holes| holes.contains(&row.ordinal)) {
                slice.limited = true;
                return Ok(turned(slice));
            }
        }
        scanned += inside.len();
        if ended {
            return Ok(turned(slice));
        }
        if scanned >= SCANNED {
            slice.limited = true;
            return Ok(turned(slice));
        }
    }
}

fn turned(mut slice: Slice) -> Slice {
    slice.events.reverse();
    slice
}

/// Back-filled events are never news.
fn is_inside(row: &TimelineRow, span: &Span) -> bool {
    span.after.is_none_or(|after| row.position > after && row.ordinal > 0)
}

async fn is_seen(
    reader: &Reader<'_>,
    room: &Room<'_>,
    span: &Span,
    user: &UserId,
    event: &Found,
) -> Result<bool, Error> {
    match span.sight {
        Sight::All => Ok(true),
        Sight::Judged { joined_since } => events::is_visible(reader, room, user, event, joined_since).await,
    }
}

/// Ordinals before which this server lacks events.
async fn holes_of(reader: &Reader<'_>, room: &Room<'_>) -> Result<BTreeSet<i64>, Error> {
    Ok(reader.gaps(room.nid).await?.into_iter().map(|gap| gap.ordinal).collect())
}
