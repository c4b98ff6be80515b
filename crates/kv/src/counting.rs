//! An engine that counts the round trips of the one below: what a networked engine would have to pay.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::{Batch, CommitError, Direction, Engine, Error, Page, Position, Range, Snapshot};

/// Round trips so far.
#[derive(Debug, Default)]
pub struct RoundTrips {
    gets: AtomicU64,
    scans: AtomicU64,
    commits: AtomicU64,
}

impl RoundTrips {
    /// `(gets, scans, commits)` since the last call.
    pub fn take(&self) -> (u64, u64, u64) {
        (self.gets.swap(0, Relaxed), self.scans.swap(0, Relaxed), self.commits.swap(0, Relaxed))
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
        self.trips.commits.fetch_add(1, Relaxed);
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
        self.trips.gets.fetch_add(1, Relaxed);
        self.inner.get(keys).await
    }

    async fn scan(&self, range: &Range, direction: Direction, limit: usize) -> Result<Page, Error> {
        self.trips.scans.fetch_add(1, Relaxed);
        self.inner.scan(range, direction, limit).await
    }
}
