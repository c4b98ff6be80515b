//! When keys are fetched: of each server once at a time for each purpose, of so many servers at once, and not again for a while.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::time::Instant;

use super::{KeyRing, Lack};

/// After fetching, the same server is left alone for so long; longer with each failure.
const PAUSE: Duration = Duration::from_secs(30);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// Servers whose keys are fetched at the same time, to check events and to check requests: whoever names many servers in events
/// holds up no requests.
pub(super) const FOR_EVENTS: usize = 256;
pub(super) const FOR_REQUESTS: usize = 64;
/// For how long a place among them is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) type Fetch = Shared<BoxFuture<'static, ()>>;
/// Key ids that somebody waits for.
pub(super) type Wanted = Arc<Mutex<BTreeSet<String>>>;

/// What keys are fetched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    Events,
    Requests,
}

/// One fetch: who makes a request does not wait with those that events name.
pub(super) type Errand = (OwnedServerName, Purpose);

#[derive(Clone, Copy)]
pub(super) struct Pause {
    until: Instant,
    failures: u32,
    /// Whether the notaries were asked, too: otherwise they may know a key that is not among those found.
    everybody: bool,
}

/// A fetch, for as long as it lasts, however it ends.
struct UnderWay<'a>(&'a KeyRing, &'a Errand);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.0.under_way.lock().remove(self.1);
    }
}

impl KeyRing {
    /// Fetches the keys of a server, these above all, unless that was done just now; whoever asks meanwhile waits for the same
    /// fetch.
    pub(super) async fn fetch(&self, server: &ServerName, ids: BTreeSet<String>, purpose: Purpose) {
        if !self.would_fetch(server, &ids) {
            return;
        }
        let fetch = {
            let mut under_way = self.0.under_way.lock();
            let errand = (server.to_owned(), purpose);
            let (fetch, wanted) = under_way.entry(errand.clone()).or_insert_with(|| self.begin(errand));
            wanted.lock().extend(ids);
            fetch.clone()
        };
        fetch.await;
    }

    /// Whether anybody is asked for these keys now.
    pub(super) fn would_fetch(&self, server: &ServerName, ids: &BTreeSet<String>) -> bool {
        let nobody_to_ask = self.0.notaries.is_empty() && !self.0.allowed.permits(server);
        let now = self.0.world.instant();
        let pauses = |pause: Pause| pause.until > now && (pause.everybody || ids.is_empty());
        !nobody_to_ask && self.0.pins.of(server).is_none() && !self.0.pauses.get(server).is_some_and(pauses)
    }

    /// As a task of its own: it ends, and gives its place away, whether or not anybody still waits for it.
    fn begin(&self, errand: Errand) -> (Fetch, Wanted) {
        let wanted = Wanted::default();
        let (ring, ids, stop) = (self.clone(), Arc::clone(&wanted), self.0.world.tasks().stop_signal());
        let work = async move {
            let _under_way = UnderWay(&ring, &errand);
            stop.run_until_cancelled(ring.fetch_in_turn(&errand, &ids)).await;
        };
        let ended = self.0.world.spawn("keys of a server", work);
        (ended.map(drop).boxed().shared(), wanted)
    }

    /// Fetches them once there is a place, if they are still wanted then. Where none comes in time nothing was learned of the
    /// server: whoever needs them asks again.
    async fn fetch_in_turn(&self, errand: &Errand, wanted: &Wanted) {
        let (server, purpose) = errand;
        let places = match purpose {
            Purpose::Events => &self.0.for_events,
            Purpose::Requests => &self.0.for_requests,
        };
        let Some(_place) = self.0.world.timeout(PATIENCE, places.acquire()).await else {
            tracing::debug!(%server, "no keys: too many servers are asked for theirs");
            return;
        };
        if !self.is_abandoned(errand) {
            self.fetch_now(server, wanted).await;
        }
    }

    /// Whether nobody waits any more for what is under way.
    fn is_abandoned(&self, errand: &Errand) -> bool {
        let under_way = self.0.under_way.lock();
        let holders = under_way.get(errand).and_then(|(fetch, _)| fetch.strong_count());
        holders.is_none_or(|holders| holders <= 1)
    }

    async fn fetch_now(&self, server: &OwnedServerName, wanted: &Wanted) {
        let result = self.fetch_anywhere(server, wanted).await;
        if let Err(error) = &result {
            tracing::info!(%server, %error, "no keys");
        }
        let (everybody, failures) = match result {
            Ok(everybody) => (everybody, 0),
            // That is no fault of the server's: whoever needs its keys asks again.
            Err(Lack::Busy) => return,
            Err(Lack::Other(_)) => (true, self.0.pauses.get(server).map_or(0, |pause| pause.failures) + 1),
        };
        let pause = PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
        let until = self.0.world.instant() + pause;
        self.0.pauses.insert(server.clone(), Pause { until, failures, everybody });
    }
}
