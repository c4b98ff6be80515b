//! The contract in memory, for tests and simulation: snapshots are shared trees, commits are serial.

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rpds::RedBlackTreeMapSync;
use tokio::sync::watch;

use crate::{
    Batch, CommitError, Direction, Engine, Error, Overlay, Page, Position, Range, Resolved, Snapshot,
};

type Tree = RedBlackTreeMapSync<Bytes, Bytes>;

/// An engine without a disk.
#[derive(Debug)]
pub struct Memory {
    now: Mutex<Moment>,
    visible: watch::Sender<Position>,
}

#[derive(Clone, Debug)]
struct Moment {
    position: Position,
    tree: Tree,
}

impl Default for Memory {
    fn default() -> Self {
        let moment = Moment { position: Position(0), tree: Tree::new_sync() };
        Self { now: Mutex::new(moment), visible: watch::Sender::new(Position(0)) }
    }
}

#[async_trait]
impl Engine for Memory {
    fn snapshot(&self) -> Box<dyn Snapshot + '_> {
        Box::new(self.now.lock().clone())
    }

    async fn commit(&self, batch: Batch) -> Result<Position, CommitError> {
        let mut now = self.now.lock();
        for expectation in &batch.expectations {
            if !expectation.holds(now.tree.get(expectation.key()).map(|value| &value[..])) {
                return Err(CommitError::Conflict);
            }
        }
        let position = Position(now.position.0 + 1);
        let mut tree = now.tree.clone();
        let mut overlay = Overlay::default();
        for change in batch.changes {
            let base = |key: &[u8]| Ok::<_, Error>(now.tree.get(key).cloned());
            apply(&mut tree, overlay.apply(change, position, base)?);
        }
        *now = Moment { position, tree };
        self.visible.send_replace(position);
        Ok(position)
    }

    fn visible(&self) -> watch::Receiver<Position> {
        self.visible.subscribe()
    }
}

fn apply(tree: &mut Tree, change: Resolved) {
    match change {
        Resolved::Put(key, value) => tree.insert_mut(key, value),
        Resolved::Delete(key) => {
            tree.remove_mut(&key);
        }
        Resolved::DeleteRange(range) => {
            let keys: Vec<Bytes> = tree.range(range.from..range.to).map(|(key, _)| key.clone()).collect();
            for key in keys {
                tree.remove_mut(&key);
            }
        }
    }
}

#[async_trait]
impl Snapshot for Moment {
    fn position(&self) -> Position {
        self.position
    }

    async fn get(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Error> {
        Ok(keys.iter().map(|key| self.tree.get(key).cloned()).collect())
    }

    async fn scan(&self, range: &Range, direction: Direction, limit: usize) -> Result<Page, Error> {
        let rows = self.tree.range(range.from.clone()..range.to.clone());
        let row = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        let mut rows: Vec<_> = match direction {
            Direction::Forward => rows.map(row).take(limit.saturating_add(1)).collect(),
            Direction::Backward => rows.rev().map(row).take(limit.saturating_add(1)).collect(),
        };
        let more = rows.len() > limit;
        rows.truncate(limit);
        Ok(Page { rows, more })
    }
}

#[cfg(test)]
mod tests {
    use super::Memory;
    use crate::{Db, conformance};

    #[tokio::test]
    async fn conforms() {
        conformance::run(|| Db::new(Memory::default())).await;
    }

    #[tokio::test]
    async fn equals_an_ordered_map() {
        for seed in 0..50 {
            conformance::model(Db::new(Memory::default()), seed, 100, async |db| db).await;
        }
    }
}
