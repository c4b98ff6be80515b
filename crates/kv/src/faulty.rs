//! An engine that fails when told to: what crashes and broken disks look like from above.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Batch, CommitError, Engine, Error, Position, Snapshot};

/// How a commit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing was written, and the caller hears of a failure.
    Lost,
    /// The batch was written, but the caller hears of a failure: a crash after the write, before the answer.
    Unanswered,
    /// Another writer was first.
    Conflict,
}

/// Decides for each commit whether it fails; shared with the test that steers it.
pub type Plan = Arc<Mutex<dyn FnMut(&Batch) -> Option<Fault> + Send>>;

/// Wraps an engine and fails commits as planned.
pub struct Faulty<E> {
    inner: E,
    plan: Plan,
}

impl<E> Faulty<E> {
    /// Fails commits to `inner` when `plan` says so.
    pub fn new(inner: E, plan: Plan) -> Self {
        Self { inner, plan }
    }
}

impl<E> std::fmt::Debug for Faulty<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl<E: Engine> Engine for Faulty<E> {
    fn snapshot(&self) -> Box<dyn Snapshot + '_> {
        self.inner.snapshot()
    }

    async fn commit(&self, batch: Batch) -> Result<Position, CommitError> {
        let fault = (self.plan.lock())(&batch);
        match fault {
            None => self.inner.commit(batch).await,
            Some(Fault::Conflict) => Err(CommitError::Conflict),
            Some(Fault::Lost) => Err(Error("planned fault".to_owned()).into()),
            Some(Fault::Unanswered) => {
                self.inner.commit(batch).await?;
                Err(Error("planned fault".to_owned()).into())
            }
        }
    }

    fn visible(&self) -> watch::Receiver<Position> {
        self.inner.visible()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Db, Memory};

    #[tokio::test]
    async fn an_unanswered_commit_is_there_and_a_lost_one_is_not() {
        let mut faults = vec![None, Some(Fault::Conflict), Some(Fault::Lost), Some(Fault::Unanswered)];
        let plan: Plan = Arc::new(Mutex::new(move |_: &Batch| faults.pop().flatten()));
        let db = Db::new(Faulty::new(Memory::default(), plan));
        let batch =
            Batch { expectations: Vec::new(), changes: vec![Change::Put(vec![1].into(), Vec::new().into())] };
        assert!(matches!(db.commit(batch.clone()).await, Err(CommitError::Engine(_))));
        assert_eq!(db.snapshot().position(), Position(1));
        assert!(matches!(db.commit(batch.clone()).await, Err(CommitError::Engine(_))));
        assert!(matches!(db.commit(batch.clone()).await, Err(CommitError::Conflict)));
        assert_eq!(db.snapshot().position(), Position(1));
        assert_eq!(db.commit(batch).await.ok(), Some(Position(2)));
    }
}
