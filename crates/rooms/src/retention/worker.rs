//! Takes away what has expired, room by room, in the order in which rooms are due.

use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
    time::Duration,
};

use chappe_rules::retention::Policy;
use chappe_store::{
    EventNum, Json, LogEntry, RoomNid, Tx,
    expiry::{ExpiryPolicies, Told},
};
use ruma::RoomId;

use super::{GATHER_MS, UNTOLD};
use crate::{Error, Result, Rooms};

/// Events taken away in a second, at most.
const PER_SECOND: u64 = 2_000;
/// Rooms told at once that the configuration says something new.
const ROOMS: usize = 100;
/// The longest sleep of the worker.
const NAP: Duration = Duration::from_mins(1);
/// The worker's pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// What the worker has done since the server started, and what it has to know of that.
#[derive(Debug, Default)]
pub(crate) struct Done {
    events: AtomicU64,
    behind: AtomicU64,
    /// Since when every event notes which media it names, where that began while the server ran.
    noted: AtomicU64,
}

impl Done {
    /// Says since when every event notes which media it names, in milliseconds since 1970.
    pub(crate) fn noted_since(&self, at: u64) {
        self.noted.store(at, SeqCst);
    }

    /// The later of that and what was known of it.
    fn since(&self, known: u64) -> u64 {
        known.max(self.noted.load(SeqCst))
    }
}

/// How expiring gets on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpiryFigures {
    /// Events taken away since the server started.
    pub events: u64,
    /// How many milliseconds ago the last of them should have been at the latest; 0 when nothing is left to do.
    pub behind_ms: u64,
}

impl Rooms {
    /// What the configuration says of how long what is said is kept, if anything.
    pub fn retention(&self) -> Option<Policy> {
        self.0.config().retention
    }

    /// How expiring gets on.
    pub fn expiry_figures(&self) -> ExpiryFigures {
        let done = &self.0.expired;
        ExpiryFigures { events: done.events.load(Relaxed), behind_ms: done.behind.load(Relaxed) }
    }

    /// Takes away what expires, until the server stops. One task of a server runs this.
    pub async fn run_expiry(&self) {
        let (world, mut news) = (&self.0.world, self.0.config.changes());
        loop {
            let pause = match self.expire_due().await {
                Ok(Some(due)) => Duration::from_millis(due.saturating_sub(world.now())).min(NAP),
                Ok(None) => NAP,
                Err(error) => {
                    tracing::warn!(%error, "what has expired is not taken away");
                    PAUSE
                }
            };
            tokio::select! {
                () = world.stopping() => return,
                () = world.sleep(pause) => {}
                _ = news.changed() => {}
            }
        }
    }

    /// Takes away what is due. Gives when there is more.
    pub(crate) async fn expire_due(&self) -> Result<Option<u64>> {
        let mut telling = true;
        while !self.0.world.is_stopping() {
            if self.0.world.settled_now().is_none() {
                return Ok(None);
            }
            telling = telling && self.tell_some().await?;
            let next = self.0.store.read().next_expiries(1).await?.first().copied();
            let Some((due, nid)) = next.filter(|(due, _)| *due <= self.0.world.now()) else {
                if telling {
                    continue;
                }
                self.0.expired.behind.store(0, Relaxed);
                return Ok(next.map(|(due, _)| due));
            };
            let done = match due {
                UNTOLD => self.look_later(nid).await.map(|()| (0, true)),
                _ => self.expire_some(nid).await,
            };
            match done {
                Ok((gone, _)) => self.0.world.sleep(Duration::from_millis(gone * 1_000 / PER_SECOND)).await,
                // Somebody else was first.
                Err(Error::Retry) => tokio::task::yield_now().await,
                Err(error @ Error::Store(chappe_store::Error::Engine(_))) => return Err(error),
                Err(error) => {
                    tracing::error!(room = nid.0, %error, "what has expired in a room is not taken away");
                    self.look_later(nid).await?;
                }
            }
        }
        Ok(None)
    }

    /// Takes away what has expired in a room, now. Gives how many events that were. [`Error::BadState`] within an hour after the
    /// clock has moved.
    pub async fn expire_now(&self, room: &RoomId) -> Result<u64> {
        let nid = self.number(room).await?.ok_or(Error::NotFound("room"))?;
        if self.0.world.settled_now().is_none() {
            return Err(Error::BadState("the server's clock has moved: try again in an hour".to_owned()));
        }
        let mut all = 0;
        loop {
            match self.expire_some(nid).await {
                Ok((gone, more)) => {
                    all += gone;
                    if !more {
                        return Ok(all);
                    }
                }
                Err(Error::Retry) if !self.0.world.is_stopping() => tokio::task::yield_now().await,
                Err(error) => return Err(error),
            }
        }
    }

    /// One commit of it. Gives how many events are gone, and whether there is more to do at once. Nothing goes while the clock
    /// cannot be relied on.
    async fn expire_some(&self, nid: RoomNid) -> Result<(u64, bool)> {
        let room = self.0.store.read().room_id(nid).await?;
        let _turn = self.0.turn(&room).await;
        let view = self.view_of(nid).await?;
        let Some(now) = self.0.world.settled_now() else { return Ok((0, false)) };
        let told = view.reader.get::<ExpiryPolicies>(&()).await?;
        let since = told.map_or(u64::MAX, |Json(told)| self.0.expired.since(told.since));
        let (old, mut new, mut tx) = (view.head.clone(), view.head.clone(), Tx::new());
        let gone = view.expire_next(&mut tx, &mut new.keeping, (now, since)).await?;
        drop(view);
        let nums: Vec<EventNum> = gone.iter().map(|gone| gone.num).collect();
        if !nums.is_empty() {
            tx.log(LogEntry::Purged { room: nid.0, events: nums.iter().map(|num| num.0).collect() });
        }
        if new != old || !tx.is_empty() {
            tx.replace_head(nid, &old, &new);
            self.0.replace(tx, nid, nums).await?;
        }
        if let Some(last) = gone.last() {
            self.0.expired.events.fetch_add(gone.len() as u64, Relaxed);
            let behind = now.saturating_sub(last.until.saturating_add(GATHER_MS));
            self.0.expired.behind.store(behind, Relaxed);
        }
        Ok((gone.len() as u64, new.keeping.due != 0 && new.keeping.due <= now))
    }

    /// Has a room looked at again in a while.
    async fn look_later(&self, nid: RoomNid) -> Result<()> {
        self.look_at(nid, self.0.world.now().saturating_add(GATHER_MS)).await
    }

    async fn look_at(&self, nid: RoomNid, at: u64) -> Result<()> {
        let room = self.0.store.read().room_id(nid).await?;
        let _turn = self.0.turn(&room).await;
        let old = self.0.store.read().room_head(nid).await?;
        let mut new = old.clone();
        new.keeping.due = at;
        let mut tx = Tx::new();
        tx.replace_head(nid, &old, &new);
        self.0.store.commit(tx).await?;
        Ok(())
    }

    /// After the configuration has changed: has some rooms looked at that were not told yet. Gives whether there are more.
    async fn tell_some(&self) -> Result<bool> {
        let (reader, mut tx) = (self.0.store.read(), Tx::new());
        let known = reader.get::<ExpiryPolicies>(&()).await?.map(|Json(told)| told);
        let Some(policy) = self.retention() else {
            if known.is_some() {
                tx.delete::<ExpiryPolicies>(&());
                self.0.store.commit(tx).await?;
            }
            return Ok(false);
        };
        let since = known.as_ref().map_or(self.0.world.now(), |told| told.since);
        let since = self.0.expired.since(since);
        let known = known.filter(|told| told.policy == policy && told.since == since);
        let mut told = known.unwrap_or(Told { policy, after: 0, done: false, since });
        if told.done {
            return Ok(false);
        }
        let nids = reader.rooms_after(RoomNid(told.after), ROOMS).await?;
        drop(reader);
        for nid in &nids {
            let now = self.0.world.now();
            let head = self.0.store.read().room_head(*nid).await?;
            let looked_at = head.keeping.next.0 >= head.next_event || (1..=now).contains(&head.keeping.due);
            if !looked_at && self.0.lifetime(&head.keeping).is_some() {
                self.look_at(*nid, now).await?;
            }
        }
        told.after = nids.last().map_or(told.after, |last| last.0);
        told.done = nids.len() < ROOMS;
        tx.put::<ExpiryPolicies>(&(), &Json(told.clone()));
        self.0.store.commit(tx).await?;
        Ok(!told.done)
    }
}
