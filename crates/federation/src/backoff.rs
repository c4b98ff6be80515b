//! Which destinations are not to be tried for a while: known to every request, kept across restarts.
//!
//! There are two waits. One that was not reached is left alone by all; one that was reached and did not take a transaction is
//! sent none, and asked as before.

use std::{collections::HashMap, sync::Arc};

use chappe_store::{
    Direction, Error, Index, Json, Store, Tx,
    outbox::{DestinationState, Destinations, Refusals},
};
use chappe_world::World;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::broadcast;

use crate::Config;

/// A sign of life resets the wait of a failing destination this often at most, in milliseconds.
const REVIVAL_INTERVAL: u64 = 60_000;
/// Failures up to which a destination is away for a moment, as far as is known: of about a minute with the usual waits.
const FEW: u32 = 3;
/// A destination that failed first so many milliseconds ago at most may be there again at any moment: after a few tries it is
/// asked what cannot wait once in so many.
const LATELY: u64 = 10_000;
const TRIED_EACH: u64 = 1_000;

/// Destinations remembered.
const REMEMBERED: usize = 50_000;

/// The wait that a destination asks for is obeyed between these, in milliseconds; the shortest doubles with each refusal.
const ASKED_LEAST: u64 = 1_000;
const ASKED_MOST: u64 = 3_600_000;

/// Rows looked at at once.
const PAGE: usize = 1_000;

/// What has to be sent again as it was: the last outbox row of a transaction, and its id.
pub(crate) type Tried = ((u64, Index), String);

/// What is to be expected of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It was there when it was last tried.
    There,
    /// It was not reached a few times, or is to be tried anew: it showed life, or somebody says so.
    Doubtful,
    /// It was not reached again and again.
    Gone,
}

/// The waiting times: a handle, clones share it.
#[derive(Clone)]
pub(crate) struct Backoff(Arc<Inner>);

struct Inner {
    world: World,
    store: Store,
    min_ms: u64,
    max_ms: u64,
    known: Mutex<HashMap<OwnedServerName, Known>>,
    /// Held while rows are written, so that the last word is what stays.
    writing: tokio::sync::Mutex<()>,
    revived: broadcast::Sender<OwnedServerName>,
}

#[derive(Clone, Default)]
struct Known {
    state: DestinationState,
    /// What of it is on disk; the default for no row.
    kept: DestinationState,
    revived_at: u64,
    /// When it was last reached; 0 for not since this server started.
    reached_at: u64,
    /// It was not reached for a while, and its queue was not looked at since.
    was_away: bool,
    /// How often it was tried since it was reached, and when last: the first time, and each time it was asked all the same. That
    /// counts when it begins, since several may come together, and some have nobody waiting for their end.
    tries: u32,
    tried_at: u64,
}

impl Known {
    fn may_be_back(&self, now: u64) -> bool {
        let is_late = self.state.failures > FEW || now.abs_diff(self.state.failing_since) >= LATELY;
        !is_late && (self.tries <= FEW || now.abs_diff(self.tried_at) >= TRIED_EACH)
    }
}

impl Backoff {
    pub(crate) fn new(world: World, store: Store, config: &Config) -> Self {
        let inner = Inner {
            world,
            store,
            min_ms: config.backoff_min_ms.max(1),
            max_ms: config.backoff_max.saturating_mul(1000).max(1),
            known: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            revived: broadcast::Sender::new(256),
        };
        Self(Arc::new(inner))
    }

    /// The destinations that gave a sign of life while they were being waited for.
    pub(crate) fn revivals(&self) -> broadcast::Receiver<OwnedServerName> {
        self.0.revived.subscribe()
    }

    /// When `destination` was last reached since this server started.
    pub(crate) fn reached_at(&self, destination: &ServerName) -> Option<u64> {
        self.0.known.lock().get(destination).map(|known| known.reached_at).filter(|at| *at > 0)
    }

    /// How reaching `destination` went last, if it was tried since this server started.
    pub(crate) fn at_hand(&self, destination: &ServerName) -> Option<DestinationState> {
        let mut state = self.0.known.lock().get(destination)?.state.clone();
        self.set_right(&mut state);
        Some(state)
    }

    /// A wait that ends later than any wait that begins now was written by a clock that ran ahead: it is over.
    fn set_right(&self, state: &mut DestinationState) {
        let now = self.0.world.now();
        if state.retry_at.saturating_sub(now) > self.0.max_ms {
            state.retry_at = 0;
        }
        let longest = self.0.max_ms.max(self.0.min_ms).max(ASKED_MOST);
        if state.refused.retry_at.saturating_sub(now) > longest {
            state.refused.retry_at = 0;
        }
    }

    /// How reaching `destination` went last.
    pub(crate) async fn state(&self, destination: &ServerName) -> Result<DestinationState, Error> {
        if let Some(state) = self.at_hand(destination) {
            return Ok(state);
        }
        let read = self.0.store.read().get::<Destinations>(&destination.to_owned()).await?;
        let state = read.map(|Json(state)| state).unwrap_or_default();
        let mut state = {
            let mut known = self.0.known.lock();
            make_room(&mut known);
            let entry = known.entry(destination.to_owned()).or_insert_with(|| Known {
                was_away: state.failures > 0,
                kept: state.clone(),
                state,
                ..Known::default()
            });
            entry.state.clone()
        };
        self.set_right(&mut state);
        Ok(state)
    }

    /// What is to be expected of `destination`.
    pub(crate) async fn standing(&self, destination: &ServerName) -> Result<Standing, Error> {
        let state = self.state(destination).await?;
        let revived_at = self.0.known.lock().get(destination).map_or(0, |known| known.revived_at);
        Ok(match state.failures {
            0 => Standing::There,
            1..=FEW => Standing::Doubtful,
            // It was not tried since.
            _ if revived_at >= state.retry_at => Standing::Doubtful,
            _ => Standing::Gone,
        })
    }

    /// The time before which `destination` is not to be tried; 0 when it may be tried now.
    pub(crate) async fn wait_until(&self, destination: &ServerName) -> Result<u64, Error> {
        let retry_at = self.state(destination).await?.retry_at;
        Ok(if retry_at > self.0.world.now() { retry_at } else { 0 })
    }

    /// The time before which `destination` is not to be sent anything that waits for it; 0 when it may be now.
    pub(crate) async fn send_at(&self, destination: &ServerName) -> Result<u64, Error> {
        let send_at = self.state(destination).await?.send_at();
        Ok(if send_at > self.0.world.now() { send_at } else { 0 })
    }

    /// It was reached. A transaction that failed before has still to be sent again as it was.
    pub(crate) async fn succeeded(&self, destination: &ServerName) -> Result<(), Error> {
        let state = self.state(destination).await?;
        if let Some(known) = self.0.known.lock().get_mut(destination) {
            (known.reached_at, known.tries) = (self.0.world.now(), 0);
        }
        if state.failures == 0 {
            return Ok(());
        }
        self.change(destination, |state| {
            (state.failures, state.retry_at, state.failing_since) = (0, 0, 0);
        })
        .await?;
        self.0.revived.send(destination.to_owned()).ok();
        Ok(())
    }

    /// It has taken the transaction that was to be sent.
    pub(crate) async fn delivered(&self, destination: &ServerName) -> Result<(), Error> {
        let nothing = |state: &mut DestinationState| {
            (state.tried, state.transaction, state.refused) = (None, None, Refusals::default());
        };
        self.change(destination, nothing).await.map(drop)
    }

    async fn change(
        &self,
        destination: &ServerName,
        change: impl FnOnce(&mut DestinationState),
    ) -> Result<DestinationState, Error> {
        let state = self.change_here(destination, change).await?;
        self.keep(&[destination.to_owned()]).await?;
        Ok(state)
    }

    /// The same in memory alone.
    async fn change_here(
        &self,
        destination: &ServerName,
        change: impl FnOnce(&mut DestinationState),
    ) -> Result<DestinationState, Error> {
        self.state(destination).await?;
        let mut known = self.0.known.lock();
        let entry = known.entry(destination.to_owned()).or_default();
        self.set_right(&mut entry.state);
        change(&mut entry.state);
        Ok(entry.state.clone())
    }

    /// Writes down what is known of destinations that something waits for. Others may be names that somebody made up, and are
    /// remembered as long as there is room.
    async fn keep(&self, destinations: &[OwnedServerName]) -> Result<(), Error> {
        if destinations.iter().all(|destination| self.unkept(destination).is_none()) {
            return Ok(());
        }
        let _turn = self.0.writing.lock().await;
        let (mut tx, mut written) = (Tx::new(), Vec::new());
        for destination in destinations {
            let Some(Known { state, kept, .. }) = self.unkept(destination) else { continue };
            let waited_for = !self.0.store.read().outbox(destination, 1).await?.is_empty();
            let wanted = if waited_for { state } else { DestinationState::default() };
            if wanted == kept {
                continue;
            }
            if wanted == DestinationState::default() {
                tx.delete::<Destinations>(destination);
            } else {
                tx.put::<Destinations>(destination, &Json(wanted.clone()));
            }
            written.push((destination, wanted));
        }
        if written.is_empty() {
            return Ok(());
        }
        self.0.store.commit(tx).await?;
        let mut known = self.0.known.lock();
        for (destination, wanted) in written {
            if let Some(known) = known.get_mut(destination) {
                known.kept = wanted;
            }
        }
        Ok(())
    }

    fn unkept(&self, destination: &ServerName) -> Option<Known> {
        self.0.known.lock().get(destination).filter(|known| known.state != known.kept).cloned()
    }

    /// Removes the rows of destinations that nothing waits for any more.
    pub(crate) async fn forget_idle(&self) -> Result<(), Error> {
        let mut from: Option<OwnedServerName> = None;
        loop {
            let _turn = self.0.writing.lock().await;
            let reader = self.0.store.read();
            let rows = match &from {
                None => reader.scan::<Destinations>(&(), Direction::Forward, PAGE).await?,
                Some(from) => reader.scan_from::<Destinations>(&(), from, PAGE).await?,
            };
            let (mut tx, mut idle) = (Tx::new(), Vec::new());
            let last = rows.last().map(|(server, _)| server.clone());
            for (server, _) in rows {
                if reader.outbox(&server, 1).await?.is_empty() {
                    tx.delete::<Destinations>(&server);
                    idle.push(server);
                }
            }
            drop(reader);
            if !idle.is_empty() {
                self.0.store.commit(tx).await?;
            }
            let mut known = self.0.known.lock();
            for server in idle {
                if let Some(known) = known.get_mut(&server) {
                    known.kept = DestinationState::default();
                }
            }
            if last.is_none() || last == from {
                return Ok(());
            }
            from = last;
        }
    }

    /// Whether it was away since this was asked last.
    pub(crate) fn was_away(&self, destination: &ServerName) -> bool {
        let mut known = self.0.known.lock();
        known.get_mut(destination).is_some_and(|known| std::mem::take(&mut known.was_away))
    }

    /// It was not reached; `tried` is the transaction that has to be tried again.
    pub(crate) async fn failed(
        &self,
        destination: &ServerName,
        tried: Option<Tried>,
    ) -> Result<DestinationState, Error> {
        let now = self.0.world.now();
        let state = self.change(destination, |state| {
            note(state, tried);
            // Several requests that fail together are one failure.
            if state.retry_at <= now {
                if state.failures == 0 {
                    state.failing_since = now;
                }
                state.retry_at = now + self.wait_after(state.failures);
                state.failures = state.failures.saturating_add(1);
            }
        });
        let state = state.await?;
        if let Some(known) = self.0.known.lock().get_mut(destination) {
            known.was_away = true;
            (known.tries, known.tried_at) = (known.tries.max(1), now);
        }
        Ok(state)
    }

    /// Whether `destination`, which is being waited for, is asked all the same what cannot wait: it failed a moment ago, and was
    /// not tried again and again since.
    pub(crate) fn may_be_back(&self, destination: &ServerName) -> bool {
        let now = self.0.world.now();
        self.0.known.lock().get(destination).is_some_and(|known| known.may_be_back(now))
    }

    /// The same, and it is tried now.
    pub(crate) fn tries_again(&self, destination: &ServerName) -> bool {
        let now = self.0.world.now();
        let mut known = self.0.known.lock();
        let Some(known) = known.get_mut(destination).filter(|known| known.may_be_back(now)) else {
            return false;
        };
        (known.tries, known.tried_at) = (known.tries.saturating_add(1), now);
        true
    }

    /// It was reached and did not take the transaction `tried`; in `again_in` milliseconds it may be sent again, if it said so.
    pub(crate) async fn refused(
        &self,
        destination: &ServerName,
        tried: Option<Tried>,
        again_in: Option<u64>,
    ) -> Result<DestinationState, Error> {
        let now = self.0.world.now();
        let change = |state: &mut DestinationState| {
            note(state, tried);
            let refused = &mut state.refused;
            if refused.count == 0 {
                refused.since = now;
            }
            let least = (ASKED_LEAST << refused.count.min(20)).min(self.0.min_ms);
            let wait = again_in.map(|wait| wait.min(ASKED_MOST).max(least));
            refused.retry_at = now + wait.unwrap_or_else(|| self.wait_after(refused.count));
            refused.count = refused.count.saturating_add(1);
        };
        self.change(destination, change).await
    }

    /// The wait after so many earlier failures: doubling, with a fifth of randomness, between the limits.
    fn wait_after(&self, failures: u32) -> u64 {
        let doubled = self.0.min_ms.saturating_mul(1u64.checked_shl(failures.min(40)).unwrap_or(u64::MAX));
        let wait = doubled.min(self.0.max_ms);
        wait - self.0.world.below(wait / 5 + 1)
    }

    /// A signed request came from `origin`: it is alive, so it may be tried again soon.
    pub(crate) fn heard_from(&self, origin: &ServerName) {
        let now = self.0.world.now();
        {
            let mut known = self.0.known.lock();
            let Some(entry) = known.get_mut(origin) else { return };
            if entry.state.failures == 0 || entry.revived_at.abs_diff(now) < REVIVAL_INTERVAL {
                return;
            }
            entry.revived_at = now;
            entry.state.retry_at = entry.state.retry_at.min(now);
        }
        self.0.revived.send(origin.to_owned()).ok();
    }

    /// It is not waited for any longer, and waits begin with short ones again. It stays one that failed, so that nobody
    /// who was there last time waits for it.
    pub(crate) async fn end_wait(&self, destination: &ServerName) -> Result<(), Error> {
        self.end_waits(&[destination.to_owned()]).await
    }

    /// The same for many, in one commit.
    pub(crate) async fn end_waits(&self, destinations: &[OwnedServerName]) -> Result<(), Error> {
        for destination in destinations {
            let now = |state: &mut DestinationState| {
                (state.retry_at, state.refused.retry_at) = (0, 0);
                (state.failures, state.refused.count) = (state.failures.min(1), state.refused.count.min(1));
            };
            self.change_here(destination, now).await?;
        }
        self.keep(destinations).await
    }
}

fn note(state: &mut DestinationState, tried: Option<Tried>) {
    if let Some((last, id)) = tried {
        (state.tried, state.transaction) = (Some(last), Some(id));
    }
}

/// Users may name as many servers as they like: those that were never reached and that nothing waits for go first.
fn make_room(known: &mut HashMap<OwnedServerName, Known>) {
    if known.len() < REMEMBERED {
        return;
    }
    known.retain(|_, known| known.reached_at > 0 || known.kept != DestinationState::default());
    if known.len() >= REMEMBERED {
        known.clear();
    }
}

#[cfg(test)]
mod tests;
