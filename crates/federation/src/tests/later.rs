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
};
use chappe_world::{FakeNet, Fate};
use ruma::OwnedEventId;

use super::{Server, config, couple, eventually};

/// Servers of which one, started again, has kept an event of the other, which rests on one that it does not have.
struct Kept {
    b: Server,
    missed: OwnedEventId,
    kept: OwnedEventId,
    /// Whether the other server can be reached. It sends nothing itself.
    is_up: Arc<AtomicBool>,
    /// How often it was asked for events.
    asked: Arc<AtomicUsize>,
}

async fn kept(net: &FakeNet) -> Kept {
    let (a, b, room) = couple(net).await;
    eventually("quiet", async || a.waiting(&b).await == 0 && b.waiting(&a).await == 0).await;
    let (is_up, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (up, count) = (Arc::clone(&is_up), Arc::clone(&asked));
    net.judge(move |from, to, request| {
        if to == "a.example" && request.uri().path().contains("get_missing_events") {
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
    b.store.commit(tx).await.unwrap();
    let b = Server::build(net, "b.example", 2, config(), b.store.clone());
    b.federation.start();
    eventually("it is tried", async || asked.load(SeqCst) > 0).await;
    Kept { b, missed, kept, is_up, asked }
}

async fn rows(server: &Server) -> usize {
    let rows = server.store.read().scan::<ReceivedLater>(&(), Direction::Forward, 9).await;
    rows.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_completed_is_tried_again() {
    let net = FakeNet::new();
    let Kept { b, missed, kept, is_up, asked } = kept(&net).await;
    eventually("it is tried again", async || asked.load(SeqCst) > 1).await;
    assert!(!b.has(&kept).await);
    assert_eq!(rows(&b).await, 1);
    is_up.store(true, SeqCst);
    eventually("it is taken", async || b.has(&kept).await && b.has(&missed).await).await;
    eventually("nothing is kept any more", async || rows(&b).await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_completed_is_given_up() {
    let net = FakeNet::new();
    let Kept { b, kept, .. } = kept(&net).await;
    tokio::time::sleep(Duration::from_hours(2)).await;
    assert_eq!(rows(&b).await, 0);
    assert!(!b.has(&kept).await);
}
