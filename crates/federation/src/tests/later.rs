//! Events that were acknowledged and kept on disk when the server stopped.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use chappe_store::{
    Direction, Json, Tx,
    outbox::{Later, ReceivedLater},
    server_keys::ServerKeys,
};
use chappe_world::{FakeNet, Fate};
use ruma::OwnedEventId;

use super::{Server, config, couple, eventually};

/// Servers of which one, started again, has kept an event of the other, which rests on one that it does not have.
struct Waiting {
    b: Server,
    missed: OwnedEventId,
    kept: OwnedEventId,
    /// Whether the other server can be reached. It sends nothing itself.
    is_up: Arc<AtomicBool>,
    /// How often it was asked for events or its keys.
    asked: Arc<AtomicUsize>,
}

async fn kept(net: &FakeNet, knows_keys: bool) -> Waiting {
    let (a, b, room) = couple(net).await;
    eventually("quiet", async || a.waiting(&b).await == 0 && b.waiting(&a).await == 0).await;
    let (is_up, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (up, count) = (Arc::clone(&is_up), Arc::clone(&asked));
    net.judge(move |from, to, request| {
        let path = request.uri().path();
        if to == "a.example" && (path.contains("get_missing_events") || path.contains("key/v2/server")) {
            count.fetch_add(1, Relaxed);
        }
        let passes = from != "a.example" && (to != "a.example" || up.load(SeqCst));
        if passes { Fate::Deliver } else { Fate::Unreachable }
    });
    let missed = a.say("alice", &room, "missed").await;
    let kept = a.say("alice", &room, "kept").await;
    let reader = a.store.read();
    let (nid, num) = reader.event_address(&kept).await.unwrap().unwrap();
    let pdu = reader.pdu(nid, num).await.unwrap().json.to_string();
    drop(reader);
    b.world.kill();
    let mut tx = Tx::new();
    let later = Later { origin: a.name.clone(), pdu };
    tx.put_at_position::<ReceivedLater>(&room.to_string(), &0u16, &Json(later));
    if !knows_keys {
        tx.delete_prefix::<ServerKeys>(&a.name);
    }
    b.store.commit(tx).await.unwrap();
    let b = Server::build(net, "b.example", 2, config(), b.store.clone());
    b.federation.start();
    eventually("it is tried", async || asked.load(SeqCst) > 0).await;
    Waiting { b, missed, kept, is_up, asked }
}

async fn rows(server: &Server) -> usize {
    let rows = server.store.read().scan::<ReceivedLater>(&(), Direction::Forward, 9).await;
    rows.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_completed_is_tried_again() {
    let net = FakeNet::new();
    let Waiting { b, missed, kept, is_up, asked } = kept(&net, true).await;
    eventually("it is tried again", async || asked.load(SeqCst) > 1).await;
    assert!(!b.has(&kept).await);
    assert_eq!(rows(&b).await, 1);
    is_up.store(true, SeqCst);
    eventually("it is taken", async || b.has(&kept).await && b.has(&missed).await).await;
    eventually("nothing is kept any more", async || rows(&b).await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_signed_with_a_key_that_cannot_be_had_yet_is_tried_again() {
    let net = FakeNet::new();
    let Waiting { b, missed, kept, is_up, .. } = kept(&net, false).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(rows(&b).await, 1);
    is_up.store(true, SeqCst);
    eventually("it is taken", async || b.has(&kept).await && b.has(&missed).await).await;
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_completed_is_given_up() {
    let net = FakeNet::new();
    let Waiting { b, kept, .. } = kept(&net, true).await;
    tokio::time::sleep(Duration::from_hours(2)).await;
    assert_eq!(rows(&b).await, 0);
    assert!(!b.has(&kept).await);
}
