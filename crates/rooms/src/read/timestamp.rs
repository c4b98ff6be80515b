//! `/timestamp_to_event`: the event nearest to a time.

use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, ServerName, api::Direction};

use crate::{
    Actor, Error, Result, Rooms,
    desk::Desk,
    read::view::{Event, View},
    visible::is_hidden,
};

/// Rounds of fetching history until an event that another server named is here.
const ROUNDS: usize = 5;
/// Events fetched in a round.
const ROUND: u16 = 100;
/// Events looked at on each side of where the time should be: clocks of servers differ.
const AROUND: usize = 50;

/// An event and its time.
pub type Found = (OwnedEventId, MilliSecondsSinceUnixEpoch);

const NOTHING: Error = Error::NotFound("event at this time");

/// What this server knows of a time.
struct Nearest {
    found: Option<Found>,
    /// Where history is missing in which a nearer event may be.
    gap: Option<i64>,
}

impl Rooms {
    /// `GET /rooms/{roomId}/timestamp_to_event`: the nearest visible event not before (forward) or not after
    /// (backward) `ts`. Where history may be missing in between, other servers are asked, and what they name is fetched.
    pub async fn timestamp_to_event(
        &self,
        actor: &Actor,
        room: &RoomId,
        ts: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<Found> {
        let local = self.nearest(actor, room, ts, direction).await?;
        let Some(gap) = local.gap else { return local.found.ok_or(NOTHING) };
        let is_nearer = |at| match (direction, local.found.as_ref().map(|(_, at)| *at)) {
            (Direction::Forward, until) => ts <= at && until.is_none_or(|until| at < until),
            (Direction::Backward, since) => at <= ts && since.is_none_or(|since| since < at),
        };
        let desk = Desk::open(&self.0, room).await?;
        let servers = desk.likely_servers(gap, self.0.config().backfill_servers).await?;
        drop(desk);
        for server in servers {
            let Ok((event, at)) = self.0.peers.timestamp_to_event(&server, room, ts, direction).await else {
                continue;
            };
            if is_nearer(at) && self.fetch_back_to(room, gap, &event).await? {
                // What is here now, the time included, was checked; what the other server said was not.
                return self.nearest(actor, room, ts, direction).await?.found.ok_or(NOTHING);
            }
        }
        local.found.ok_or(NOTHING)
    }

    async fn nearest(
        &self,
        actor: &Actor,
        room: &RoomId,
        ts: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<Nearest> {
        let view = self.view_as(actor, room).await.map_err(crate::read::state::no_such_room)?;
        view.access(&actor.user).await?;
        let low = view.turning(ts, direction).await?;
        let seen = view.visible(&actor.user, view.around(low).await?).await?;
        let ignored = view.ignored_by(&actor.user).await?;
        let all: Vec<Event> = seen.into_iter().map(|seen| seen.event).collect();
        // What is here is here, whoever said it: nobody else is asked for it.
        let at = nearest(all.iter().cloned(), ts, direction).and_then(|event| event.meta.ordinal);
        let told = all.into_iter().filter(|event| !is_hidden(&event.pdu, &ignored));
        let event = nearest(told, ts, direction);
        let gap = view.gap_between(low, at, direction).await?;
        Ok(Nearest { found: event.as_ref().map(found), gap })
    }

    /// Fetches history before the gap at `ordinal` until `event` has its place; gives whether it has.
    async fn fetch_back_to(&self, room: &RoomId, mut ordinal: i64, event: &EventId) -> Result<bool> {
        for _ in 0..ROUNDS {
            if self.fill_gap(room, ordinal, ROUND).await? == 0 {
                return Ok(false);
            }
            let view = self.view(room).await?;
            if let Some(num) = view.reader.event_num(view.nid, event).await?
                && view.reader.event_meta(view.nid, num).await?.ordinal.is_some()
            {
                return Ok(true);
            }
            let Some(next) = view.newest_open_gap(..=ordinal).await? else { return Ok(false) };
            ordinal = next;
        }
        Ok(false)
    }

    /// The same for another server.
    pub async fn timestamp_to_event_for(
        &self,
        origin: &ServerName,
        room: &RoomId,
        ts: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<Found> {
        let view = self.view_for(origin, room).await?;
        let candidates = view.around(view.turning(ts, direction).await?).await?;
        let sees = view.server_sees(origin, &candidates).await?;
        let visible = candidates.into_iter().zip(sees).filter(|(event, sees)| *sees && event.is_shown());
        nearest(visible.map(|(event, _)| event), ts, direction).map(|event| found(&event)).ok_or(NOTHING)
    }
}

fn found(event: &Event) -> Found {
    let id: &EventId = event.pdu.event_id();
    (id.to_owned(), event.pdu.origin_server_ts())
}

fn nearest(
    events: impl Iterator<Item = Event>,
    ts: MilliSecondsSinceUnixEpoch,
    direction: Direction,
) -> Option<Event> {
    let time = |event: &Event| event.pdu.origin_server_ts();
    // Of several at the same time, the one that comes first in the direction of looking.
    let place = |event: &Event| (time(event), event.meta.ordinal);
    match direction {
        Direction::Forward => events.filter(|event| time(event) >= ts).min_by_key(place),
        Direction::Backward => events.filter(|event| time(event) <= ts).max_by_key(place),
    }
}

impl View<'_> {
    /// The gap in which an event may be that is nearer than the one found at `at`; if there are several, the one that comes
    /// first in the direction of looking.
    async fn gap_between(&self, low: i64, at: Option<i64>, direction: Direction) -> Result<Option<i64>> {
        if direction == Direction::Backward {
            let since = at.map_or(i64::MIN, |at| at.min(low - 1));
            return self.newest_open_gap(since.saturating_add(1)..=low).await;
        }
        // The event that comes after a gap may have expired: the gap stays, before the event that is found.
        let before = self.reader.timeline_back(self.nid, low, 1).await?;
        let before = before.first().map_or(i64::MIN, |row| row.ordinal);
        let until = at.map_or(i64::MAX, |at| at.max(low));
        Ok(self.open_gaps(before.saturating_add(1)..=until).await?.into_iter().next())
    }

    /// The place of the first event after a time: a binary search, as the timeline is nearly in order of time.
    pub(crate) async fn turning(&self, ts: MilliSecondsSinceUnixEpoch, direction: Direction) -> Result<i64> {
        let (mut low, mut high) = (self.head.next_back + 1, self.head.next_live);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(row) = self.reader.timeline_forward(self.nid, middle, 1).await?.into_iter().next()
            else {
                high = middle;
                continue;
            };
            let time = self.load_one(row.num).await?.pdu.origin_server_ts();
            let before = if direction == Direction::Forward { time < ts } else { time <= ts };
            if before {
                low = row.ordinal + 1;
            } else {
                high = middle;
            }
        }
        // Out of a hole, to the event behind it.
        let behind = self.reader.timeline_forward(self.nid, low, 1).await?.into_iter().next();
        Ok(behind.map_or(low, |row| row.ordinal))
    }

    async fn around(&self, low: i64) -> Result<Vec<Event>> {
        let mut rows = self.reader.timeline_back(self.nid, low, AROUND).await?;
        rows.extend(self.reader.timeline_forward(self.nid, low, AROUND).await?);
        let nums: Vec<_> = rows.into_iter().map(|row| row.num).collect();
        self.load(&nums).await
    }
}
