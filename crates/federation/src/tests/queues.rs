//! What waits for a server that is there and does not take it, and what does not wait for that.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use chappe_rooms::{PeerError, Peers};
use chappe_store::{
    OutboxItem, Tx,
    outbox::{DestinationState, Destinations},
};
use chappe_world::{FakeNet, Fate};
use http::{Request, Response};
use http_body_util::Full;
use parking_lot::Mutex;
use ruma::{
    OwnedServerName, UserId, api::client::receipt::create_receipt::v3::ReceiptType,
    events::receipt::ReceiptThread,
};
use tower::ServiceExt;

use super::{Server, config, couple, eventually};
use crate::Config;

const SEND: &str = "/_matrix/federation/v1/send/";
/// Long enough that nothing is tried again while a test looks.
const PATIENT: u64 = 600_000;

/// How often a server was sent a transaction, and how it answers those, if not by taking them.
#[derive(Default)]
struct Door {
    answer: Option<(u16, &'static str)>,
    knocks: usize,
}

/// Puts a door before a server.
fn door(net: &FakeNet, server: &Server, answer: Option<(u16, &'static str)>) -> Arc<Mutex<Door>> {
    let door = Arc::new(Mutex::new(Door { answer, knocks: 0 }));
    let (router, shut) = (server.router.clone(), Arc::clone(&door));
    let service = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let (router, shut) = (router.clone(), Arc::clone(&shut));
        async move {
            if request.uri().path().starts_with(SEND) {
                let mut shut = shut.lock();
                shut.knocks += 1;
                if let Some((status, body)) = shut.answer {
                    return Ok::<_, Infallible>(
                        Response::builder().status(status).body(Body::from(body)).unwrap(),
                    );
                }
            }
            Ok(router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {}))
        }
    });
    net.route(server.name.as_str(), &server.world, service);
    door
}

async fn patient_couple(net: &FakeNet) -> (Server, Server, ruma::OwnedRoomId) {
    let patient = Config { backoff_min_ms: PATIENT, ..config() };
    let (a, b) = (Server::start(net, "a.example", 1, patient), Server::start(net, "b.example", 2, config()));
    let room = a.room("alice").await;
    b.join("bob", &room, &a).await;
    eventually("quiet", async || a.waiting(&b).await == 0).await;
    (a, b, room)
}

async fn state(server: &Server, of: &Server) -> DestinationState {
    server.network.backoff().state(&of.name).await.unwrap()
}

/// Whether a question that does not insist is put to `b`, and answered.
async fn is_asked(a: &Server, b: &Server) -> bool {
    let answer = a.network.event(&b.name, ruma::event_id!("$of-nobody")).await;
    match answer {
        Err(PeerError::Refused { .. }) => true,
        Err(PeerError::Unreachable(_)) => false,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn who_finds_a_transaction_too_much_is_left_alone_by_the_queue_and_by_nothing_else() {
    let net = FakeNet::new();
    let (a, b, room) = patient_couple(&net).await;
    let too_much = (429, r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":900000}"#);
    let door = door(&net, &b, Some(too_much));
    let event = a.say("alice", &room, "too much").await;
    eventually("it is refused", async || state(&a, &b).await.refused.count == 1).await;
    assert!(is_asked(&a, &b).await, "a question waits for the queue");
    let of_b = b.say("bob", &room, "I am here").await;
    eventually("b is heard", async || a.has(&of_b).await).await;
    // Neither that nor a restart opens the door.
    a.world.kill();
    let patient = Config { backoff_min_ms: PATIENT, ..config() };
    let again = Server::build(&net, "a.example", 1, patient, a.store.clone());
    again.federation.start();
    tokio::time::sleep(Duration::from_mins(14)).await;
    let knocks = door.lock().knocks;
    assert_eq!((knocks, state(&again, &b).await.failures), (1, 0));
    assert!(is_asked(&again, &b).await);
    door.lock().answer = None;
    eventually("it is sent when b said", async || b.has(&event).await).await;
    eventually("all is well", async || state(&again, &b).await == DestinationState::default()).await;
    assert!(again.store.read().scan_all::<Destinations>(&()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn whatever_a_server_says_of_a_transaction_questions_do_not_wait_for_it() {
    let own = r#"{"errcode":"M_UNKNOWN","error":"not now"}"#;
    let answers = [401, 403, 404, 429, 500, 501].map(|status| (status, "<html>"));
    for (status, body) in answers.into_iter().chain([502, 503, 504].map(|status| (status, own))) {
        let net = FakeNet::new();
        let (a, b, room) = patient_couple(&net).await;
        let door = door(&net, &b, Some((status, body)));
        let event = a.say("alice", &room, "no").await;
        eventually("it is refused", async || state(&a, &b).await.refused.count == 1).await;
        assert!(state(&a, &b).await.failures == 0 && is_asked(&a, &b).await, "{status}");
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert_eq!(door.lock().knocks, 1, "{status}");
        door.lock().answer = None;
        a.federation.retry(Some(&b.name)).await.unwrap();
        eventually("it is sent", async || b.has(&event).await).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_not_reached_is_left_alone_by_all() {
    for gateway in [None, Some((502, "")), Some((503, "")), Some((504, ""))] {
        let net = FakeNet::new();
        let (a, b, room) = patient_couple(&net).await;
        match gateway {
            None => net.unroute("b.example"),
            answer => drop(door(&net, &b, answer)),
        }
        a.say("alice", &room, "hello").await;
        eventually("that is noticed", async || state(&a, &b).await.failures == 1).await;
        assert!(!is_asked(&a, &b).await, "{gateway:?}");
        a.federation.retry(Some(&b.name)).await.unwrap();
        b.back(&net);
        assert!(is_asked(&a, &b).await, "{gateway:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn receipts_of_a_transaction_that_gets_lost_come_with_a_later_one() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let event = b.say("bob", &room, "read me").await;
    eventually("it arrives", async || a.has(&event).await).await;
    eventually("quiet", async || a.waiting(&b).await == 0).await;
    let lost = Arc::new(Mutex::new(0));
    let count = Arc::clone(&lost);
    net.judge(move |from, _, request| {
        let told = from == "a.example" && String::from_utf8_lossy(request.body()).contains("m.receipt");
        let mut lost = count.lock();
        if told && *lost < 3 {
            *lost += 1;
            return Fate::Unreachable;
        }
        Fate::Deliver
    });
    let alice = a.actor("alice");
    a.rooms.set_receipt(&alice, &room, &ReceiptType::Read, &event, &ReceiptThread::Unthreaded).await.unwrap();
    let nid = b.store.read().room_nid(&room).await.unwrap().unwrap();
    let of_alice = async || {
        let receipts = b.store.read().user_receipts(nid, &alice.user).await.unwrap();
        receipts.len()
    };
    eventually("it is read", async || of_alice().await == 1).await;
    assert_eq!(*lost.lock(), 3);
}

#[tokio::test(start_paused = true)]
async fn many_that_show_life_at_once_are_all_tried() {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 1, Config { backoff_min_ms: PATIENT, ..config() });
    let names: Vec<OwnedServerName> =
        (0..1_000).map(|n| OwnedServerName::try_from(format!("n{n}.example")).unwrap()).collect();
    let tried: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let seen = Arc::clone(&tried);
    net.judge(move |_, to, request| {
        if request.uri().path().starts_with(SEND) {
            seen.lock().insert(to.to_owned());
        }
        Fate::Unreachable
    });
    let mut tx = Tx::new();
    for name in &names {
        tx.enqueue(name, &OutboxItem::ToDevice("{}".to_owned()));
    }
    a.store.commit(tx).await.unwrap();
    let failed = async |name: &OwnedServerName| a.network.backoff().state(name).await.unwrap().failures == 1;
    for name in &names {
        eventually("it is given up", async || failed(name).await).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    tried.lock().clear();
    // More at once than are noted one by one.
    for name in &names {
        a.network.backoff().heard_from(name);
    }
    eventually("all are tried", async || tried.lock().len() == names.len()).await;
}

#[tokio::test(start_paused = true)]
async fn news_of_devices_are_few_for_who_was_long_away() {
    let net = FakeNet::new();
    let (a, b, _room) = couple(&net).await;
    eventually("quiet", async || a.waiting(&b).await == 0).await;
    let alice: &UserId = &a.actor("alice").user;
    let mut tx = Tx::new();
    for stream_id in 1..=200 {
        let device = format!("D{}", stream_id % 7).into();
        tx.enqueue(&b.name, &OutboxItem::Device { user: alice.to_owned(), device, stream_id });
        tx.enqueue(&b.name, &OutboxItem::SigningKeys(alice.to_owned()));
    }
    net.unroute("b.example");
    a.store.commit(tx).await.unwrap();
    eventually("the outage is noticed", async || state(&a, &b).await.failures > 0).await;
    let updates: Arc<Mutex<Vec<u64>>> = Arc::default();
    let seen = Arc::clone(&updates);
    net.judge(move |from, _, request| {
        if from == "a.example" && request.uri().path().starts_with(SEND) {
            let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
            let edus = body["edus"].as_array().unwrap().clone();
            seen.lock().extend(edus.iter().filter_map(|edu| edu["content"]["stream_id"].as_u64()));
        }
        Fate::Deliver
    });
    tokio::time::sleep(Duration::from_hours(1)).await;
    b.back(&net);
    a.federation.retry(Some(&b.name)).await.unwrap();
    eventually("the queue is empty", async || a.waiting(&b).await == 0).await;
    // The first try is repeated as it was; of the rest the last is enough, as it names the one before it.
    let told: BTreeSet<u64> = updates.lock().iter().copied().collect();
    assert!(told.last() == Some(&200) && told.len() < 100, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_holds_no_more_than_servers_take() {
    let net = FakeNet::new();
    let long = Config { catch_up_after: 10_000, ..config() };
    let (a, b) = (Server::start(&net, "a.example", 1, long), Server::start(&net, "b.example", 2, config()));
    let room = a.room("alice").await;
    b.join("bob", &room, &a).await;
    eventually("quiet", async || a.waiting(&b).await == 0).await;
    net.unroute("b.example");
    let mut tx = Tx::new();
    for number in 0..250 {
        tx.enqueue(&b.name, &OutboxItem::ToDevice(format!(r#"{{"n":{number}}}"#)));
    }
    a.store.commit(tx).await.unwrap();
    for number in 0..120 {
        a.say("alice", &room, &number.to_string()).await;
    }
    let last = a.say("alice", &room, "last").await;
    let sizes: Arc<Mutex<Vec<(usize, usize)>>> = Arc::default();
    let seen = Arc::clone(&sizes);
    net.judge(move |from, _, request| {
        if from == "a.example" && request.uri().path().starts_with(SEND) {
            let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
            let of = |list: &str| body[list].as_array().unwrap().len();
            seen.lock().push((of("pdus"), of("edus")));
        }
        Fate::Deliver
    });
    b.back(&net);
    a.federation.retry(Some(&b.name)).await.unwrap();
    eventually("all are there", async || a.waiting(&b).await == 0 && b.has(&last).await).await;
    let sizes = sizes.lock().clone();
    assert!(sizes.iter().all(|(pdus, edus)| *pdus <= 50 && *edus <= 100), "{sizes:?}");
    assert_eq!(sizes.iter().map(|(pdus, _)| pdus).sum::<usize>(), 121, "{sizes:?}");
}
