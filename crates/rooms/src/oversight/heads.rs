//! The heads of a room: events that nothing follows yet. Many of them make every new event dear.

use std::{collections::BTreeSet, time::Duration};

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

/// Rooms with many heads.
#[derive(Default)]
pub(crate) struct Crowded {
    rooms: Mutex<BTreeSet<OwnedRoomId>>,
    news: tokio::sync::Notify,
}

impl Crowded {
    pub(crate) fn add(&self, room: &RoomId) {
        let mut rooms = self.rooms.lock();
        if rooms.len() < ROOMS && rooms.insert(room.to_owned()) {
            self.news.notify_one();
        }
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
        let before = self.heads(room).await?.len();
        let mut now = before;
        for _ in 0..MOST {
            if now <= 1 {
                break;
            }
            self.say_nothing(room).await?;
            let after = self.heads(room).await?.len();
            if after >= now {
                break;
            }
            now = after;
        }
        Ok(before.saturating_sub(now))
    }

    /// Brings the heads of rooms together that have many, as they come to have them, until the server stops. One task of a
    /// server runs this.
    pub async fn run_heads(&self) {
        let (world, crowded) = (&self.0.world, &self.0.crowded);
        loop {
            tokio::select! {
                () = world.stopping() => return,
                () = crowded.news.notified() => {}
            }
            while let Some(room) = { crowded.rooms.lock().pop_first() } {
                match world.timeout(PATIENCE, self.merge_heads(&room)).await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => tracing::debug!(%room, %error, "the heads stay as they are"),
                    None => tracing::info!(%room, "the heads could not be brought together in time"),
                }
            }
        }
    }

    async fn say_nothing(&self, room: &RoomId) -> Result<()> {
        let kind = TimelineEventType::from(DUMMY);
        let nobody = || Error::Forbidden("no user of this server may send events in this room".to_owned());
        let speaker = self.mightiest_local(room).await?.ok_or_else(nobody)?.user;
        self.send(&Actor::user(&speaker), room, Draft::message(kind, Map::new()), None).await.map(drop)
    }
}
