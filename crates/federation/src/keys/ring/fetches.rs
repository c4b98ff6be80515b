//! When keys are fetched: for each purpose of each server once at a time, of so many servers at once, and not again for a while.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::time::Instant;

use super::{KeyRing, Lack, Missing};

/// After fetching, the same server is left alone for so long; twice as long with each failure, up to the longest.
pub(super) const PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// Where a request is to be checked: after the first failure, and at most. Whoever makes one is there again, or says so, and is
/// refused meanwhile.
const PAUSE_FOR_REQUESTS: Duration = Duration::from_secs(1);
const LONGEST_FOR_REQUESTS: Duration = Duration::from_mins(1);
/// Servers whose keys are fetched at the same time, to check events and to check requests: whoever names many servers in events
/// holds up no requests. Servers that this one has reached have as many places for requests as all others: whoever makes up servers
/// holds up none of them.
pub(super) const FOR_EVENTS: usize = 256;
pub(super) const FOR_REQUESTS: usize = 128;
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

impl Purpose {
    /// For how long a server is left alone after so many failures in a row.
    fn pause(self, failures: u32) -> Duration {
        let (first, doublings, longest) = match self {
            Self::Requests if failures > 0 => (PAUSE_FOR_REQUESTS, failures - 1, LONGEST_FOR_REQUESTS),
            Self::Requests | Self::Events => (PAUSE, failures, LONGEST_PAUSE),
        };
        first.saturating_mul(1 << doublings.min(10)).min(longest)
    }
}

/// One fetch: who makes a request does not wait with those that events name.
pub(super) type Errand = (OwnedServerName, Purpose);

#[derive(Clone, Copy)]
pub(super) struct Pause {
    until: Instant,
    failures: u32,
    /// Whether the notaries were asked, too: otherwise they may know a key that is not here.
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
    /// Fetches the keys of a server that are missing for a purpose, unless that was done just now; whoever asks meanwhile waits for
    /// the same fetch.
    pub(super) async fn fetch(&self, Missing { server, ids, is_lacking, .. }: Missing<'_>, purpose: Purpose) {
        if !self.would_fetch(server, purpose, is_lacking) {
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

    /// Whether anybody is asked for a server's keys now; `is_lacking`: for such as are not here at all.
    pub(super) fn would_fetch(&self, server: &ServerName, purpose: Purpose, is_lacking: bool) -> bool {
        let nobody_to_ask = self.0.notaries.is_empty() && !self.0.allowed.permits(server);
        let now = self.0.world.instant();
        let pause = self.0.pauses.get(&(server.to_owned(), purpose));
        let pauses = pause.is_some_and(|pause| pause.until > now && (pause.everybody || !is_lacking));
        !nobody_to_ask && self.0.pins.of(server).is_none() && !pauses
    }

    /// As a task of its own: it ends, and gives its place away, whether or not anybody still waits for it.
    fn begin(&self, errand: Errand) -> (Fetch, Wanted) {
        let wanted = Wanted::default();
        let (ring, ids, stop) = (self.clone(), Arc::clone(&wanted), self.0.world.tasks().stop_signal());
        let work = async move {
            let _under_way = UnderWay(&ring, &errand);
            stop.run_until_cancelled(Box::pin(ring.fetch_in_turn(&errand, &ids))).await;
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
            Purpose::Requests if self.is_met(errand) => &self.0.for_requests,
            Purpose::Requests => &self.0.for_strangers,
        };
        let Some(_place) = self.0.world.timeout(PATIENCE, places.acquire()).await else {
            tracing::debug!(%server, "no keys: too many servers are asked for theirs");
            return;
        };
        if !self.is_abandoned(errand) {
            self.fetch_now(errand, wanted).await;
        }
    }

    /// Whether a server has answered a request of this one since the start, and its keys were not asked for in vain last time. That
    /// it once gave keys tells nothing: of made-up names each may.
    fn is_met(&self, errand: &Errand) -> bool {
        let has_failed = self.0.pauses.get(errand).is_some_and(|pause| pause.failures > 0);
        !has_failed && self.0.backoff.reached_at(&errand.0).is_some()
    }

    /// Whether nobody waits any more for what is under way.
    fn is_abandoned(&self, errand: &Errand) -> bool {
        let under_way = self.0.under_way.lock();
        let holders = under_way.get(errand).and_then(|(fetch, _)| fetch.strong_count());
        holders.is_none_or(|holders| holders <= 1)
    }

    async fn fetch_now(&self, errand: &Errand, wanted: &Wanted) {
        let (server, purpose) = errand;
        let result = self.fetch_anywhere(server, wanted).await;
        if let Err(error) = &result {
            tracing::info!(%server, %error, "no keys");
        }
        let (everybody, failures) = match result {
            Ok(everybody) => (everybody, 0),
            // That is no fault of the server's: whoever needs its keys asks again.
            Err(Lack::Busy) => return,
            Err(Lack::Other(_)) => (true, self.0.pauses.get(errand).map_or(0, |pause| pause.failures) + 1),
        };
        let until = self.0.world.instant() + purpose.pause(failures);
        self.0.pauses.insert(errand.clone(), Pause { until, failures, everybody });
    }
}
