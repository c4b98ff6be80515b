//! The key-value contract on RocksDB.
//!
//! One committer thread takes the waiting batches together, checks each one's expectations against what is on
//! disk and what its forerunners in the group are about to write, gives positions, and writes the group with one
//! sync. Readers read from the block cache on their own thread and leave it only when the disk has to be asked.

mod committer;
mod options;
mod read;

use std::{path::Path, sync::Arc, thread::JoinHandle};

use async_trait::async_trait;
use chappe_kv::{Batch, Class, CommitError, Engine, Error, Position, Snapshot};
use rocksdb::{ColumnFamilyRef, DB, WriteOptions, checkpoint::Checkpoint};
use tokio::sync::{mpsc, oneshot, watch};

use self::committer::{Committer, Request};
pub use self::options::{OPEN_FILES, Options};

/// Requests that may wait for the committer; beyond that, writers wait for a place.
const QUEUE: usize = 4096;

/// An open database. Dropping it finishes what was accepted, then closes the files.
pub struct Rocks {
    shared: Arc<Shared>,
    queue: Option<mpsc::Sender<Request>>,
    committer: Option<JoinHandle<()>>,
    visible: watch::Receiver<Position>,
}

/// What readers and the committer both use.
struct Shared {
    db: DB,
    class: fn(u8) -> Class,
}

impl Shared {
    fn open(path: &Path, options: &Options, class: fn(u8) -> Class) -> Result<Self, Error> {
        let db = DB::open_cf_descriptors(&options.database(), path, options.families()).map_err(failure)?;
        Ok(Self { db, class })
    }

    /// The column family in which `key` lives.
    fn family(&self, key: &[u8]) -> Result<ColumnFamilyRef<'_>, Error> {
        let table = *key.first().ok_or_else(|| Error("empty key".to_owned()))?;
        let name = options::family((self.class)(table));
        self.db.cf_handle(name).ok_or_else(|| Error(format!("column family {name} is missing")))
    }
}

impl Rocks {
    /// Opens or creates the database in the folder `path`. `class` says how each table is used; a table's class
    /// must never change once it has rows.
    pub fn open(path: &Path, options: &Options, class: fn(u8) -> Class) -> Result<Self, Error> {
        let shared = Arc::new(Shared::open(path, options, class)?);
        let last = read::last_position(&shared)?;
        let (queue, requests) = mpsc::channel(QUEUE);
        let (sender, visible) = watch::channel(last);
        let committer = Committer::new(Arc::clone(&shared), sender, options.sync);
        let committer = std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || committer.run(requests))
            .map_err(|error| Error(format!("cannot start the committer: {error}")))?;
        Ok(Self { shared, queue: Some(queue), committer: Some(committer), visible })
    }

    /// Leaves out the next `count` positions of the database in `path`, which nobody has open; gives the last position
    /// left out. For a copy that is put back: what was given out after it was made is not given out again.
    pub fn skip(
        path: &Path,
        options: &Options,
        class: fn(u8) -> Class,
        count: u64,
    ) -> Result<Position, Error> {
        let shared = Shared::open(path, options, class)?;
        let last = Position(read::last_position(&shared)?.0.saturating_add(count));
        let mut durably = WriteOptions::default();
        durably.set_sync(true);
        let family = shared.family(read::POSITION)?;
        shared.db.put_cf_opt(&family, read::POSITION, last.0.to_be_bytes(), &durably).map_err(failure)?;
        Ok(last)
    }

    /// Writes out what is in memory, compacts everything, and says how many bytes each column family takes on
    /// disk. Slow: for measurements and maintenance.
    pub fn compacted_bytes(&self) -> Result<Vec<(&'static str, u64)>, Error> {
        options::FAMILIES.into_iter().map(|name| Ok((name, self.compact(name)?))).collect()
    }

    fn compact(&self, name: &str) -> Result<u64, Error> {
        let family = self.shared.db.cf_handle(name).ok_or_else(|| Error(format!("{name} is missing")))?;
        self.shared.db.flush_cf(&family).map_err(failure)?;
        self.shared.db.compact_range_cf(&family, None::<&[u8]>, None::<&[u8]>);
        let size = self.shared.db.property_int_value_cf(&family, "rocksdb.live-sst-files-size");
        Ok(size.map_err(failure)?.unwrap_or(0))
    }
}

#[async_trait]
impl Engine for Rocks {
    fn snapshot(&self) -> Box<dyn Snapshot + '_> {
        Box::new(read::Moment::new(&self.shared))
    }

    async fn commit(&self, batch: Batch) -> Result<Position, CommitError> {
        let (answer, answered) = oneshot::channel();
        let closed = || Error("the committer has stopped".to_owned());
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        queue.send(Request { batch, answer }).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    fn visible(&self) -> watch::Receiver<Position> {
        self.visible.clone()
    }

    async fn copy_to(&self, to: &Path) -> Result<(), Error> {
        read::off_the_thread(|| {
            let checkpoint = Checkpoint::new(&self.shared.db).map_err(failure)?;
            checkpoint.create_checkpoint(to).map_err(failure)
        })
    }
}

impl Drop for Rocks {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(committer) = self.committer.take() {
            // A committer that died has already answered its writers with an error.
            let _ = committer.join();
        }
    }
}

impl std::fmt::Debug for Rocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rocks")
    }
}

fn failure(error: rocksdb::Error) -> Error {
    Error(error.into_string())
}

#[cfg(test)]
mod tests;
