//! The engine against the contract, and across restarts.

use chappe_kv::{Batch, Change, Class, Db, Position, conformance};
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
