//! Reads: from memory on the caller's thread, from the disk where waiting harms nobody.

use async_trait::async_trait;
use bytes::Bytes;
use chappe_kv::{Direction, Error, Page, Position, Range, Snapshot};
use rocksdb::{DB, ErrorKind, ReadOptions, ReadTier, SnapshotWithThreadMode};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::{Shared, failure};

/// The engine's own key: the last position, 8 bytes big-endian. Table 0 belongs to the engine.
pub(crate) const POSITION: &[u8] = &[0];

/// The position of the newest commit on disk.
pub(crate) fn last_position(shared: &Shared) -> Result<Position, Error> {
    let value = shared.db.get_cf(&shared.family(POSITION)?, POSITION).map_err(failure)?;
    position(value.as_deref())
}

fn position(value: Option<&[u8]>) -> Result<Position, Error> {
    let Some(value) = value else { return Ok(Position(0)) };
    let bytes = value.try_into().map_err(|_| Error("the stored position is damaged".to_owned()))?;
    Ok(Position(u64::from_be_bytes(bytes)))
}

/// One moment of the database.
pub(crate) struct Moment<'a> {
    shared: &'a Shared,
    snapshot: SnapshotWithThreadMode<'a, DB>,
}

impl<'a> Moment<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Self {
        Self { shared, snapshot: shared.db.snapshot() }
    }

    fn read(&self, keys: &[Bytes], tier: ReadTier) -> Result<Vec<Option<Bytes>>, Missed> {
        match tier {
            ReadTier::BlockCache => keys.iter().map(|key| self.cached(key)).collect(),
            _ => self.read_all(keys),
        }
    }

    /// Asked for several keys, RocksDB answers from memory with empty values where it would have to look at the disk;
    /// asked for one, it says so.
    fn cached(&self, key: &Bytes) -> Result<Option<Bytes>, Missed> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::BlockCache);
        let found = self.snapshot.get_cf_opt(&self.shared.family(key)?, key, options)?;
        Ok(found.map(Bytes::from))
    }

    fn read_all(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Missed> {
        let families =
            keys.iter().map(|key| Ok((self.shared.family(key)?, key))).collect::<Result<Vec<_>, Error>>()?;
        let keys = families.iter().map(|(family, key)| (family, key));
        let found = self.snapshot.multi_get_cf_opt(keys, ReadOptions::default());
        found.into_iter().map(|value| Ok(value?.map(Bytes::from))).collect()
    }

    fn walk(
        &self,
        range: &Range,
        direction: Direction,
        limit: usize,
        tier: ReadTier,
    ) -> Result<Page, Missed> {
        if range.from >= range.to {
            return Ok(Page::default());
        }
        let mut options = ReadOptions::default();
        options.set_read_tier(tier);
        options.set_iterate_lower_bound(&range.from[..]);
        options.set_iterate_upper_bound(&range.to[..]);
        let mut rows = self.snapshot.raw_iterator_cf_opt(&self.shared.family(&range.from)?, options);
        match direction {
            Direction::Forward => rows.seek_to_first(),
            Direction::Backward => rows.seek_to_last(),
        }
        let mut page = Page::default();
        while let Some((key, value)) = rows.item() {
            if page.rows.len() == limit {
                page.more = true;
                break;
            }
            page.rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            match direction {
                Direction::Forward => rows.next(),
                Direction::Backward => rows.prev(),
            }
        }
        rows.status()?;
        Ok(page)
    }
}

/// A read that memory alone could not answer, or that failed.
enum Missed {
    Cache,
    Failed(Error),
}

impl From<rocksdb::Error> for Missed {
    fn from(error: rocksdb::Error) -> Self {
        match error.kind() {
            ErrorKind::Incomplete => Self::Cache,
            _ => Self::Failed(failure(error)),
        }
    }
}

impl From<Error> for Missed {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Tries memory first; what needs the disk runs where the runtime lets other tasks go on.
fn read_through<T>(read: impl Fn(ReadTier) -> Result<T, Missed>) -> Result<T, Error> {
    match read(ReadTier::BlockCache) {
        Ok(found) => return Ok(found),
        Err(Missed::Failed(error)) => return Err(error),
        Err(Missed::Cache) => {}
    }
    let from_disk = || match read(ReadTier::All) {
        Ok(found) => Ok(found),
        Err(Missed::Failed(error)) => Err(error),
        Err(Missed::Cache) => Err(Error("the disk answered like a cache".to_owned())),
    };
    off_the_thread(from_disk)
}

/// What is in memory is read at once: whoever reads for long gives way to other tasks now and then.
async fn let_others_run() {
    tokio::task::coop::consume_budget().await;
}

/// Does something slow where the runtime lets other tasks go on.
pub(crate) fn off_the_thread<T>(slow: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(slow),
        _ => slow(),
    }
}

#[async_trait]
impl Snapshot for Moment<'_> {
    fn position(&self) -> Position {
        let value = self
            .shared
            .family(POSITION)
            .and_then(|family| self.snapshot.get_cf(&family, POSITION).map_err(failure));
        value.and_then(|value| position(value.as_deref())).unwrap_or_else(|error| {
            // Claiming less than there is makes a reader look again; claiming more would lose events.
            tracing::error!(%error, "cannot read the position");
            Position(0)
        })
    }

    async fn get(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Error> {
        let_others_run().await;
        read_through(|tier| self.read(keys, tier))
    }

    async fn scan(&self, range: &Range, direction: Direction, limit: usize) -> Result<Page, Error> {
        let_others_run().await;
        read_through(|tier| self.walk(range, direction, limit, tier))
    }
}
