//! Reads of one moment and writes that are one batch, in the types of the tables.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use chappe_kv::{Batch, Change, CommitError, Db, Direction, Expectation, Position, Range, Snapshot, Stamped};
use tokio::sync::watch;

use crate::{
    Entry, LogEntry,
    cache::Cache,
    key::{Key, KeyReader, KeyWriter},
    log::{Index, Log},
    migrate,
    table::Table,
    value::{At, Json, Value},
};

/// Why the store could not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Another writer was first: read again, decide again, try again.
    #[error("another writer was first")]
    Conflict,
    /// What is stored cannot be read: a defect or a damaged disk, never a client's fault.
    #[error("stored data is damaged: {0}")]
    Corrupt(&'static str),
    /// It was there and has been removed for good: what names it is older.
    #[error("this has been removed")]
    Gone,
    /// The disk was written by a newer release; this one must not touch it.
    #[error("the data has format {found}, this release knows formats up to {known}")]
    NewerFormat {
        /// Format on disk.
        found: u32,
        /// Newest format this release knows.
        known: u32,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] chappe_kv::Error),
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict => Self::Conflict,
            CommitError::Engine(error) => Self::Engine(error),
        }
    }
}

/// The store: a handle, clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    db: Db,
    cache: Arc<Cache>,
}

impl Store {
    /// A store on an engine, its format unchecked: for tests, tools and a look at whose it is. A server uses [`Store::open`].
    pub fn new(db: Db) -> Self {
        Self { db, cache: Arc::new(Cache::new()) }
    }

    /// A store on an engine: writes the format version at first use, brings an older format up to date.
    pub async fn open(db: Db) -> Result<Self, Error> {
        let store = Self::new(db);
        migrate::migrate(&store).await?;
        Ok(store)
    }

    /// A view of this moment. Short-lived: never kept across a wait for the network.
    pub fn read(&self) -> Reader<'_> {
        Reader { snapshot: self.db.snapshot().into(), cache: &self.cache }
    }

    /// Writes a transaction; durable when it answers.
    pub async fn commit(&self, tx: Tx) -> Result<Position, Error> {
        Ok(self.db.commit(tx.batch).await?)
    }

    /// What never changes, in memory; whoever removes it says so here.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Writes a copy of this moment into the folder `to`, which must not exist yet, while everything goes on.
    pub async fn copy_to(&self, to: &Path) -> Result<(), Error> {
        Ok(self.db.copy_to(to).await?)
    }

    /// The last visible position, watched.
    pub fn visible(&self) -> watch::Receiver<Position> {
        self.db.visible()
    }
}

/// The key of `T` as bytes, table number first.
fn encode<T: Table>(key: &T::Key) -> Bytes {
    prefix_of::<T>(key)
}

fn prefix_of<T: Table>(prefix: &impl Key) -> Bytes {
    let mut writer = KeyWriter(vec![T::INFO.number]);
    prefix.write(&mut writer);
    writer.0.into()
}

fn decode<T: Table>(key: &[u8]) -> Result<T::Key, Error> {
    T::Key::read(&mut KeyReader(key.get(1..).ok_or(Error::Corrupt("empty key"))?))
}

/// Values of two tables, in the order of their keys.
type Found<A, B> = (Vec<Option<<A as Table>::Value>>, Vec<Option<<B as Table>::Value>>);

fn values<T: Table>(found: Vec<Option<Bytes>>) -> Result<Vec<Option<T::Value>>, Error> {
    found.into_iter().map(|v| v.map(|bytes| T::Value::from_bytes(&bytes)).transpose()).collect()
}

/// One moment of the store; clones share it.
#[derive(Clone)]
pub struct Reader<'a> {
    snapshot: Arc<dyn Snapshot + 'a>,
    /// What never changes once it is there.
    pub(crate) cache: &'a Cache,
}

impl Reader<'_> {
    /// Every commit up to this position is visible, none beyond.
    pub fn position(&self) -> Position {
        self.snapshot.position()
    }

    /// One value.
    pub async fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>, Error> {
        let found = self.snapshot.get(&[encode::<T>(key)]).await?;
        found.into_iter().next().flatten().map(|bytes| T::Value::from_bytes(&bytes)).transpose()
    }

    /// Several values of one table, in the order of the keys: one round trip.
    pub async fn get_many<T: Table>(&self, keys: &[T::Key]) -> Result<Vec<Option<T::Value>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<Bytes> = keys.iter().map(encode::<T>).collect();
        values::<T>(self.snapshot.get(&keys).await?)
    }

    /// What `read` takes from several values of one table, in the order of the keys: one round trip.
    pub(crate) async fn get_parts<T: Table, V>(
        &self,
        keys: &[T::Key],
        read: impl Fn(&[u8]) -> Result<V, Error>,
    ) -> Result<Vec<Option<V>>, Error> {
        let keys: Vec<Bytes> = keys.iter().map(encode::<T>).collect();
        let found = self.snapshot.get(&keys).await?;
        found.into_iter().map(|v| v.map(|bytes| read(&bytes)).transpose()).collect()
    }

    /// Values of two tables, each in the order of its keys: one round trip.
    pub async fn get_both<A: Table, B: Table>(
        &self,
        first: &[A::Key],
        second: &[B::Key],
    ) -> Result<Found<A, B>, Error> {
        let keys: Vec<Bytes> = first.iter().map(encode::<A>).chain(second.iter().map(encode::<B>)).collect();
        let mut found = self.snapshot.get(&keys).await?;
        let rest = found.split_off(first.len());
        Ok((values::<A>(found)?, values::<B>(rest)?))
    }

    /// Up to `limit` rows whose key begins with `prefix` (a leading part of the key's tuple).
    pub async fn scan<T: Table>(
        &self,
        prefix: &impl Key,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(T::Key, T::Value)>, Error> {
        self.scan_range::<T>(&Range::prefix(&prefix_of::<T>(prefix)), direction, limit).await
    }

    /// Up to `limit` rows from `from` (included) on to the end of `prefix`, forward.
    pub async fn scan_from<T: Table>(
        &self,
        prefix: &impl Key,
        from: &impl Key,
        limit: usize,
    ) -> Result<Vec<(T::Key, T::Value)>, Error> {
        let mut range = Range::prefix(&prefix_of::<T>(prefix));
        range.from = prefix_of::<T>(from);
        self.scan_range::<T>(&range, Direction::Forward, limit).await
    }

    /// Up to `limit` rows from the first of `prefix` on and below `before` (excluded), backward.
    pub async fn scan_back<T: Table>(
        &self,
        prefix: &impl Key,
        before: &impl Key,
        limit: usize,
    ) -> Result<Vec<(T::Key, T::Value)>, Error> {
        let mut range = Range::prefix(&prefix_of::<T>(prefix));
        range.to = prefix_of::<T>(before);
        self.scan_range::<T>(&range, Direction::Backward, limit).await
    }

    /// Every row of `prefix`, forward, a page at a time.
    pub async fn scan_all<T: Table>(&self, prefix: &impl Key) -> Result<Vec<(T::Key, T::Value)>, Error> {
        self.scan_pages::<T>(Range::prefix(&prefix_of::<T>(prefix))).await
    }

    /// Every row from the prefix `from` (included) to the prefix `to` (excluded), forward, a page at a time.
    pub async fn scan_between<T: Table>(
        &self,
        from: &impl Key,
        to: &impl Key,
    ) -> Result<Vec<(T::Key, T::Value)>, Error> {
        self.scan_pages::<T>(Range { from: prefix_of::<T>(from), to: prefix_of::<T>(to) }).await
    }

    async fn scan_pages<T: Table>(&self, mut range: Range) -> Result<Vec<(T::Key, T::Value)>, Error> {
        const PAGE: usize = 5_000;
        let mut all = Vec::new();
        loop {
            let page = self.snapshot.scan(&range, Direction::Forward, PAGE).await?;
            for (key, value) in &page.rows {
                all.push((decode::<T>(key)?, T::Value::from_bytes(value)?));
            }
            let Some((last, _)) = page.rows.last().filter(|_| page.more) else { return Ok(all) };
            range.from = [last, &[0][..]].concat().into();
        }
    }

    async fn scan_range<T: Table>(
        &self,
        range: &Range,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(T::Key, T::Value)>, Error> {
        let page = self.snapshot.scan(range, direction, limit).await?;
        page.rows.iter().map(|(k, v)| Ok((decode::<T>(k)?, T::Value::from_bytes(v)?))).collect()
    }

    /// About `limit` log entries after `after`, never part of a commit. The first follower that asks reads them for all.
    pub async fn log_after(&self, after: Position, limit: usize) -> Result<Vec<Entry>, Error> {
        if let Some(entries) = self.cache.tail.lock().between(after, self.position(), limit) {
            return Ok(entries);
        }
        let entries = self.read_log(after, limit).await?;
        if entries.len() < limit {
            self.cache.tail.lock().extend(after, self.position(), &entries);
        }
        Ok(entries)
    }

    async fn read_log(&self, after: Position, limit: usize) -> Result<Vec<Entry>, Error> {
        let mut rows = self.scan_from::<Log>(&(), &(after.0 + 1), limit).await?;
        if rows.len() == limit
            && let Some(((cut, _), _)) = rows.pop()
        {
            rows.retain(|((position, _), _)| *position < cut);
            rows.extend(self.scan_all::<Log>(&cut).await?);
        }
        let entry = |((position, _), Json(what))| Entry { position: Position(position), what };
        Ok(rows.into_iter().map(entry).collect())
    }
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader at {}", self.position())
    }
}

/// A transaction in the making: expectations and changes, written together by [`Store::commit`].
#[derive(Debug, Default)]
pub struct Tx {
    batch: Batch,
    logged: u32,
}

impl Tx {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing would be written.
    pub fn is_empty(&self) -> bool {
        self.batch.changes.is_empty()
    }

    /// The bytes of all keys and values to be written so far.
    pub fn size(&self) -> usize {
        self.batch.size()
    }

    /// Conflict if the key has a value by then.
    pub fn expect_absent<T: Table>(&mut self, key: &T::Key) -> &mut Self {
        self.batch.expectations.push(Expectation::Absent(encode::<T>(key)));
        self
    }

    /// Conflict if the key's value is another one by then; `None` expects it absent.
    pub fn expect<T: Table>(&mut self, key: &T::Key, value: Option<&T::Value>) -> &mut Self {
        let key = encode::<T>(key);
        self.batch.expectations.push(match value {
            None => Expectation::Absent(key),
            Some(value) => Expectation::Value(key, value.to_bytes().into()),
        });
        self
    }

    /// Sets a key.
    pub fn put<T: Table>(&mut self, key: &T::Key, value: &T::Value) -> &mut Self {
        let key = Stamped::from(encode::<T>(key).to_vec());
        self.batch.changes.push(Change::Put(key, value.to_bytes().into()));
        self
    }

    /// Sets a key whose value is the commit's position.
    pub fn put_position<T: Table<Value = u64>>(&mut self, key: &T::Key) -> &mut Self {
        let mut value = Stamped::default();
        value.push_position();
        self.batch.changes.push(Change::Put(Stamped::from(encode::<T>(key).to_vec()), value));
        self
    }

    /// Sets the key `(prefix…, position of this commit, suffix…)`.
    pub fn put_at_position<T: Table>(
        &mut self,
        prefix: &impl Key,
        suffix: &impl Key,
        value: &T::Value,
    ) -> &mut Self {
        let mut key = Stamped::from(prefix_of::<T>(prefix).to_vec());
        key.push_position();
        let mut writer = KeyWriter::default();
        suffix.write(&mut writer);
        key.push(&writer.0);
        self.batch.changes.push(Change::Put(key, value.to_bytes().into()));
        self
    }

    /// Sets a key to `(position of this commit, 8 bytes big-endian) ++ rest`; the value type decodes that layout.
    pub fn put_stamped<T: Table>(&mut self, key: &T::Key, rest: &[u8]) -> &mut Self {
        let mut value = Stamped::default();
        value.push_position();
        value.push(rest);
        self.batch.changes.push(Change::Put(Stamped::from(encode::<T>(key).to_vec()), value));
        self
    }

    /// As [`Tx::put_stamped`], with the position once more at the end.
    pub(crate) fn put_stamped_twice<T: Table>(&mut self, key: &T::Key, rest: &[u8]) -> &mut Self {
        let mut value = Stamped::default();
        value.push_position();
        value.push(rest);
        value.push_position();
        self.batch.changes.push(Change::Put(Stamped::from(encode::<T>(key).to_vec()), value));
        self
    }

    /// Sets a key to a value that carries the position of this commit.
    pub fn put_now<T: Table<Value = At<V>>, V: Value>(&mut self, key: &T::Key, value: &V) -> &mut Self {
        self.put_stamped::<T>(key, &value.to_bytes())
    }

    /// Removes a key.
    pub fn delete<T: Table>(&mut self, key: &T::Key) -> &mut Self {
        self.batch.changes.push(Change::Delete(encode::<T>(key)));
        self
    }

    /// Removes every key that begins with `prefix`.
    pub fn delete_prefix<T: Table>(&mut self, prefix: &impl Key) -> &mut Self {
        self.batch.changes.push(Change::DeleteRange(Range::prefix(&prefix_of::<T>(prefix))));
        self
    }

    /// Removes the keys from `from` (included) to `to` (excluded).
    pub fn delete_between<T: Table>(&mut self, from: &impl Key, to: &impl Key) -> &mut Self {
        let range = Range { from: prefix_of::<T>(from), to: prefix_of::<T>(to) };
        self.batch.changes.push(Change::DeleteRange(range));
        self
    }

    /// Adds to a counter.
    pub fn add<T: Table<Value = i64>>(&mut self, key: &T::Key, delta: i64) -> &mut Self {
        self.batch.changes.push(Change::Add(encode::<T>(key), delta));
        self
    }

    /// How many log entries there are so far: the index of the next one.
    pub(crate) fn logged(&self) -> Index {
        Index(self.logged)
    }

    /// Says in the log what happened.
    pub fn log(&mut self, what: LogEntry) -> &mut Self {
        let index = self.logged();
        self.logged = self.logged.checked_add(1).expect("what is written fits into memory");
        self.put_at_position::<Log>(&(), &index, &Json(what))
    }
}
