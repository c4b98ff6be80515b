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

/// Destinations remembered.
const REMEMBERED: usize = 50_000;

/// The wait that a destination asks for is obeyed between these, in milliseconds; the shortest doubles with each refusal.
const ASKED_LEAST: u64 = 1_000;
const ASKED_MOST: u64 = 3_600_000;

/// Rows looked at at once.
const PAGE: usize = 1_000;

/// What has to be sent again as it was: the last outbox row of a transaction, and its id.
pub(crate) type Tried = ((u64, Index), String);

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
            known.reached_at = self.0.world.now();
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
        self.state(destination).await?;
        let state = {
            let mut known = self.0.known.lock();
            let entry = known.entry(destination.to_owned()).or_default();
            self.set_right(&mut entry.state);
            change(&mut entry.state);
            entry.state.clone()
        };
        self.keep(destination).await?;
        Ok(state)
    }

    /// Writes down what is known of a destination that something waits for. Others may be names that somebody made up, and are
    /// remembered as long as there is room.
    async fn keep(&self, destination: &ServerName) -> Result<(), Error> {
        if self.unkept(destination).is_none() {
            return Ok(());
        }
        let _turn = self.0.writing.lock().await;
        let Some(Known { state, kept, .. }) = self.unkept(destination) else { return Ok(()) };
        let waited_for = !self.0.store.read().outbox(destination, 1).await?.is_empty();
        let wanted = if waited_for { state } else { DestinationState::default() };
        if wanted == kept {
            return Ok(());
        }
        let mut tx = Tx::new();
        if wanted == DestinationState::default() {
            tx.delete::<Destinations>(&destination.to_owned());
        } else {
            tx.put::<Destinations>(&destination.to_owned(), &Json(wanted.clone()));
        }
        self.0.store.commit(tx).await?;
        if let Some(known) = self.0.known.lock().get_mut(destination) {
            known.kept = wanted;
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
        }
        Ok(state)
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
            if entry.state.retry_at <= now || entry.revived_at.abs_diff(now) < REVIVAL_INTERVAL {
                return;
            }
            entry.revived_at = now;
            entry.state.retry_at = now;
        }
        self.0.revived.send(origin.to_owned()).ok();
    }

    /// It is not waited for any longer.
    pub(crate) async fn end_wait(&self, destination: &ServerName) -> Result<(), Error> {
        let now = |state: &mut DestinationState| (state.retry_at, state.refused.retry_at) = (0, 0);
        self.change(destination, now).await.map(drop)
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
mod tests {
    use std::time::Duration;

    use chappe_store::OutboxItem;
    use ruma::server_name;

    use super::*;
    use crate::tests::memory;

    fn backoff(store: &Store) -> Backoff {
        let config = Config { backoff_min_ms: 1_000, backoff_max: 60, ..Config::default() };
        Backoff::new(crate::tests::world(1), store.clone(), &config)
    }

    /// With something that waits for a server.
    async fn waiting(server: &ServerName) -> Store {
        let store = memory();
        let mut tx = Tx::new();
        tx.enqueue(server, &OutboxItem::Pdu { room: 1, event: 1 });
        store.commit(tx).await.unwrap();
        store
    }

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_the_longest_and_survive_a_restart() {
        let peer = server_name!("peer.example");
        let store = waiting(peer).await;
        let backoff = backoff(&store);
        let mut last = 0;
        for round in 0..10 {
            let state = backoff.failed(peer, None).await.unwrap();
            let wait = state.retry_at - backoff.0.world.now();
            assert!(wait <= 60_000 && wait >= (800 << round.min(5)).min(48_000), "round {round}: {wait}");
            last = state.failures;
            tokio::time::advance(Duration::from_millis(wait)).await;
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
        let state = backoff.failed(peer, Some(((4, Index(2)), "5.x".to_owned()))).await.unwrap();
        assert_eq!((state.failures, state.tried), (1, Some((4, Index(2)))));
        assert_eq!(state.transaction.as_deref(), Some("5.x"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_was_written_while_the_clock_was_ahead_is_over() {
        let peer = server_name!("peer.example");
        let store = waiting(peer).await;
        let ahead = backoff(&store).0.world.now() + 30 * 24 * 3_600_000;
        let refused = Refusals { count: 1, since: ahead, retry_at: ahead };
        let written = DestinationState { failures: 1, retry_at: ahead, refused, ..Default::default() };
        let mut tx = Tx::new();
        tx.put::<Destinations>(&peer.to_owned(), &Json(written));
        store.commit(tx).await.unwrap();
        let backoff = backoff(&store);
        assert_eq!(backoff.wait_until(peer).await.unwrap(), 0);
        assert_eq!(backoff.send_at(peer).await.unwrap(), 0);
        // Where it is away, and where it still takes nothing, one waits from now on.
        let failed = backoff.failed(peer, None).await.unwrap();
        for state in [failed, backoff.refused(peer, None, None).await.unwrap()] {
            let wait = state.send_at() - backoff.0.world.now();
            assert!((1..=60_000).contains(&wait), "{state:?}");
        }
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

    #[tokio::test(start_paused = true)]
    async fn a_refused_transaction_lets_the_queue_alone_wait_for_as_long_as_it_is_asked_to() {
        let peer = server_name!("peer.example");
        let store = waiting(peer).await;
        let backoff = backoff(&store);
        let tried = Some((1, Index(0)));
        let wait = async |again_in| {
            let state =
                backoff.refused(peer, Some(((1, Index(0)), "2.x".to_owned())), again_in).await.unwrap();
            (state.send_at() - backoff.0.world.now(), state.refused.count)
        };
        assert_eq!(wait(Some(5_000)).await, (5_000, 1));
        assert_eq!(wait(Some(0)).await, (1_000, 2), "as if it had not been refused");
        assert_eq!(wait(Some(u64::MAX)).await, (3_600_000, 3));
        assert_eq!(backoff.wait_until(peer).await.unwrap(), 0, "questions wait as well");
        // Neither an answer nor a request of its own says that it takes transactions.
        backoff.succeeded(peer).await.unwrap();
        backoff.heard_from(peer);
        let state = self::backoff(&store).state(peer).await.unwrap();
        assert!(state.send_at() > backoff.0.world.now() && state.tried == tried, "{state:?}");
        backoff.end_wait(peer).await.unwrap();
        assert_eq!(self::backoff(&store).send_at(peer).await.unwrap(), 0);
        backoff.delivered(peer).await.unwrap();
        assert_eq!(self::backoff(&store).state(peer).await.unwrap(), DestinationState::default());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nothing_waits_for_leaves_no_row() {
        let peer = server_name!("peer.example");
        let store = waiting(peer).await;
        let made_up = server_name!("random1.example");
        let first = backoff(&store);
        first.failed(made_up, None).await.unwrap();
        first.failed(peer, None).await.unwrap();
        assert_ne!(first.wait_until(made_up).await.unwrap(), 0);
        let rows = async || store.read().scan_all::<Destinations>(&()).await.unwrap().len();
        assert_eq!(rows().await, 1);
        // Nor do those stay that were written before.
        let mut tx = Tx::new();
        for number in 0..2_500 {
            let server = OwnedServerName::try_from(format!("random{number}.example")).unwrap();
            tx.put::<Destinations>(&server, &Json(DestinationState { failures: 1, ..Default::default() }));
        }
        store.commit(tx).await.unwrap();
        backoff(&store).forget_idle().await.unwrap();
        assert_eq!(rows().await, 1);
        assert_eq!(backoff(&store).state(peer).await.unwrap().failures, 1);
    }

    #[test]
    fn made_up_servers_are_forgotten_before_others() {
        let reached = Known { reached_at: 1, ..Known::default() };
        let kept = Known { kept: DestinationState { failures: 1, ..Default::default() }, ..Known::default() };
        let name = |number: usize| OwnedServerName::try_from(format!("n{number}.example")).unwrap();
        let made_up = (2..REMEMBERED).map(|number| (name(number), Known::default()));
        let mut known: HashMap<_, _> = made_up.chain([(name(0), reached), (name(1), kept)]).collect();
        make_room(&mut known);
        assert_eq!(known.len(), 2);
    }
}
