//! The heads of a room: events that nothing follows yet. Many of them make every new event dear.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedRoomId, RoomId, events::TimelineEventType};
use serde_json::Map;
use tokio::time::Instant;

use crate::{Actor, Draft, Error, Result, Rooms, read::view::Event};

/// An event that follows all heads and says nothing, as Synapse makes them.
const DUMMY: &str = "org.matrix.dummy_event";
/// Events sent to bring the heads together, at most.
const MOST: usize = 20;

/// From so many heads on a user of this server brings them together unasked.
pub(crate) const MANY: usize = 10;
/// A room with more heads than these is not left alone: each of them makes whatever follows dearer.
const CROWD: usize = 100;
/// Rooms that are remembered for that.
const ROOMS: usize = 10_000;
/// Longest time that one room gets.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it is waited at least, and up to how much longer by chance: all servers of the room see the same, and the first
/// one that does something does it for all.
const SOONEST: Duration = Duration::from_secs(5);
const SPREAD_MS: u64 = 40_000;
/// How long a room is left alone afterwards, whatever came of it, unless it is crowded.
const REST: Duration = Duration::from_mins(10);
/// The longest sleep of the worker.
const NAP: Duration = Duration::from_mins(10);

#[derive(Clone, Copy)]
enum Turn {
    /// When, and how many heads may stay.
    Due(Instant, usize),
    Over(Instant),
}

/// Rooms with too many heads, and those that had them a while ago.
#[derive(Default)]
pub(crate) struct Crowded {
    rooms: Mutex<HashMap<OwnedRoomId, Turn>>,
    news: tokio::sync::Notify,
}

impl Crowded {
    /// Of the `heads` so many may stay as are `enough`; `chance` is any number.
    pub(crate) fn add(&self, room: &RoomId, (heads, enough): (usize, usize), (now, chance): (Instant, u64)) {
        let mut rooms = self.rooms.lock();
        if rooms.len() >= ROOMS {
            rooms.retain(|_, turn| match turn {
                Turn::Due(..) => true,
                Turn::Over(until) => *until > now,
            });
        }
        let due = Turn::Due(now + SOONEST + Duration::from_millis(chance % SPREAD_MS), enough);
        let is_full = rooms.len() >= ROOMS;
        match rooms.entry(room.to_owned()) {
            Entry::Occupied(mut entry) => {
                match entry.get_mut() {
                    Turn::Due(_, fewest) => {
                        *fewest = enough.min(*fewest);
                        return;
                    }
                    Turn::Over(until) if *until > now && heads <= CROWD => return,
                    Turn::Over(_) => {}
                }
                entry.insert(due);
            }
            Entry::Vacant(_) if is_full => return,
            Entry::Vacant(entry) => {
                entry.insert(due);
            }
        }
        self.news.notify_one();
    }

    /// Takes a room whose turn it is, with how many heads may stay; or says when the next one's is.
    fn take(&self, now: Instant) -> std::result::Result<(OwnedRoomId, usize), Option<Instant>> {
        let mut rooms = self.rooms.lock();
        let due = rooms.iter().filter_map(|(room, turn)| match turn {
            Turn::Due(at, enough) => Some((*at, room, *enough)),
            Turn::Over(_) => None,
        });
        let (at, room, enough) = due.min().ok_or(None)?;
        if at > now {
            return Err(Some(at));
        }
        let room = room.clone();
        rooms.insert(room.clone(), Turn::Over(now + REST));
        Ok((room, enough))
    }
}

/// An event that nothing follows yet.
#[derive(Clone, Debug)]
pub struct Head {
    /// Which.
    pub event_id: OwnedEventId,
    /// Its depth, as its sender's server says.
    pub depth: u64,
    /// When it was sent, as its sender's server says, in milliseconds since 1970.
    pub sent: u64,
}

impl Rooms {
    /// The heads of a room.
    pub async fn heads(&self, room: &RoomId) -> Result<Vec<Head>> {
        let view = self.view(room).await?;
        let head = |event: Event| Head {
            event_id: event.pdu.event_id().to_owned(),
            depth: event.pdu.depth(),
            sent: event.pdu.origin_server_ts().0.into(),
        };
        Ok(view.load(&view.head.extremities).await?.into_iter().map(head).collect())
    }

    /// Brings the heads of a room together: a user of this server says something empty that follows them. None is just
    /// dropped, for whatever follows only that one would come loose. Gives how many heads there are less.
    pub async fn merge_heads(&self, room: &RoomId) -> Result<usize> {
        self.bring_together(room, 1).await
    }

    /// The same until there are no more than `enough`.
    async fn bring_together(&self, room: &RoomId, enough: usize) -> Result<usize> {
        let before = self.count_heads(room).await?;
        let mut now = before;
        for _ in 0..MOST {
            if now <= enough {
                break;
            }
            self.say_nothing(room).await?;
            let after = self.count_heads(room).await?;
            if after >= now {
                break;
            }
            now = after;
        }
        Ok(before.saturating_sub(now))
    }

    async fn count_heads(&self, room: &RoomId) -> Result<usize> {
        Ok(self.view(room).await?.head.extremities.len())
    }

    /// Brings the heads of rooms together that have too many, until the server stops. One task of a server runs this.
    pub async fn run_heads(&self) {
        let (world, crowded) = (&self.0.world, &self.0.crowded);
        while !world.is_stopping() {
            match crowded.take(world.instant()) {
                Ok((room, enough)) => {
                    match world.timeout(PATIENCE, Box::pin(self.relieve(&room, enough))).await {
                        Some(Ok(_)) => {
                            let left = self.count_heads(&room).await.unwrap_or_default();
                            crowded.add(&room, (left, enough), (world.instant(), world.random()));
                        }
                        Some(Err(error)) => tracing::debug!(%room, %error, "the heads stay as they are"),
                        None => tracing::info!(%room, "the heads could not be brought together in time"),
                    }
                }
                Err(next) => {
                    let next = next.unwrap_or_else(|| world.instant() + NAP);
                    tokio::select! {
                        () = world.stopping() => return,
                        () = world.sleep_until(next) => {}
                        () = crowded.news.notified() => {}
                    }
                }
            }
        }
    }

    async fn relieve(&self, room: &RoomId, enough: usize) -> Result<usize> {
        self.0.expect_policy_server(room).await?;
        self.bring_together(room, enough).await
    }

    async fn say_nothing(&self, room: &RoomId) -> Result<()> {
        let kind = TimelineEventType::from(DUMMY);
        let nobody = || Error::Forbidden("no user of this server may send events in this room".to_owned());
        let speaker = self.mightiest_local(room).await?.ok_or_else(nobody)?.user;
        self.send(&Actor::user(&speaker), room, Draft::message(kind, Map::new()), None).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;
    use tokio::time::Instant;

    use super::{CROWD, Crowded, MANY, REST, SOONEST};

    #[test]
    fn a_crowded_room_is_not_left_alone() {
        let (crowded, room, begun) = (Crowded::default(), room_id!("!r:a.example"), Instant::now());
        crowded.add(room, (MANY + 1, MANY), (begun, 0));
        assert!(crowded.take(begun + SOONEST).is_ok());
        crowded.add(room, (MANY + 1, MANY), (begun + SOONEST, 0));
        assert!(crowded.take(begun + 2 * SOONEST).is_err());
        crowded.add(room, (CROWD + 1, MANY), (begun + SOONEST, 0));
        assert!(crowded.take(begun + 2 * SOONEST).is_ok());
    }

    #[test]
    fn a_room_that_is_due_comes_down_to_the_fewest_asked_for_and_then_rests() {
        let (crowded, room, begun) = (Crowded::default(), room_id!("!r:a.example"), Instant::now());
        crowded.add(room, (MANY + 1, MANY), (begun, 0));
        crowded.add(room, (MANY + 1, 1), (begun + SOONEST, 0));
        crowded.add(room, (MANY + 1, MANY), (begun + SOONEST, 0));
        assert_eq!(crowded.take(begun + SOONEST), Ok((room.to_owned(), 1)));
        crowded.add(room, (2, 1), (begun + SOONEST, 0));
        assert!(crowded.take(begun + REST).is_err());
        crowded.add(room, (2, 1), (begun + SOONEST + REST, 0));
        assert!(crowded.take(begun + 2 * SOONEST + REST).is_ok());
    }
}
