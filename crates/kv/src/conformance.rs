//! What every engine must do: one suite, run against each of them.
//!
//! [`run`] takes a function that makes an empty engine; [`model`] compares an engine with a plain ordered map
//! under random batches. Both assert, so call them from tests.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::{Batch, Change, CommitError, Db, Direction, Expectation, Position, Range, Stamped};

/// Runs every check, each on a database of its own.
pub async fn run(empty: impl Fn() -> Db) {
    first_position_is_one(empty()).await;
    a_batch_is_whole_or_absent(empty()).await;
    changes_apply_in_order(empty()).await;
    stamps_carry_the_position(empty()).await;
    counters_add(empty()).await;
    snapshots_do_not_move(empty()).await;
    scans_page_in_both_directions(empty()).await;
    expectations_see_every_earlier_commit(empty()).await;
    positions_become_visible_in_order(empty()).await;
}

/// A batch of plain puts.
fn puts(rows: &[(&[u8], &[u8])]) -> Batch {
    let changes = rows.iter().map(|(k, v)| Change::Put(k.to_vec().into(), v.to_vec().into())).collect();
    Batch { expectations: Vec::new(), changes }
}

fn key(bytes: &'static [u8]) -> Bytes {
    Bytes::from_static(bytes)
}

async fn read(db: &Db, key: &'static [u8]) -> Option<Bytes> {
    let found = db.snapshot().get(&[Bytes::from_static(key)]).await.expect("reads succeed");
    found.into_iter().next().expect("one answer for one key")
}

async fn first_position_is_one(db: Db) {
    assert_eq!(db.snapshot().position(), Position(0));
    assert_eq!(*db.visible().borrow(), Position(0));
    assert_eq!(db.commit(Batch::default()).await.expect("commits"), Position(1));
    assert_eq!(db.snapshot().position(), Position(1));
    assert_eq!(*db.visible().borrow(), Position(1));
}

async fn a_batch_is_whole_or_absent(db: Db) {
    db.commit(puts(&[(b"\x01a", b"1")])).await.expect("commits");
    let mut batch = puts(&[(b"\x01a", b"2"), (b"\x02b", b"2")]);
    batch.expectations.push(Expectation::Value(key(b"\x01a"), key(b"other")));
    assert!(matches!(db.commit(batch.clone()).await, Err(CommitError::Conflict)));
    assert_eq!(read(&db, b"\x01a").await, Some(key(b"1")));
    assert_eq!(read(&db, b"\x02b").await, None);

    batch.expectations =
        vec![Expectation::Value(key(b"\x01a"), key(b"1")), Expectation::Absent(key(b"\x02b"))];
    assert_eq!(db.commit(batch.clone()).await.expect("commits"), Position(2), "a conflict takes no position");
    assert_eq!(read(&db, b"\x02b").await, Some(key(b"2")));
    assert!(matches!(db.commit(batch).await, Err(CommitError::Conflict)));
}

async fn changes_apply_in_order(db: Db) {
    let mut batch = puts(&[(b"\x01a", b"1"), (b"\x01b", b"1"), (b"\x01c", b"1")]);
    batch.changes.push(Change::DeleteRange(Range { from: key(b"\x01a"), to: key(b"\x01c") }));
    batch.changes.push(Change::Put(b"\x01b".to_vec().into(), b"2".to_vec().into()));
    batch.changes.push(Change::Delete(key(b"\x01c")));
    db.commit(batch).await.expect("commits");
    assert_eq!(read(&db, b"\x01a").await, None);
    assert_eq!(read(&db, b"\x01b").await, Some(key(b"2")));
    assert_eq!(read(&db, b"\x01c").await, None);
}

async fn stamps_carry_the_position(db: Db) {
    db.commit(Batch::default()).await.expect("commits");
    let mut stamped_key = Stamped::from(b"\x01k".to_vec());
    stamped_key.push_position();
    let mut value = Stamped::default();
    value.push(b"<");
    value.push_position();
    value.push(b">");
    let batch = Batch { expectations: Vec::new(), changes: vec![Change::Put(stamped_key, value)] };
    db.commit(batch).await.expect("commits");
    let found = read(&db, b"\x01k\0\0\0\0\0\0\0\x02").await;
    assert_eq!(found, Some(key(b"<\0\0\0\0\0\0\0\x02>")));
}

async fn counters_add(db: Db) {
    let add = |delta| Change::Add(key(b"\x01n"), delta);
    let batch = Batch { expectations: Vec::new(), changes: vec![add(5), add(-7)] };
    db.commit(batch).await.expect("commits");
    let batch = Batch { expectations: Vec::new(), changes: vec![add(1)] };
    db.commit(batch).await.expect("commits");
    let found = read(&db, b"\x01n").await.expect("counter exists");
    assert_eq!(found[..], (-1_i64).to_be_bytes());
}

async fn snapshots_do_not_move(db: Db) {
    db.commit(puts(&[(b"\x01a", b"1"), (b"\x01b", b"1")])).await.expect("commits");
    let snapshot = db.snapshot();
    db.commit(puts(&[(b"\x01a", b"2"), (b"\x01c", b"2")])).await.expect("commits");
    assert_eq!(snapshot.position(), Position(1));
    let found = snapshot.get(&[key(b"\x01a"), key(b"\x01c")]).await.expect("reads");
    assert_eq!(found, [Some(key(b"1")), None]);
    let page = snapshot.scan(&Range::prefix(b"\x01"), Direction::Forward, 9).await.expect("reads");
    assert_eq!(page.rows, [(key(b"\x01a"), key(b"1")), (key(b"\x01b"), key(b"1"))]);
}

async fn scans_page_in_both_directions(db: Db) {
    db.commit(puts(&[
        (b"\x01z", b"0"),
        (b"\x02a", b"1"),
        (b"\x02b", b"2"),
        (b"\x02c", b"3"),
        (b"\x03", b"4"),
    ]))
    .await
    .expect("commits");
    let snapshot = db.snapshot();
    let all = Range::prefix(b"\x02");
    let page = snapshot.scan(&all, Direction::Forward, 2).await.expect("reads");
    assert!(page.more);
    assert_eq!(page.rows, [(key(b"\x02a"), key(b"1")), (key(b"\x02b"), key(b"2"))]);
    let page = snapshot.scan(&all, Direction::Backward, 3).await.expect("reads");
    assert!(!page.more);
    assert_eq!(page.rows[0], (key(b"\x02c"), key(b"3")));
    assert_eq!(page.rows[2], (key(b"\x02a"), key(b"1")));
    let none = Range { from: key(b"\x02aa"), to: key(b"\x02b") };
    assert!(snapshot.scan(&none, Direction::Backward, 9).await.expect("reads").rows.is_empty());
}

/// Eight writers increment one value with read, expect, retry: nothing is lost.
async fn expectations_see_every_earlier_commit(db: Db) {
    let increment = async || loop {
        let before = read(&db, b"\x01n").await;
        let number = before.as_ref().map_or(0, |value| value[0]);
        let mut batch = puts(&[(b"\x01n", &[number + 1])]);
        batch.expectations.push(match before {
            None => Expectation::Absent(key(b"\x01n")),
            Some(value) => Expectation::Value(key(b"\x01n"), value),
        });
        match db.commit(batch).await {
            Ok(_) => break,
            Err(CommitError::Conflict) => {}
            Err(error) => panic_with(&error),
        }
    };
    for _ in 0..8 {
        join_all((0..8).map(|_| increment())).await;
    }
    assert_eq!(read(&db, b"\x01n").await, Some(key(&[64])));
}

fn panic_with(error: &CommitError) {
    assert!(error.to_string().is_empty(), "the engine failed: {error}");
}

/// Whenever position `n` is visible, a snapshot shows the rows of every commit up to `n`.
async fn positions_become_visible_in_order(db: Db) {
    let row = || {
        let mut stamped_key = Stamped::from(vec![1]);
        stamped_key.push_position();
        Batch { expectations: Vec::new(), changes: vec![Change::Put(stamped_key, Stamped::default())] }
    };
    let writer = async || {
        for _ in 0..20 {
            db.commit(row()).await.expect("commits");
            check_no_hole(&db).await;
        }
    };
    join_all((0..8).map(|_| writer())).await;
    assert_eq!(db.snapshot().position(), Position(160));
}

async fn check_no_hole(db: &Db) {
    let visible = *db.visible().borrow();
    let snapshot = db.snapshot();
    assert!(snapshot.position() >= visible);
    let page = snapshot.scan(&Range::prefix(&[1]), Direction::Forward, 1000).await.expect("reads");
    let rows: Vec<u64> = page
        .rows
        .iter()
        .map(|(k, _)| u64::from_be_bytes(k[1..].try_into().expect("eight bytes after the table")))
        .collect();
    let expected: Vec<u64> = (1..=snapshot.position().0).collect();
    assert_eq!(rows, expected);
}

/// Compares `db` with an ordered map under `steps` random batches from `seed`. `reopen` may close and open the
/// database again, as after a crash, and gives the handle to go on with.
pub async fn model(mut db: Db, seed: u64, steps: u32, reopen: impl AsyncFn(Db) -> Db) {
    let mut random = Random(seed);
    let mut map: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    for _ in 0..steps {
        let batch = random.batch(&map);
        let holds = batch.expectations.iter().all(|e| e.holds(map.get(e.key()).map(|v| &v[..])));
        match db.commit(batch.clone()).await {
            Ok(position) => {
                assert!(holds, "a commit with a broken expectation went through");
                batch.changes.into_iter().for_each(|change| apply(&mut map, change, position));
            }
            Err(CommitError::Conflict) => assert!(!holds, "a conflict where everything held"),
            Err(error) => panic_with(&error),
        }
        if random.below(20) == 0 {
            db = reopen(db).await;
        }
        let page =
            db.snapshot().scan(&Range::prefix(&[1]), Direction::Forward, 1 << 20).await.expect("reads");
        assert!(page.rows.iter().map(|(k, v)| (k, v)).eq(map.iter()), "seed {seed}");
    }
}

fn apply(map: &mut BTreeMap<Bytes, Bytes>, change: Change, position: Position) {
    match change {
        Change::Put(key, value) => {
            map.insert(key.fill(position), value.fill(position));
        }
        Change::Delete(key) => {
            map.remove(&key);
        }
        Change::DeleteRange(range) => map.retain(|key, _| !range.contains(key)),
        Change::Add(key, delta) => {
            let before = map.get(&key).and_then(|v| v[..].try_into().ok()).map_or(0, i64::from_be_bytes);
            map.insert(key, Bytes::copy_from_slice(&(before.wrapping_add(delta)).to_be_bytes()));
        }
    }
}

/// A splitmix generator: enough for choosing test steps, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One of few keys, so that steps meet each other. Counters live apart from plain values.
    fn key(&mut self) -> Bytes {
        let letter = b'a' + u8::try_from(self.below(6)).expect("below six");
        Bytes::copy_from_slice(&[1, b'k', letter])
    }

    fn batch(&mut self, map: &BTreeMap<Bytes, Bytes>) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..self.below(3) {
            let key = self.key();
            batch.expectations.push(match map.get(&key) {
                Some(value) if self.below(10) > 0 => Expectation::Value(key, value.clone()),
                None if self.below(10) == 0 => Expectation::Value(key, Bytes::from_static(b"never")),
                _ => Expectation::Absent(key),
            });
        }
        for _ in 0..=self.below(5) {
            let change = self.change();
            batch.changes.push(change);
        }
        batch
    }

    fn change(&mut self) -> Change {
        match self.below(6) {
            0 => Change::Delete(self.key()),
            1 => {
                let (a, b) = (self.key(), self.key());
                let (from, to) = if a <= b { (a, b) } else { (b, a) };
                Change::DeleteRange(Range { from, to })
            }
            2 => Change::Add(Bytes::from_static(&[1, b'n']), self.next().cast_signed() >> 40),
            _ => {
                let mut value = Stamped::from(self.next().to_be_bytes().to_vec());
                if self.below(2) == 0 {
                    value.push_position();
                }
                Change::Put(self.key().to_vec().into(), value)
            }
        }
    }
}
