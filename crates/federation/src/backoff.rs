//! Which destinations are not to be tried for a while: known to every request, kept across restarts.

use std::{collections::HashMap, sync::Arc};

use chappe_store::{
    Error, Index, Json, Store, Tx,
    outbox::{DestinationState, Destinations},
};
use chappe_world::World;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::broadcast;

use crate::Config;

/// A sign of life resets the wait of a failing destination this often at most, in milliseconds.
const REVIVAL_INTERVAL: u64 = 60_000;

/// Destinations remembered.
const REMEMBERED: usize = 50_000;

/// The waiting times: a handle, clones share it.
#[derive(Clone)]
pub(crate) struct Backoff(Arc<Inner>);

struct Inner {
    world: World,
    store: Store,
    min_ms: u64,
    max_ms: u64,
    known: Mutex<HashMap<OwnedServerName, Known>>,
    revived: broadcast::Sender<OwnedServerName>,
}

#[derive(Clone, Default)]
struct Known {
    state: DestinationState,
    revived_at: u64,
    /// When it was last reached; 0 for not since this server started.
    reached_at: u64,
    /// It was not reached for a while, and its queue was not looked at since.
    was_away: bool,
}

impl Backoff {
    pub(crate) fn new(world: World, store: Store, config: &Config) -> Self {
        let inner = Inner {
            world,
            store,
            min_ms: config.backoff_min_ms.max(1),
            max_ms: config.backoff_max.saturating_mul(1000).max(1),
            known: Mutex::default(),
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

    /// How reaching `destination` went last.
    pub(crate) async fn state(&self, destination: &ServerName) -> Result<DestinationState, Error> {
        if let Some(known) = self.0.known.lock().get(destination) {
            return Ok(known.state.clone());
        }
        let read = self.0.store.read().get::<Destinations>(&destination.to_owned()).await?;
        let state = read.map(|Json(state)| state).unwrap_or_default();
        let mut known = self.0.known.lock();
        if known.len() >= REMEMBERED {
            // Users may name as many servers as they like; what counts of them is on disk.
            known.clear();
        }
        let entry = known.entry(destination.to_owned()).or_insert_with(|| Known {
            was_away: state.failures > 0,
            state,
            ..Known::default()
        });
        Ok(entry.state.clone())
    }

    /// The time before which `destination` is not to be tried; 0 when it may be tried now.
    pub(crate) async fn wait_until(&self, destination: &ServerName) -> Result<u64, Error> {
        let retry_at = self.state(destination).await?.retry_at;
        Ok(if retry_at > self.0.world.now() { retry_at } else { 0 })
    }

    /// It was reached. A transaction that failed before has still to be sent again as it was.
    pub(crate) async fn succeeded(&self, destination: &ServerName) -> Result<(), Error> {
        let state = self.state(destination).await?;
        if let Some(known) = self.0.known.lock().get_mut(destination) {
            known.reached_at = self.0.world.now();
        }
        if state.failures == 0 {
            return Ok(());
        }
        self.replace(destination, DestinationState { tried: state.tried, ..DestinationState::default() })
            .await?;
        self.0.revived.send(destination.to_owned()).ok();
        Ok(())
    }

    /// It has taken the transaction that failed before.
    pub(crate) async fn delivered(&self, destination: &ServerName) -> Result<(), Error> {
        let state = self.state(destination).await?;
        if state.tried.is_none() {
            return Ok(());
        }
        self.replace(destination, DestinationState { tried: None, ..state }).await
    }

    async fn replace(&self, destination: &ServerName, state: DestinationState) -> Result<(), Error> {
        let mut tx = Tx::new();
        if state == DestinationState::default() {
            tx.delete::<Destinations>(&destination.to_owned());
        } else {
            tx.put::<Destinations>(&destination.to_owned(), &Json(state.clone()));
        }
        self.0.store.commit(tx).await?;
        self.0.known.lock().entry(destination.to_owned()).or_default().state = state;
        Ok(())
    }

    /// Whether it was away since this was asked last.
    pub(crate) fn was_away(&self, destination: &ServerName) -> bool {
        let mut known = self.0.known.lock();
        known.get_mut(destination).is_some_and(|known| std::mem::take(&mut known.was_away))
    }

    /// It was not reached; `tried` is the last outbox row of the transaction that has to be tried again.
    pub(crate) async fn failed(
        &self,
        destination: &ServerName,
        tried: Option<(u64, Index)>,
    ) -> Result<DestinationState, Error> {
        let mut state = self.state(destination).await?;
        let now = self.0.world.now();
        state.tried = tried.or(state.tried);
        // Several requests that fail together are one failure.
        if state.retry_at <= now {
            if state.failures == 0 {
                state.failing_since = now;
            }
            state.retry_at = now + self.wait_after(state.failures);
            state.failures += 1;
        }
        if state != self.state(destination).await? {
            self.replace(destination, state.clone()).await?;
        }
        if let Some(known) = self.0.known.lock().get_mut(destination) {
            known.was_away = true;
        }
        Ok(state)
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
            if entry.state.retry_at <= now || entry.revived_at + REVIVAL_INTERVAL > now {
                return;
            }
            entry.revived_at = now;
            entry.state.retry_at = now;
        }
        self.0.revived.send(origin.to_owned()).ok();
    }

    /// It is not waited for any longer.
    pub(crate) async fn end_wait(&self, destination: &ServerName) -> Result<(), Error> {
        let state = self.state(destination).await?;
        if state.retry_at == 0 {
            return Ok(());
        }
        self.replace(destination, DestinationState { retry_at: 0, ..state }).await
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;
    use crate::tests::memory;

    fn backoff(store: &Store) -> Backoff {
        let config = Config { backoff_min_ms: 1_000, backoff_max: 60, ..Config::default() };
        Backoff::new(crate::tests::world(1), store.clone(), &config)
    }

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_the_longest_and_survive_a_restart() {
        let store = memory();
        let (backoff, peer) = (backoff(&store), server_name!("peer.example"));
        let mut last = 0;
        for round in 0..10 {
            let state = backoff.failed(peer, None).await.unwrap();
            let wait = state.retry_at - backoff.0.world.now();
            assert!(wait <= 60_000 && wait >= (800 << round.min(5)).min(48_000), "round {round}: {wait}");
            last = state.failures;
            tokio::time::advance(std::time::Duration::from_millis(wait)).await;
        }
        assert_eq!(last, 10);
        let again = self::backoff(&store);
        assert_eq!(again.state(peer).await.unwrap().failures, 10);
        again.succeeded(peer).await.unwrap();
        assert_eq!(again.state(peer).await.unwrap(), DestinationState::default());
        assert_eq!(self::backoff(&store).state(peer).await.unwrap(), DestinationState::default());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_the_same_moment_count_once() {
        let store = memory();
        let (backoff, peer) = (backoff(&store), server_name!("peer.example"));
        backoff.failed(peer, None).await.unwrap();
        let state = backoff.failed(peer, Some((4, Index(2)))).await.unwrap();
        assert_eq!((state.failures, state.tried), (1, Some((4, Index(2)))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_ends_the_wait_once_in_a_while() {
        let store = memory();
        let (backoff, peer) = (backoff(&store), server_name!("peer.example"));
        let mut revived = backoff.revivals();
        backoff.failed(peer, None).await.unwrap();
        assert_ne!(backoff.wait_until(peer).await.unwrap(), 0);
        backoff.heard_from(peer);
        assert_eq!(revived.try_recv().unwrap(), peer);
        assert_eq!(backoff.wait_until(peer).await.unwrap(), 0);
        backoff.failed(peer, None).await.unwrap();
        backoff.heard_from(peer);
        assert!(revived.try_recv().is_err());
    }
}
