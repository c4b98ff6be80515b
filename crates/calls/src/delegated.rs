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
use futures_util::{StreamExt, stream};
use ruma::{OwnedUserId, UserId};
use tokio::time::Instant;

use crate::{Calls, Error, sfu};

/// How often the SFU is asked who is in.
const LOOK: Duration = Duration::from_secs(3);
/// Rooms that it is asked about at the same time.
const SIDE_BY_SIDE: usize = 16;
/// The shortest delay of a leave that is looked after: one look may fail. Clients have theirs wait for so long.
const SHORTEST: Duration = Duration::from_secs(8);
/// Who has not come in for so long is not waited for any more.
const PATIENCE: Duration = Duration::from_mins(5);
/// Leaves of one user that are looked after.
const MOST: usize = 8;

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
    user: OwnedUserId,
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
    /// One leave for each place in a call, and one place for each leave: the last one counts. Of a user who has too many
    /// the one goes that was put off the longest time ago.
    pub(crate) fn watch(&mut self, place: (String, String), user: &UserId, leave: Leave, now: Instant) {
        self.0.retain(|_, other| other.leave.delay_id != leave.delay_id);
        self.0.insert(place, Watched { user: user.to_owned(), leave, seen: false, since: now });
        let of_user: Vec<_> = self.0.iter().filter(|(_, watched)| *watched.user == *user).collect();
        if of_user.len() > MOST
            && let Some((oldest, _)) = of_user.into_iter().min_by_key(|(_, watched)| watched.since)
        {
            let oldest = oldest.clone();
            self.0.remove(&oldest);
        }
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
    fn note(&mut self, place: &(String, String), delay_id: &str, fate: &Fate) {
        let Some(watched) = self.0.get_mut(place).filter(|known| known.leave.delay_id == delay_id) else {
            return;
        };
        match *fate {
            Fate::Over => drop(self.0.remove(place)),
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
        let looking = rooms.into_iter().map(|room| async move { self.look_into(&room).await });
        let looked: Vec<_> = stream::iter(looking).buffer_unordered(SIDE_BY_SIDE).collect().await;
        if let Some(error) = looked.into_iter().find_map(Result::err) {
            tracing::warn!(?error, "the SFU does not say who is in a call");
        }
    }

    async fn look_into(&self, room: &str) -> Result<(), Error> {
        let now = self.0.world.instant();
        let token = self.0.signer.for_looking(room, self.0.world.now());
        let there = sfu::participants(&self.0.world, &self.0.config, &token, room).await?;
        self.look_at(room, &there, now).await;
        Ok(())
    }

    async fn look_at(&self, room: &str, there: &BTreeSet<String>, now: Instant) {
        let all = self.0.delegated.lock().in_room(room);
        for (identity, watched) in all {
            match self.settle(&watched, there.contains(&identity), now).await {
                Ok(Some(fate)) => {
                    let place = (room.to_owned(), identity);
                    self.0.delegated.lock().note(&place, &watched.leave.delay_id, &fate);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "a delayed leave is tried again"),
            }
        }
    }

    async fn settle(&self, watched: &Watched, is_there: bool, now: Instant) -> Result<Option<Fate>, String> {
        let Watched { leave, seen, since, .. } = watched;
        let waited = now.saturating_duration_since(*since);
        if is_there {
            if *seen && waited + LOOK < leave.delay / 2 {
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
        Ok((waited > leave.delay.min(PATIENCE)).then_some(Fate::Over))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ruma::{UserId, user_id};
    use tokio::time::Instant;

    use super::{Delegated, Leave, MOST, SHORTEST};

    #[test]
    fn one_user_has_so_many_leaves_looked_after() {
        let start = Instant::now();
        let mut delegated = Delegated::default();
        let mut watch = |user: &UserId, number: u64| {
            let leave = Leave::new(&number.to_string(), SHORTEST).unwrap();
            let place = (format!("room{number}"), "somebody".to_owned());
            delegated.watch(place, user, leave, start + Duration::from_secs(number));
        };
        watch(user_id!("@bob:a.test"), 0);
        for number in 1..=u64::try_from(MOST).unwrap() + 1 {
            watch(user_id!("@alice:a.test"), number);
        }
        let rooms = delegated.rooms();
        assert_eq!(rooms.len(), 1 + MOST);
        assert!(rooms.contains("room0") && !rooms.contains("room1"), "her oldest one has gone");
    }
}
