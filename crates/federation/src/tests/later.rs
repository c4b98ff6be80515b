//! Events that were acknowledged and are on disk: from before the server stopped, for want of another server, of a room that is
//! only coming in.

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

use bytes::Bytes;
use chappe_kv::{Batch, Db, Fault, Faulty, Memory};
use chappe_rooms::Change;
use chappe_store::{
    Direction, Json, Store, Tx,
    outbox::{Later, ReceivedLater},
    server_keys::ServerKeys,
};
use chappe_world::{FakeNet, Fate};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use parking_lot::Mutex;
use ruma::{OwnedEventId, RoomId};
use serde_json::{json, value::RawValue};
use tower::ServiceExt;

use super::{
    Server, config, couple, eventually,
    lies::open_room,
    pair,
    peer::{Peer, raw},
};
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

/// Two servers, of which the second asks the first for what is before an event that it has received, or for its keys, and gets no
/// answer, soon or late, and loses its network over that if it `closes`. The transaction with that event, and whether the first can
/// be asked.
async fn lacking(
    net: &FakeNet,
    fate: Fate,
    closes: bool,
) -> (Server, Server, impl Fn() -> Received, Arc<AtomicBool>) {
    let (a, b, room) = couple(net).await;
    eventually("quiet", async || a.waiting(&b).await == 0 && b.waiting(&a).await == 0).await;
    let (is_up, allowed) = (Arc::new(AtomicBool::new(false)), b.network.allowed().clone());
    let up = Arc::clone(&is_up);
    net.judge(move |from, to, request| {
        if from == "a.example" {
            return Fate::Unreachable;
        }
        let path = request.uri().path();
        let is_withheld = path.contains("get_missing_events") || path.contains("key/v2/server");
        if to == "a.example" && is_withheld && !up.load(SeqCst) {
            if closes {
                allowed.follow_network(std::iter::empty());
            }
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
    let (a, b, received, is_up) = lacking(&net, Fate::Unreachable, true).await;
    let refused = b.federation.receive(received()).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
    open(&a, &b, &is_up).await;
    b.federation.receive(received()).await.unwrap();
    assert!(last(&b, &received()).await);
}

#[tokio::test(start_paused = true)]
async fn what_the_network_closes_over_is_kept_if_it_was_answered_for() {
    let net = FakeNet::new();
    let (a, b, received, is_up) = lacking(&net, Fate::Lose, true).await;
    b.federation.receive(received()).await.unwrap();
    assert_eq!(rows(&b).await, 1);
    eventually("it is dealt with", async || b.federation.is_unloaded()).await;
    open(&a, &b, &is_up).await;
    eventually("it is taken", async || last(&b, &received()).await && rows(&b).await == 0).await;
}

/// An event that was answered for is kept once it was tried in vain, and taken once its server is up.
async fn is_kept_until(b: &Server, received: &Received, is_up: &AtomicBool) {
    eventually("it was tried", async || b.federation.is_unloaded()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rows(b).await, 1);
    is_up.store(true, SeqCst);
    eventually("it is taken", async || last(b, received).await && rows(b).await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_for_is_kept_while_its_server_is_away() {
    let net = FakeNet::new();
    let (_a, b, received, is_up) = lacking(&net, Fate::Lose, false).await;
    b.federation.receive(received()).await.unwrap();
    is_kept_until(&b, &received(), &is_up).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_for_soon_is_kept_as_well_while_its_server_is_away() {
    let net = FakeNet::new();
    let (_a, b, received, is_up) = lacking(&net, Fate::Unreachable, false).await;
    b.federation.receive(received()).await.unwrap();
    assert_eq!(rows(&b).await, 1);
    is_up.store(true, SeqCst);
    eventually("it is taken", async || last(&b, &received()).await && rows(&b).await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_for_is_kept_while_a_key_cannot_be_had() {
    let net = FakeNet::new();
    let (a, b, received, is_up) = lacking(&net, Fate::Lose, false).await;
    let mut tx = Tx::new();
    tx.delete_prefix::<ServerKeys>(&a.name);
    b.store.commit(tx).await.unwrap();
    // Keys that were had just now are not asked for again.
    tokio::time::sleep(Duration::from_mins(1)).await;
    b.federation.receive(received()).await.unwrap();
    is_kept_until(&b, &received(), &is_up).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_over_which_the_work_breaks_down_does_not_come_again() {
    for is_kept in [false, true] {
        let net = FakeNet::new();
        let (a, b, received, _is_up) = lacking(&net, Fate::Unreachable, false).await;
        net.judge(|from, to, request| {
            let is_asked = to == "a.example" && request.uri().path().contains("get_missing_events");
            assert!(!is_asked, "the work breaks down");
            if from == "a.example" { Fate::Unreachable } else { Fate::Deliver }
        });
        if is_kept {
            let mut tx = Tx::new();
            let later = Later { origin: a.name.clone(), pdu: received().pdus[0].get().to_owned() };
            let event: serde_json::Value = serde_json::from_str(&later.pdu).unwrap();
            let room = event["room_id"].as_str().unwrap().to_owned();
            tx.put_at_position::<ReceivedLater>(&room, &0u16, &Json(later));
            b.store.commit(tx).await.unwrap();
            b.federation.resume().await.unwrap();
        } else {
            b.federation.receive(received()).await.unwrap();
        }
        eventually("it is given up", async || b.federation.breakdowns() == 1 && rows(&b).await == 0).await;
        assert!(!last(&b, &received()).await);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_server_stops_over_comes_again() {
    let net = FakeNet::new();
    let (_a, b, received, _is_up) = lacking(&net, Fate::Unreachable, false).await;
    let stops = b.world.shut_down(Duration::from_mins(1));
    let (refused, _) = tokio::join!(b.federation.receive(received()), stops);
    assert_eq!(refused.unwrap_err().status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_stored_comes_again() {
    let net = FakeNet::new();
    let full = Arc::new(AtomicBool::new(false));
    let is_full = full.clone();
    let plan = move |_: &Batch| is_full.load(SeqCst).then_some(Fault::Lost);
    let db = Db::new(Faulty::new(Memory::default(), Arc::new(Mutex::new(plan))));
    let a = Server::build(&net, "a.example", 1, config(), Store::new(db));
    let (peer, room) = (Peer::start(&net, "c.example", 3), open_room(&a, "11", None).await);
    let seat = peer.join(&a, &room, "@carol:c.example").await;
    let said = peer.message(&seat, "said", &[seat.join.as_str()], seat.depth + 1);
    let body = json!({ "origin": peer.name, "origin_server_ts": 1, "pdus": [raw(&said)] });
    let send = async || peer.call(&a, Method::PUT, "/_matrix/federation/v1/send/1", &body).await;
    full.store(true, SeqCst);
    assert_eq!(send().await.0, StatusCode::INTERNAL_SERVER_ERROR);
    full.store(false, SeqCst);
    let (status, told) = send().await;
    assert_eq!((status, &told["pdus"][said.event_id().as_str()]), (StatusCode::OK, &json!({})));
    assert!(a.has(&said.event_id().to_owned()).await);
}

/// Has a server take its time over what it answers to joins, which it has accepted by then.
fn answers_joins_after(net: &FakeNet, server: &Server, time: Duration) {
    let router = server.router.clone();
    let service = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let router = router.clone();
        async move {
            let is_join = request.uri().path().contains("send_join");
            let answer = router.oneshot(request).await;
            if is_join {
                tokio::time::sleep(time).await;
            }
            answer
        }
    });
    net.route(server.name.as_str(), &server.world, service);
}

/// Whether Bob has this membership, as far as a server knows.
async fn bob_is(server: &Server, room: &RoomId, membership: &str) -> bool {
    server.current(room, "m.room.member", "@bob:b.example").await["content"]["membership"] == membership
}

#[tokio::test(start_paused = true)]
async fn what_arrives_while_a_room_comes_in_is_taken_as_soon_as_it_has() {
    let net = FakeNet::new();
    let (a, b) = pair(&net);
    let (room, bob) = (a.room("alice").await, b.actor("bob"));
    answers_joins_after(&net, &a, Duration::from_secs(40));
    let joins = async {
        b.rooms.join(&bob, &room, vec![a.name.clone()], serde_json::Map::new()).await.unwrap();
        tokio::time::Instant::now()
    };
    let meanwhile = async {
        eventually("he is in for the others", async || bob_is(&a, &room, "join").await).await;
        let said = a.say("alice", &room, "welcome").await;
        a.rooms.change(&a.actor("alice"), &room, &bob.user, Change::Ban, None).await.unwrap();
        eventually("both are kept", async || rows(&b).await == 2).await;
        assert!(!b.has(&said).await);
        said
    };
    let (since, said) = tokio::join!(joins, meanwhile);
    eventually("he is out", async || bob_is(&b, &room, "ban").await).await;
    assert!(since.elapsed() < Duration::from_secs(5), "it was not waited for the next try");
    assert!(b.has(&said).await);
    eventually("nothing is kept any more", async || rows(&b).await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_arrives_while_a_room_comes_in_is_kept_no_longer_than_a_join_that_fails() {
    let net = FakeNet::new();
    let (a, b) = pair(&net);
    let (room, bob) = (a.room("alice").await, b.actor("bob"));
    net.judge(|_, _, request| {
        let is_join = request.uri().path().contains("send_join");
        if is_join { Fate::LoseAnswer } else { Fate::Deliver }
    });
    let joins = b.rooms.join(&bob, &room, vec![a.name.clone()], serde_json::Map::new());
    let meanwhile = async {
        eventually("he is in for the others", async || bob_is(&a, &room, "join").await).await;
        let said = a.say("alice", &room, "welcome").await;
        eventually("it is kept", async || rows(&b).await == 1).await;
        said
    };
    let (joined, said) = tokio::join!(joins, meanwhile);
    assert!(joined.is_err());
    eventually("nothing is kept any more", async || rows(&b).await == 0).await;
    assert!(!b.has(&said).await);
}
