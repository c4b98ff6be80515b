//! Delayed leaves that are looked after here for those who are in a call (MSC4195, "Delegated MatrixRTC Membership Lifecycle
//! Tracking").
//!
//! Whoever enters a call has their leaving sent later, in case they fall out of it, and puts that off for as long as they
//! are in. The SFU knows who is in: it is asked, leaves of those who are in are put off, and leaves of those who no longer are
//! sent. Where the SFU does not say, nothing is done: the leave is then sent at its time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{Calls, Error, sfu};

/// How often the SFU is asked who is in.
const LOOK: Duration = Duration::from_secs(5);
/// The shortest delay of a leave that is looked after: half of it passes before it is put off.
const SHORTEST: Duration = Duration::from_secs(20);

/// The delayed events of this server.
#[async_trait]
pub trait Leaves: Send + Sync {
    /// Has a delayed event wait anew. `false` if it waits no longer; an error if that is not known.
    async fn put_off(&self, delay_id: &str) -> Result<bool, String>;
    /// Sends a delayed event now, if it still waits; an error if that is not known.
    async fn send(&self, delay_id: &str) -> Result<(), String>;
}

/// Somebody's delayed leave.
#[derive(Clone, Debug)]
pub struct Leave {
    delay_id: String,
    delay: Duration,
}

impl Leave {
    /// By the id of the delayed event, which is the user's own, and how long it waits. [`Error::TooShort`].
    pub fn new(delay_id: &str, delay: Duration) -> Result<Self, Error> {
        let leave = Self { delay_id: delay_id.to_owned(), delay };
        if delay < SHORTEST { Err(Error::TooShort) } else { Ok(leave) }
    }
}

/// A leave that is looked after.
#[derive(Clone)]
struct Watched {
    leave: Leave,
    /// Whether they were ever seen in the call.
    seen: bool,
    /// When the leave was scheduled or put off last.
    since: Instant,
}

/// Leaves by room of the SFU and identity there.
#[derive(Default)]
pub(crate) struct Delegated(BTreeMap<(String, String), Watched>);

impl Delegated {
    /// One leave for each place in a call, and one place for each leave: the last one counts.
    pub(crate) fn watch(&mut self, place: (String, String), leave: Leave, now: Instant) {
        self.0.retain(|_, other| other.leave.delay_id != leave.delay_id);
        self.0.insert(place, Watched { leave, seen: false, since: now });
    }

    fn rooms(&self) -> BTreeSet<String> {
        self.0.keys().map(|(room, _)| room.clone()).collect()
    }

    fn in_room(&self, room: &str) -> Vec<(String, Watched)> {
        let from = (room.to_owned(), String::new());
        let of_room = self.0.range(from..).take_while(|((at, _), _)| at == room);
        of_room.map(|((_, identity), watched)| (identity.clone(), watched.clone())).collect()
    }

    /// Notes what became of a leave, unless another one has taken its place.
    fn note(&mut self, place: (String, String), delay_id: &str, fate: Fate) {
        let Some(watched) = self.0.get_mut(&place).filter(|known| known.leave.delay_id == delay_id) else {
            return;
        };
        match fate {
            Fate::Over => drop(self.0.remove(&place)),
            Fate::PutOff(since) => (watched.seen, watched.since) = (true, since),
        }
    }
}

/// What became of a leave.
enum Fate {
    Over,
    PutOff(Instant),
}

impl Calls {
    /// Looks after leaves until the server stops. One task of a server runs this.
    pub async fn run(&self) {
        self.0.world.every(LOOK, || self.look()).await;
    }

    async fn look(&self) {
        let rooms = self.0.delegated.lock().rooms();
        for room in rooms {
            let now = self.0.world.instant();
            let token = self.0.signer.for_looking(&room, self.0.world.now());
            match sfu::participants(&self.0.world, &self.0.config, &token, &room).await {
                Ok(there) => self.look_at(&room, &there, now).await,
                Err(error) => {
                    tracing::warn!(?error, "the SFU does not say who is in a call");
                    return;
                }
            }
        }
    }

    async fn look_at(&self, room: &str, there: &BTreeSet<String>, now: Instant) {
        let all = self.0.delegated.lock().in_room(room);
        for (identity, watched) in all {
            match self.settle(&watched, there.contains(&identity), now).await {
                Ok(Some(fate)) => {
                    let place = (room.to_owned(), identity);
                    self.0.delegated.lock().note(place, &watched.leave.delay_id, fate);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "a delayed leave is tried again"),
            }
        }
    }

    async fn settle(&self, watched: &Watched, is_there: bool, now: Instant) -> Result<Option<Fate>, String> {
        let Watched { leave, seen, since } = watched;
        let waited = now.saturating_duration_since(*since);
        if is_there {
            if *seen && waited < leave.delay / 2 {
                return Ok(None);
            }
            let waits = self.0.leaves.put_off(&leave.delay_id).await?;
            return Ok(Some(if waits { Fate::PutOff(now) } else { Fate::Over }));
        }
        if *seen {
            self.0.leaves.send(&leave.delay_id).await?;
            return Ok(Some(Fate::Over));
        }
        // Whoever has never come in has left by itself when the time is up.
        Ok((waited > leave.delay).then_some(Fate::Over))
    }
}
