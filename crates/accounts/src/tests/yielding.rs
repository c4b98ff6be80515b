//! An engine in memory whose every read lets other tasks go first, so that races happen each time. What is to be written is
//! written even if nobody waits for it any more, as on disk.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chappe_kv::{Batch, CommitError, Direction, Engine, Error, Memory, Page, Position, Range, Snapshot};
use tokio::{runtime::Handle, sync::watch, task::yield_now};

#[derive(Default)]
pub(super) struct Yielding(Arc<Memory>);

#[async_trait]
impl Engine for Yielding {
    fn snapshot(&self) -> Box<dyn Snapshot + '_> {
        Box::new(Moment(self.0.snapshot()))
    }

    async fn commit(&self, batch: Batch) -> Result<Position, CommitError> {
        let memory = Arc::clone(&self.0);
        let writing = async move {
            yield_now().await;
            memory.commit(batch).await
        };
        Handle::current().spawn(writing).await.unwrap()
    }

    fn visible(&self) -> watch::Receiver<Position> {
        self.0.visible()
    }
}

struct Moment<'a>(Box<dyn Snapshot + 'a>);

#[async_trait]
impl Snapshot for Moment<'_> {
    fn position(&self) -> Position {
        self.0.position()
    }

    async fn get(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Error> {
        yield_now().await;
        self.0.get(keys).await
    }

    async fn scan(&self, range: &Range, direction: Direction, limit: usize) -> Result<Page, Error> {
        yield_now().await;
        self.0.scan(range, direction, limit).await
    }
}
