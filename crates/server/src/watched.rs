//! What holds up everybody and leaves no other trace is said: commits that take long, and a process that stands still.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use chappe_kv::{Batch, CommitError, Engine, Error, Position, Snapshot};
use chappe_world::World;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

/// What takes longer is worth a word.
const LONG: Duration = Duration::from_millis(500);
/// One word in so much time.
const SELDOM: Duration = Duration::from_secs(10);

/// Says by how much the process was late for its own pulse.
pub(crate) fn note_delay(late: Duration) {
    if late > LONG {
        tracing::warn!(
            ms = late.as_millis(),
            "the process stood still: too little processor time, or memory"
        );
    }
}

/// An engine whose long commits are said.
pub(crate) struct Watched<E> {
    inner: E,
    world: World,
    said: Mutex<Option<Instant>>,
}

impl<E> Watched<E> {
    pub(crate) fn new(inner: E, world: World) -> Self {
        Self { inner, world, said: Mutex::default() }
    }

    fn note(&self, begun: Instant) {
        let now = self.world.instant();
        let took = now.saturating_duration_since(begun);
        let mut said = self.said.lock();
        if took > LONG && said.is_none_or(|said| now.saturating_duration_since(said) > SELDOM) {
            *said = Some(now);
            tracing::warn!(ms = took.as_millis(), "a commit took long: the disk, or too much at a time");
        }
    }
}

#[async_trait]
impl<E: Engine> Engine for Watched<E> {
    fn snapshot(&self) -> Box<dyn Snapshot + '_> {
        self.inner.snapshot()
    }

    async fn commit(&self, batch: Batch) -> Result<Position, CommitError> {
        let begun = self.world.instant();
        let done = self.inner.commit(batch).await;
        self.note(begun);
        done
    }

    fn visible(&self) -> watch::Receiver<Position> {
        self.inner.visible()
    }

    async fn copy_to(&self, to: &Path) -> Result<(), Error> {
        self.inner.copy_to(to).await
    }
}
