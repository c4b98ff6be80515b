//! The heads of a room: events that nothing follows yet. Many of them make every new event dear.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedRoomId, RoomId, events::TimelineEventType};
use serde_json::Map;

use crate::{Actor, Draft, Error, Result, Rooms, read::view::Event};

/// An event that follows all heads and says nothing, as Synapse makes them.
const DUMMY: &str = "org.matrix.dummy_event";
/// Events sent to bring the heads together, at most.
const MOST: usize = 20;

/// From so many heads on a user of this server brings them together unasked.
pub(crate) const MANY: usize = 10;
/// Rooms that are remembered for that.
const ROOMS: usize = 10_000;
/// Longest time that one room gets.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it is waited at least, and up to how much longer by chance: all servers of the room see the same, and the first
/// one that does something does it for all.
const SOONEST_MS: u64 = 5_000;
const SPREAD_MS: u64 = 40_000;
/// How long a room is left alone afterwards, whatever came of it.
const REST_MS: u64 = 10 * 60 * 1_000;
/// The longest sleep of the worker.
const NAP: Duration = Duration::from_mins(10);

#[derive(Clone, Copy)]
enum Turn {
    Due(u64),
    Over(u64),
}

/// Rooms with many heads, and those that had them a while ago.
#[derive(Default)]
pub(crate) struct Crowded {
    rooms: Mutex<HashMap<OwnedRoomId, Turn>>,
    news: tokio::sync::Notify,
}

impl Crowded {
    /// `chance` is any number.
    pub(crate) fn add(&self, room: &RoomId, now: u64, chance: u64) {
        let mut rooms = self.rooms.lock();
        if rooms.len() >= ROOMS {
            rooms.retain(|_, turn| {
                matches!(turn, Turn::Due(_)) || matches!(turn, Turn::Over(until) if *until > now)
            });
        }
        let due = Turn::Due(now + SOONEST_MS + chance % SPREAD_MS);
        let is_full = rooms.len() >= ROOMS;
        match rooms.entry(room.to_owned()) {
            Entry::Occupied(mut entry) if matches!(entry.get(), Turn::Over(until) if *until <= now) => {
                entry.insert(due);
            }
            Entry::Vacant(entry) if !is_full => {
                entry.insert(due);
            }
            _ => return,
        }
        self.news.notify_one();
    }

    /// Takes a room whose turn it is; or says when the next one's is.
    fn take(&self, now: u64) -> std::result::Result<OwnedRoomId, Option<u64>> {
        let mut rooms = self.rooms.lock();
        let due = rooms.iter().filter_map(|(room, turn)| match turn {
            Turn::Due(at) => Some((*at, room)),
            Turn::Over(_) => None,
        });
        let (at, room) = due.min().ok_or(None)?;
        if at > now {
            return Err(Some(at));
        }
        let room = room.clone();
        rooms.insert(room.clone(), Turn::Over(now + REST_MS));
        Ok(room)
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

    /// Brings the heads of rooms together that have many, until the server stops. One task of a server runs this.
    pub async fn run_heads(&self) {
        let (world, crowded) = (&self.0.world, &self.0.crowded);
        while !world.is_stopping() {
            match crowded.take(world.now()) {
                Ok(room) => match world.timeout(PATIENCE, Box::pin(self.relieve(&room))).await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => tracing::debug!(%room, %error, "the heads stay as they are"),
                    None => tracing::info!(%room, "the heads could not be brought together in time"),
                },
                Err(next) => {
                    let pause = next.map_or(NAP, |at| Duration::from_millis(at.saturating_sub(world.now())));
                    tokio::select! {
                        () = world.stopping() => return,
                        () = world.sleep(pause) => {}
                        () = crowded.news.notified() => {}
                    }
                }
            }
        }
    }

    async fn relieve(&self, room: &RoomId) -> Result<usize> {
        self.0.expect_policy_server(room).await?;
        self.bring_together(room, MANY).await
    }

    async fn say_nothing(&self, room: &RoomId) -> Result<()> {
        let kind = TimelineEventType::from(DUMMY);
        let nobody = || Error::Forbidden("no user of this server may send events in this room".to_owned());
        let speaker = self.mightiest_local(room).await?.ok_or_else(nobody)?.user;
        self.send(&Actor::user(&speaker), room, Draft::message(kind, Map::new()), None).await.map(drop)
    }
}
