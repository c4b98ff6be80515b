//! An engine that counts the round trips of the one below: what a networked engine would have to pay.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::{Batch, CommitError, Direction, Engine, Error, Page, Position, Range, Snapshot};

tokio::task_local! {
    static FOLLOWING: ();
}

/// Marks work that goes on beside requests and follows what they wrote: its round trips are counted apart.
pub fn following<F: Future>(work: F) -> impl Future<Output = F::Output> {
    FOLLOWING.scope((), work)
}

/// Round trips of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trips {
    /// Look-ups of one or many keys.
    pub gets: u64,
    /// Scans.
    pub scans: u64,
    /// Commits.
    pub commits: u64,
}

impl Trips {
    /// Look-ups and scans.
    pub fn reads(self) -> u64 {
        self.gets + self.scans
    }
}

#[derive(Debug, Default)]
struct Counts {
    gets: AtomicU64,
    scans: AtomicU64,
    commits: AtomicU64,
}

impl Counts {
    fn take(&self) -> Trips {
        let took = |count: &AtomicU64| count.swap(0, Relaxed);
        Trips { gets: took(&self.gets), scans: took(&self.scans), commits: took(&self.commits) }
    }
}

/// Round trips so far.
#[derive(Debug, Default)]
pub struct RoundTrips {
    requests: Counts,
    followers: Counts,
}

impl RoundTrips {
    /// `(gets, scans, commits)` since the last call, by whomever.
    pub fn take(&self) -> (u64, u64, u64) {
        let (asked, followed) = self.take_apart();
        let Trips { gets, scans, commits } = asked;
        (gets + followed.gets, scans + followed.scans, commits + followed.commits)
    }

    /// Since the last call: what was asked for, and what [`following`] made.
    pub fn take_apart(&self) -> (Trips, Trips) {
        (self.requests.take(), self.followers.take())
    }

    fn counts(&self) -> &Counts {
        if FOLLOWING.try_with(|()| ()).is_ok() { &self.followers } else { &self.requests }
    }
}

/// Wraps an engine and counts.
#[derive(Debug)]
pub struct Counting<E> {
    inner: E,
    trips: Arc<RoundTrips>,
}

impl<E> Counting<E> {
    /// Counts the round trips to `inner` in `trips`.
    pub fn new(inner: E, trips: Arc<RoundTrips>) -> Self {
        Self { inner, trips }
    }
}

#[async_trait]
impl<E: Engine> Engine for Counting<E> {
    fn snapshot(&self) -> Box<dyn Snapshot + '_> {
        Box::new(CountingSnapshot { inner: self.inner.snapshot(), trips: &self.trips })
    }

    async fn commit(&self, batch: Batch) -> Result<Position, CommitError> {
        self.trips.counts().commits.fetch_add(1, Relaxed);
        self.inner.commit(batch).await
    }

    fn visible(&self) -> watch::Receiver<Position> {
        self.inner.visible()
    }
}

struct CountingSnapshot<'a> {
    inner: Box<dyn Snapshot + 'a>,
    trips: &'a RoundTrips,
}

#[async_trait]
impl Snapshot for CountingSnapshot<'_> {
    fn position(&self) -> Position {
        self.inner.position()
    }

    async fn get(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Error> {
        self.trips.counts().gets.fetch_add(1, Relaxed);
        self.inner.get(keys).await
    }

    async fn scan(&self, range: &Range, direction: Direction, limit: usize) -> Result<Page, Error> {
        self.trips.counts().scans.fetch_add(1, Relaxed);
        self.inner.scan(range, direction, limit).await
    }
}
