//! The one writer: many batches, one order, one sync.

use std::sync::Arc;

use bytes::Bytes;
use chappe_kv::{Batch, CommitError, Error, Overlay, Position, Resolved};
use rocksdb::{WriteBatch, WriteOptions};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{Shared, failure, read::POSITION};

/// Batches that may share one write.
const GROUP: usize = 512;
/// Bytes after which a group is written without waiting for more.
const GROUP_BYTES: usize = 8 << 20;

type Answer = oneshot::Sender<Result<Position, CommitError>>;

/// A batch and who waits for it.
pub(crate) struct Request {
    pub(crate) batch: Batch,
    pub(crate) answer: Answer,
}

pub(crate) struct Committer {
    shared: Arc<Shared>,
    visible: watch::Sender<Position>,
    sync: bool,
}

/// Batches that are decided and go to disk together.
#[derive(Default)]
struct Group {
    overlay: Overlay,
    write: WriteBatch,
    accepted: Vec<(Position, Answer)>,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, visible: watch::Sender<Position>, sync: bool) -> Self {
        Self { shared, visible, sync }
    }

    /// Works until every sender is gone or the disk fails. After a failed write nobody knows what the disk
    /// holds, so nothing more is accepted until a restart has read it again.
    pub(crate) fn run(self, mut requests: mpsc::Receiver<Request>) {
        let mut waiting = Vec::with_capacity(GROUP);
        while requests.blocking_recv_many(&mut waiting, GROUP) > 0 {
            let mut waiting_now = waiting.drain(..).peekable();
            while waiting_now.peek().is_some() {
                if let Err(error) = self.commit_group(&mut waiting_now) {
                    tracing::error!(%error, "cannot write: no more commits until a restart");
                    return;
                }
            }
        }
    }

    fn commit_group(&self, requests: &mut impl Iterator<Item = Request>) -> Result<(), Error> {
        let mut last = *self.visible.borrow();
        let mut group = Group::default();
        for Request { batch, answer } in requests.by_ref() {
            if !self.holds(&group.overlay, &batch)? {
                let _ = answer.send(Err(CommitError::Conflict));
                continue;
            }
            last = Position(last.0 + 1);
            self.accept(&mut group, batch, last)?;
            group.accepted.push((last, answer));
            if group.write.size_in_bytes() >= GROUP_BYTES {
                break;
            }
        }
        if group.accepted.is_empty() {
            return Ok(());
        }
        self.write(group, last)
    }

    fn holds(&self, overlay: &Overlay, batch: &Batch) -> Result<bool, Error> {
        for expectation in &batch.expectations {
            let key = expectation.key();
            let holds = match overlay.get(key) {
                Some(pending) => expectation.holds(pending.map(|value| &value[..])),
                None => expectation.holds(self.on_disk(key)?.as_deref()),
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn on_disk(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.shared.db.get_cf(&self.shared.family(key)?, key).map_err(failure)
    }

    fn accept(&self, group: &mut Group, batch: Batch, position: Position) -> Result<(), Error> {
        for change in batch.changes {
            let base = |key: &[u8]| self.on_disk(key).map(|value| value.map(Bytes::from));
            match group.overlay.apply(change, position, base)? {
                Resolved::Put(key, value) => {
                    group.write.put_cf(&self.shared.family(&key)?, key, value);
                }
                Resolved::Delete(key) => group.write.delete_cf(&self.shared.family(&key)?, key),
                Resolved::DeleteRange(range) => {
                    let family = self.shared.family(&range.from)?;
                    group.write.delete_range_cf(&family, range.from, range.to);
                }
            }
        }
        Ok(())
    }

    fn write(&self, mut group: Group, last: Position) -> Result<(), Error> {
        group.write.put_cf(&self.shared.family(POSITION)?, POSITION, last.0.to_be_bytes());
        let mut options = WriteOptions::default();
        options.set_sync(self.sync);
        self.shared.db.write_opt(group.write, &options).map_err(failure)?;
        self.visible.send_replace(last);
        for (position, answer) in group.accepted {
            let _ = answer.send(Ok(position));
        }
        Ok(())
    }
}
