//! The engine against the contract, and across restarts.

use chappe_kv::{Batch, Change, Class, Db, Direction, Position, Range, conformance};
use tempfile::TempDir;

use crate::{Options, Rocks};

fn class(table: u8) -> Class {
    match table {
        1 => Class::Index,
        2 => Class::Bulk,
        3 => Class::Queue,
        _ => Class::Point,
    }
}

fn open(folder: &TempDir) -> Db {
    Db::new(Rocks::open(folder.path(), &Options::default(), class).expect("opens"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let folders = std::sync::Mutex::new(Vec::new());
    conformance::run(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let db = open(&folder);
        folders.lock().expect("not poisoned").push(folder);
        db
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equals_an_ordered_map_across_restarts() {
    for seed in 0..5 {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let reopen = async |db: Db| {
            drop(db);
            open(&folder)
        };
        conformance::model(open(&folder), seed, 100, reopen).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_go_on_after_a_restart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let db = open(&folder);
    for expected in 1..=3 {
        let batch = Batch {
            expectations: Vec::new(),
            changes: vec![Change::Put(vec![1, expected].into(), Vec::new().into())],
        };
        assert_eq!(db.commit(batch).await.expect("commits"), Position(expected.into()));
    }
    drop(db);
    let db = open(&folder);
    assert_eq!(*db.visible().borrow(), Position(3));
    assert_eq!(db.commit(Batch::default()).await.expect("commits"), Position(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_holds_what_was_answered_before_and_nothing_after() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let db = open(&folder);
    let put = async |row: u8| {
        let key = |table: u8| Change::Put(vec![table, row].into(), vec![row].into());
        let batch = Batch { expectations: Vec::new(), changes: (1..=4).map(key).collect() };
        db.commit(batch).await.expect("commits");
    };
    for row in 0..50 {
        put(row).await;
    }
    let copies = tempfile::tempdir().expect("a temporary folder");
    let to = copies.path().join("copy");
    db.copy_to(&to).await.expect("copies");
    put(200).await;
    assert!(db.copy_to(&to).await.is_err(), "a folder that exists is left alone");

    let left_out = Rocks::skip(&to, &Options::default(), class, 1_000).expect("skips");
    assert_eq!(left_out, Position(1_050));
    let copy = Db::new(Rocks::open(&to, &Options::default(), class).expect("opens"));
    for table in 1..=4 {
        let range = Range { from: vec![table].into(), to: vec![table + 1].into() };
        let page = copy.snapshot().scan(&range, Direction::Forward, 100).await.expect("scans");
        assert_eq!(page.rows.len(), 50);
    }
    assert_eq!(copy.commit(Batch::default()).await.expect("commits"), Position(1_051));
    assert_eq!(*db.visible().borrow(), Position(51), "the original goes its own way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_in_memory_is_read_from_the_disk() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = |table: u8, n: u32| bytes::Bytes::from([&[table][..], &n.to_be_bytes()].concat());
    let value = |n: u32| bytes::Bytes::from(n.to_string().repeat(20));
    let db = open(&folder);
    for table in 1..=4 {
        let put = |n: u32| Change::Put(key(table, 2 * n).to_vec().into(), value(n).to_vec().into());
        let changes = (0..5_000).map(put).collect();
        db.commit(Batch { expectations: Vec::new(), changes }).await.expect("commits");
    }
    drop(db);
    // Nothing is in the cache now. Every other key is absent.
    for table in 1..=4 {
        let db = open(&folder);
        let keys: Vec<bytes::Bytes> = (0..10_000_u32).step_by(7).map(|n| key(table, n)).collect();
        let found = db.snapshot().get(&keys).await.expect("reads");
        for (n, found) in (0..10_000_u32).step_by(7).zip(found) {
            assert_eq!(found, n.is_multiple_of(2).then(|| value(n / 2)), "key {n} of table {table}");
        }
    }
}
