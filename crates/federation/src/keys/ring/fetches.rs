//! When keys are fetched: of each server once at a time, of so many servers at once, and not again for a while.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::time::Instant;

use super::KeyRing;

/// After fetching, the same server is left alone for so long; longer with each failure.
const PAUSE: Duration = Duration::from_secs(30);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// Servers whose keys are fetched at the same time.
pub(super) const FETCHES: usize = 256;
/// For how long a place among them is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) type Fetch = Shared<BoxFuture<'static, ()>>;
/// Key ids that somebody waits for.
pub(super) type Wanted = Arc<Mutex<BTreeSet<String>>>;

#[derive(Clone, Copy)]
pub(super) struct Pause {
    until: Instant,
    failures: u32,
    /// Whether the notaries were asked, too: otherwise they may know a key that is not among those found.
    everybody: bool,
}

/// A fetch, for as long as it lasts, however it ends.
struct UnderWay<'a>(&'a KeyRing, &'a ServerName);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.0.under_way.lock().remove(self.1);
    }
}

impl KeyRing {
    /// Fetches the keys of a server, these above all, unless that was done just now; whoever asks meanwhile waits for the same
    /// fetch.
    pub(super) async fn fetch(&self, server: &ServerName, ids: BTreeSet<String>) {
        let nobody_to_ask = self.0.notaries.is_empty() && !self.0.allowed.permits(server);
        if nobody_to_ask || self.0.pins.of(server).is_some() {
            return;
        }
        let now = self.0.world.instant();
        let pauses = |pause: Pause| pause.until > now && (pause.everybody || ids.is_empty());
        if self.0.pauses.get(server).is_some_and(pauses) {
            return;
        }
        let fetch = {
            let mut under_way = self.0.under_way.lock();
            let (fetch, wanted) =
                under_way.entry(server.to_owned()).or_insert_with(|| self.begin(server.to_owned()));
            wanted.lock().extend(ids);
            fetch.clone()
        };
        fetch.await;
    }

    /// As a task of its own: it ends, and gives its place away, whether or not anybody still waits for it.
    fn begin(&self, server: OwnedServerName) -> (Fetch, Wanted) {
        let wanted = Wanted::default();
        let (ring, ids, stop) = (self.clone(), Arc::clone(&wanted), self.0.world.tasks().stop_signal());
        let work = async move {
            let _under_way = UnderWay(&ring, &server);
            stop.run_until_cancelled(ring.fetch_in_turn(&server, &ids)).await;
        };
        let ended = self.0.world.spawn("keys of a server", work);
        (ended.map(drop).boxed().shared(), wanted)
    }

    /// Fetches them once there is a place, if they are still wanted then. Where none comes in time nothing was learned of the
    /// server: whoever needs them asks again.
    async fn fetch_in_turn(&self, server: &OwnedServerName, wanted: &Wanted) {
        let Some(_place) = self.0.world.timeout(PATIENCE, self.0.places.acquire()).await else {
            tracing::info!(%server, "no keys: too many servers are asked for theirs");
            return;
        };
        if !self.is_abandoned(server) {
            self.fetch_now(server, wanted).await;
        }
    }

    /// Whether nobody waits any more for what is under way.
    fn is_abandoned(&self, server: &ServerName) -> bool {
        let under_way = self.0.under_way.lock();
        let holders = under_way.get(server).and_then(|(fetch, _)| fetch.strong_count());
        holders.is_none_or(|holders| holders <= 1)
    }

    async fn fetch_now(&self, server: &OwnedServerName, wanted: &Wanted) {
        let result = self.fetch_anywhere(server, wanted).await;
        if let Err(error) = &result {
            tracing::info!(%server, error, "no keys");
        }
        let (everybody, failures) = match result {
            Ok(everybody) => (everybody, 0),
            Err(_) => (true, self.0.pauses.get(server).map_or(0, |pause| pause.failures) + 1),
        };
        let pause = PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
        let until = self.0.world.instant() + pause;
        self.0.pauses.insert(server.clone(), Pause { until, failures, everybody });
    }
}
