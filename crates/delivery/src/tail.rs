//! The newest events of a room, loaded and rendered once for everybody who is told of them.

use std::sync::{Arc, OnceLock};

use chappe_rooms::{Event, Seen, View};
use chappe_rules::{power::Power, version};
use chappe_store::{EventNum, Position, Reader, RoomHead, RoomNid, state::StateKey, timeline::TimelineRow};
use quick_cache::{Weighter, sync::Cache};
use ruma::{
    OwnedRoomId, UserId,
    events::{StateEventType, room::member::MembershipState},
};
use serde_json::value::RawValue;
use tokio::sync::OnceCell;

use crate::{Delivery, Error};

/// Events kept of each room.
const KEPT: usize = 32;
/// Bytes that the ends kept may have together, about: as if no event were in the cache of the store as well.
const BYTES: u64 = 128 << 20;
/// Rooms whose ends have room there if some events are long. For no more of them the cache has so few parts that the longest end
/// fits into one.
const ROOMS: usize = 250;
/// Bytes that an event takes in an end beside its texts: its record, its place.
const BESIDE: u64 = 300;
/// Events beyond those kept among which the last one that brings its room to the top is looked for.
const BUMPS: usize = 200;
/// Types of events that bring their room to the top (MSC4186, `bump_stamp`).
const BUMPING: [&str; 9] = [
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "org.matrix.msc3381.poll.start",
    "m.beacon_info",
    "org.matrix.msc3672.beacon_info",
];

/// Ends of rooms, by room and commit of what last changed them: an event, one that was removed, a change of members.
pub(crate) struct Tails(Cache<(RoomNid, Position), Arc<Tail>, BySize>);

impl Default for Tails {
    fn default() -> Self {
        Self(Cache::with_weighter(ROOMS, BYTES, BySize))
    }
}

/// Weighs ends by their bytes.
#[derive(Clone)]
struct BySize;

impl Weighter<(RoomNid, Position), Arc<Tail>> for BySize {
    fn weight(&self, _: &(RoomNid, Position), tail: &Arc<Tail>) -> u64 {
        tail.size
    }
}

/// The end of a room.
pub(crate) struct Tail {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) head: RoomHead,
    /// Oldest first.
    pub(crate) rows: Vec<TimelineRow>,
    events: Vec<Event>,
    /// The newest ordinal before which this server lacks events.
    pub(crate) newest_hole: Option<i64>,
    rendered: Vec<OnceLock<Option<Box<str>>>>,
    /// Bytes that it takes in memory at most, about, once everything is rendered.
    size: u64,
    power: OnceCell<Option<Power>>,
    bump: OnceCell<Option<Position>>,
}

impl Delivery {
    /// The end of a room at the moment of a snapshot that the follower has reached.
    pub(crate) async fn tail(&self, reader: &Reader<'_>, nid: RoomNid) -> Result<Arc<Tail>, Error> {
        let Some(last) = self.0.wake.last_event(nid, reader.position()) else {
            // The room has gone on long since the snapshot: this is for nobody else.
            return Ok(Arc::new(self.load_tail(reader, nid).await?));
        };
        let load = async { Ok::<_, Error>(Arc::new(self.load_tail(reader, nid).await?)) };
        self.0.tails.0.get_or_insert_async(&(nid, last), load).await
    }

    async fn load_tail(&self, reader: &Reader<'_>, nid: RoomNid) -> Result<Tail, Error> {
        let view = self.0.rooms.view_at(reader.clone(), nid).await?;
        let mut rows = reader.timeline_back(nid, view.head.next_live, KEPT).await?;
        rows.reverse();
        let nums: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
        let events = view.load(&nums).await?;
        let newest_hole = reader.gaps_back(nid, view.head.next_live, 1).await?.first().map(|gap| gap.ordinal);
        let rendered = rows.iter().map(|_| OnceLock::new()).collect();
        let size = size(&events);
        let View { room_id, head, .. } = view;
        Ok(Tail {
            room_id,
            head,
            rows,
            events,
            newest_hole,
            rendered,
            size,
            power: OnceCell::new(),
            bump: OnceCell::new(),
        })
    }
}

fn size(events: &[Event]) -> u64 {
    let of_one = |event: &Event| BESIDE + event.size() + event.pdu.json().len() as u64;
    BESIDE + events.iter().map(of_one).sum::<u64>()
}

fn bumps(event: &Event) -> bool {
    BUMPING.contains(&&*event.pdu.kind().to_string())
}

impl Tail {
    /// The events from one ordinal on up to another, if all of them are here.
    pub(crate) fn between(&self, from: i64, to: i64) -> Option<impl Iterator<Item = (&TimelineRow, &Event)>> {
        let first = self.rows.first()?.ordinal;
        let inside = move |(row, _): &(&TimelineRow, &Event)| row.ordinal >= from && row.ordinal < to;
        (first <= from).then(|| self.rows.iter().zip(&self.events).filter(inside))
    }

    /// All events after a position, oldest first, if all of them are here.
    pub(crate) fn after(&self, position: Position) -> Option<impl Iterator<Item = &Event>> {
        let inside = move |(row, _): &(&TimelineRow, &Event)| row.position > position;
        let events = self.rows.iter().zip(&self.events).filter(inside);
        (!self.has_older(Some(position))).then(|| events.map(|(_, event)| event))
    }

    /// When something was last said in the room: the commit of the last event that brings a room to the top. None where
    /// there is no such event among the newest.
    ///
    /// Specification: MSC4186, `bump_stamp`.
    pub(crate) async fn bump(&self, view: &View<'_>) -> Result<Option<Position>, Error> {
        let find = || async {
            let is_live = |row: &TimelineRow| row.ordinal > 0;
            let kept = self.rows.iter().zip(&self.events).rev();
            let mut kept = kept.filter(|(row, event)| is_live(row) && bumps(event));
            if let Some((row, _)) = kept.next() {
                return Ok(Some(row.position));
            }
            let before = self.rows.first().map_or(view.head.next_live, |row| row.ordinal);
            let rows = view.reader.timeline_back(view.nid, before, BUMPS).await?;
            let nums: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
            let events = view.load(&nums).await?;
            let found = rows.iter().zip(&events).find(|(row, event)| is_live(row) && bumps(event));
            Ok::<_, Error>(found.map(|(row, _)| row.position))
        };
        Ok(*self.bump.get_or_try_init(find).await?)
    }

    /// Whether there may be older events after a position than those kept.
    pub(crate) fn has_older(&self, after: Option<Position>) -> bool {
        let reaches = |row: &TimelineRow| after.is_none_or(|after| row.position > after);
        self.rows.len() == KEPT && self.rows.first().is_some_and(reaches)
    }

    /// The rows before an ordinal, latest first, and their events in the same order.
    pub(crate) fn back(&self, before: i64) -> (Vec<TimelineRow>, Vec<Event>) {
        let pairs = self.rows.iter().zip(&self.events).rev().filter(|(row, _)| row.ordinal < before);
        pairs.map(|(row, event)| (*row, event.clone())).unzip()
    }

    /// Events in [`Form::Sync`](chappe_rooms::Form) for `user`, who is in the room, aged as of `now` (milliseconds since
    /// 1970); `None` for what has to be rendered for each: what they sent themselves, what depends on who asks, what is
    /// not kept here. What nobody has been told yet is rendered for everybody, all at once.
    pub(crate) async fn rendered(
        &self,
        view: &View<'_>,
        user: &UserId,
        seen: &[Seen],
        now: u64,
    ) -> Result<Vec<Option<Box<RawValue>>>, Error> {
        let places: Vec<Option<usize>> = seen.iter().map(|seen| self.shared(user, seen)).collect();
        let fresh = |place: usize| self.rendered[place].get().is_none();
        let fresh: Vec<(usize, Seen)> = (places.iter().zip(seen))
            .filter_map(|(place, seen)| {
                place.filter(|place| fresh(*place)).map(|place| (place, seen.clone()))
            })
            .collect();
        if !fresh.is_empty() {
            let (places, events): (Vec<usize>, Vec<Seen>) = fresh.into_iter().unzip();
            for (place, text) in places.into_iter().zip(view.render_shared(&events).await?) {
                // Somebody else may have been faster, with the same result.
                let _ = self.rendered[place].set(text);
            }
        }
        let aged = |(place, seen): (&Option<usize>, &Seen)| {
            let text = self.rendered[(*place)?].get()?.as_ref()?;
            let age = now.saturating_sub(u64::from(seen.event.pdu.origin_server_ts().0));
            RawValue::from_string(format!("{text},\"age\":{age}}}}}")).ok()
        };
        Ok(places.iter().zip(seen).map(aged).collect())
    }

    /// The place here of an event that is the same for `user` as for others.
    fn shared(&self, user: &UserId, seen: &Seen) -> Option<usize> {
        let is_same = seen.membership == MembershipState::Join && seen.event.pdu.sender() != user;
        let place = self.rows.binary_search_by_key(&seen.event.meta.ordinal, |row| Some(row.ordinal));
        place.ok().filter(|_| is_same)
    }
    /// The power levels at the end.
    pub(crate) async fn power(&self, view: &View<'_>) -> Result<Option<&Power>, Error> {
        let load = || async {
            let keys = [StateEventType::RoomPowerLevels, StateEventType::RoomCreate];
            let keys = keys.map(|kind| StateKey::new(kind, ""));
            let mut found = view.state_events_at(view.head.state, &keys).await?.into_iter();
            let (levels, create) = (found.next().flatten(), found.next().flatten());
            let power = create.zip(version::rules(&view.head.version)).map(|(create, rules)| {
                Power::new(rules, &create.pdu, levels.as_ref().map(|levels| &levels.pdu))
            });
            Ok::<_, Error>(power)
        };
        Ok(self.power.get_or_try_init(load).await?.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chappe_store::{Position, RoomHead, RoomNid, StoredPdu};
    use ruma::{RoomVersionId, event_id, room_id};
    use tokio::sync::OnceCell;

    use super::{BESIDE, BYTES, KEPT, Tail, Tails};

    /// The longest event, in bytes.
    const LONGEST: usize = 65_536;

    #[test]
    fn ends_of_rooms_have_so_much_room_and_the_longest_fits() {
        let event = StoredPdu::new(event_id!("$a:x.fr").to_owned(), "x".repeat(LONGEST));
        let size = BESIDE + KEPT as u64 * (BESIDE + event.size() + LONGEST as u64);
        let tail = Arc::new(Tail {
            room_id: room_id!("!r:x.fr").to_owned(),
            head: RoomHead::new(RoomVersionId::V11),
            rows: Vec::new(),
            events: Vec::new(),
            newest_hole: None,
            rendered: Vec::new(),
            size,
            power: OnceCell::new(),
            bump: OnceCell::new(),
        });
        let tails = Tails::default();
        for room in 1..=50 {
            let key = (RoomNid(room), Position(1));
            tails.0.insert(key, Arc::clone(&tail));
            assert!(tails.0.get(&key).is_some());
        }
        assert!(tails.0.weight() <= BYTES && 50 * size > BYTES);
    }
}
