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
use http::StatusCode;
use ruma::{OwnedEventId, RoomId};
use serde_json::value::RawValue;

use super::{Server, config, couple, eventually};
use crate::inbound::Received;

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
    b.world.kill();
    keep(&b, &a, &room, &kept).await;
    if !knows_keys {
        let mut tx = Tx::new();
        tx.delete_prefix::<ServerKeys>(&a.name);
        b.store.commit(tx).await.unwrap();
    }
    let b = Server::build(net, "b.example", 2, config(), b.store.clone());
    b.federation.start();
    eventually("it is tried", async || asked.load(SeqCst) > 0).await;
    Waiting { b, missed, kept, is_up, asked }
}

/// Has a server keep an event of another for later.
async fn keep(server: &Server, other: &Server, room: &RoomId, event: &OwnedEventId) {
    let pdu = text(other, event).await;
    let mut tx = Tx::new();
    let later = Later { origin: other.name.clone(), pdu };
    tx.put_at_position::<ReceivedLater>(&room.to_string(), &0u16, &Json(later));
    server.store.commit(tx).await.unwrap();
}

async fn text(server: &Server, event: &OwnedEventId) -> String {
    let reader = server.store.read();
    let (nid, num) = reader.event_address(event).await.unwrap().unwrap();
    reader.pdu(nid, num).await.unwrap().json.to_string()
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

#[tokio::test(start_paused = true)]
async fn what_was_kept_waits_until_it_is_known_who_is_of_the_network() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    eventually("quiet", async || a.waiting(&b).await == 0 && b.waiting(&a).await == 0).await;
    net.judge(|from, _, _| if from == "a.example" { Fate::Unreachable } else { Fate::Deliver });
    let kept = a.say("alice", &room, "kept").await;
    b.world.kill();
    keep(&b, &a, &room, &kept).await;
    let b = Server::build(&net, "b.example", 2, config(), b.store.clone());
    b.network.allowed().follow_network(std::iter::empty());
    b.federation.start();
    tokio::time::sleep(Duration::from_hours(2)).await;
    assert_eq!(rows(&b).await, 1, "nobody is judged while there is no list");
    assert!(!b.has(&kept).await);
    b.network.allowed().follow_network([&*a.name, &*b.name].into_iter());
    eventually("it is taken", async || b.has(&kept).await && rows(&b).await == 0).await;
    let reader = b.store.read();
    let (nid, num) = reader.event_address(&kept).await.unwrap().unwrap();
    assert_eq!(reader.event_meta(nid, num).await.unwrap().status, chappe_store::Status::Accepted);
}

/// Two servers, of which the second loses its network when it asks the first for what is before an event that it has received,
/// and gets no answer, soon or late. The transaction with that event, and whether the first can be asked.
async fn closing(net: &FakeNet, fate: Fate) -> (Server, Server, impl Fn() -> Received, Arc<AtomicBool>) {
    let (a, b, room) = couple(net).await;
    eventually("quiet", async || a.waiting(&b).await == 0 && b.waiting(&a).await == 0).await;
    let (is_up, allowed) = (Arc::new(AtomicBool::new(false)), b.network.allowed().clone());
    let up = Arc::clone(&is_up);
    net.judge(move |from, to, request| {
        if from == "a.example" {
            return Fate::Unreachable;
        }
        if to == "a.example" && request.uri().path().contains("get_missing_events") && !up.load(SeqCst) {
            allowed.follow_network(std::iter::empty());
            return fate;
        }
        Fate::Deliver
    });
    a.say("alice", &room, "missed").await;
    let event = a.say("alice", &room, "received").await;
    let (origin, pdu) = (a.name.clone(), text(&a, &event).await);
    let received = move || Received {
        origin: origin.clone(),
        id: "x".to_owned(),
        pdus: vec![RawValue::from_string(pdu.clone()).unwrap()],
        edus: Vec::new(),
    };
    (a, b, received, is_up)
}

async fn open(a: &Server, b: &Server, is_up: &AtomicBool) {
    is_up.store(true, SeqCst);
    tokio::time::sleep(Duration::from_mins(5)).await;
    b.network.allowed().follow_network([&*a.name, &*b.name].into_iter());
}

async fn last(server: &Server, received: &Received) -> bool {
    let pdu = chappe_rules::Pdu::parse(
        chappe_rules::version::rules(&ruma::RoomVersionId::V11).unwrap(),
        received.pdus[0].get().as_bytes(),
    );
    server.has(&pdu.unwrap().event_id().to_owned()).await
}

#[tokio::test(start_paused = true)]
async fn what_the_network_closes_over_comes_again() {
    let net = FakeNet::new();
    let (a, b, received, is_up) = closing(&net, Fate::Unreachable).await;
    let refused = b.federation.receive(received()).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
    open(&a, &b, &is_up).await;
    b.federation.receive(received()).await.unwrap();
    assert!(last(&b, &received()).await);
}

#[tokio::test(start_paused = true)]
async fn what_the_network_closes_over_is_kept_if_it_was_answered_for() {
    let net = FakeNet::new();
    let (a, b, received, is_up) = closing(&net, Fate::Lose).await;
    b.federation.receive(received()).await.unwrap();
    assert_eq!(rows(&b).await, 1);
    eventually("it is dealt with", async || b.federation.is_unloaded()).await;
    open(&a, &b, &is_up).await;
    eventually("it is taken", async || last(&b, &received()).await && rows(&b).await == 0).await;
}
