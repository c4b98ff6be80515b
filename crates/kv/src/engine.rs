//! What every engine offers, and the handle that hides which one it is.

use std::{fmt, path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::Batch;

/// A place in the one order of commits. The first commit has position 1; 0 is "before everything".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a table is used, so that an engine can lay it out well. It never changes what an operation means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Small values read by exact key, rewritten often: heads, counters, tokens.
    Point,
    /// Small rows read by range.
    Index,
    /// Values of several hundred bytes and more that are written once: events, keys, documents.
    Bulk,
    /// Rows appended in order and deleted from the front: the log, queues.
    Queue,
}

/// Keys from `from` (included) to `to` (excluded). A key's first byte is its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// First key.
    pub from: Bytes,
    /// First key beyond.
    pub to: Bytes,
}

impl Range {
    /// Every key that begins with `prefix`, which must not be all `0xff`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { from: Bytes::copy_from_slice(prefix), to: successor(prefix).into() }
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.from[..] <= *key && *key < self.to[..]
    }
}

fn successor(prefix: &[u8]) -> Vec<u8> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if last < 0xff {
            next.push(last + 1);
            break;
        }
    }
    next
}

/// Which end of a range a scan begins at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Forward,
    /// Largest key first.
    Backward,
}

/// Rows of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Key and value, in the direction of the scan.
    pub rows: Vec<(Bytes, Bytes)>,
    /// Whether the limit cut the scan short.
    pub more: bool,
}

/// The engine failed; what it says is for the operator.
#[derive(Clone, Debug, thiserror::Error)]
#[error("storage engine: {0}")]
pub struct Error(pub String);

/// Why a batch was not written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// An expectation did not hold. Nothing was written: read again and try again.
    #[error("another writer was first")]
    Conflict,
    /// The engine failed. The batch may or may not be found after a restart, never half of it.
    #[error(transparent)]
    Engine(#[from] Error),
}

/// One moment of the database.
#[async_trait]
pub trait Snapshot: Send + Sync {
    /// Every commit up to this position is visible, none beyond.
    fn position(&self) -> Position;

    /// The values of `keys`, in their order: one round trip.
    async fn get(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Error>;

    /// Up to `limit` rows of `range`: one round trip.
    async fn scan(&self, range: &Range, direction: Direction, limit: usize) -> Result<Page, Error>;
}

/// An ordered key-value store with atomic conditional batches.
#[async_trait]
pub trait Engine: Send + Sync {
    /// A view of this moment. Snapshots are cheap and meant to be short-lived.
    fn snapshot(&self) -> Box<dyn Snapshot + '_>;

    /// Checks and writes a batch; durable when it answers. Gives the batch's position.
    async fn commit(&self, batch: Batch) -> Result<Position, CommitError>;

    /// The last visible position, watched: it only grows, and when it reads `n`, a new snapshot shows `n`.
    fn visible(&self) -> watch::Receiver<Position>;

    /// Writes a copy of one moment into the folder `to`, which must not exist yet, while everything goes on. Every
    /// commit that was answered before is in it. Engines without files refuse.
    async fn copy_to(&self, to: &Path) -> Result<(), Error> {
        Err(Error(format!("nothing is copied to {}: this engine keeps no files", to.display())))
    }
}

/// A handle on an engine; clones share it.
#[derive(Clone)]
pub struct Db(Arc<dyn Engine>);

impl Db {
    /// Wraps an engine.
    pub fn new(engine: impl Engine + 'static) -> Self {
        Self(Arc::new(engine))
    }

    /// See [`Engine::snapshot`].
    pub fn snapshot(&self) -> Box<dyn Snapshot + '_> {
        self.0.snapshot()
    }

    /// See [`Engine::commit`].
    pub async fn commit(&self, batch: Batch) -> Result<Position, CommitError> {
        self.0.commit(batch).await
    }

    /// See [`Engine::visible`].
    pub fn visible(&self) -> watch::Receiver<Position> {
        self.0.visible()
    }

    /// See [`Engine::copy_to`].
    pub async fn copy_to(&self, to: &Path) -> Result<(), Error> {
        self.0.copy_to(to).await
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Db")
    }
}
