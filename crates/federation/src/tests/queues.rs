//! What waits for a server that is there and does not take it, and what does not wait for that.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use chappe_kv::{Batch, Counting, Db, Fault, Faulty, Memory, RoundTrips};
use chappe_rooms::{Extent, PeerError, Peers};
use chappe_store::{
    OutboxItem, Store, Tx,
    outbox::{DestinationState, Destinations},
};
use chappe_world::{FakeNet, Fate};
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use ruma::{
    OwnedServerName, ServerName, UserId, api::client::receipt::create_receipt::v3::ReceiptType,
    events::receipt::ReceiptThread, server_name,
};
use serde_json::value::RawValue;
use tower::ServiceExt;

use super::{Server, config, couple, eventually, peer::Peer};
use crate::{Config, PresenceNews, inbound::Received};

const SEND: &str = "/_matrix/federation/v1/send/";
/// Long enough that nothing is tried again while a test looks.
const PATIENT: u64 = 600_000;

/// How often a server was sent a transaction, and how it answers those, if not by taking them.
#[derive(Default)]
struct Door {
    answer: Option<(u16, &'static str)>,
    /// Only transactions with this in them are answered so.
    only: Option<&'static str>,
    knocks: usize,
    /// The transactions that were let in.
    taken: Vec<String>,
}

/// Puts a door before a server.
fn door(net: &FakeNet, server: &Server, answer: Option<(u16, &'static str)>) -> Arc<Mutex<Door>> {
    let door = Arc::new(Mutex::new(Door { answer, ..Door::default() }));
    let (router, shut) = (server.router.clone(), Arc::clone(&door));
    let service = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let (router, shut) = (router.clone(), Arc::clone(&shut));
        async move {
            if request.uri().path().starts_with(SEND) {
                let body = request.body().clone().collect().await?.to_bytes();
                let told = String::from_utf8_lossy(&body).into_owned();
                let mut shut = shut.lock();
                shut.knocks += 1;
                let answer = shut.answer.filter(|_| shut.only.is_none_or(|only| told.contains(only)));
                if let Some((status, body)) = answer {
                    return Ok::<_, Infallible>(
                        Response::builder().status(status).body(Body::from(body)).unwrap(),
                    );
                }
                shut.taken.push(told);
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
    let answers = [200, 400, 401, 403, 404, 422, 429, 500, 501].map(|status| (status, "<html>", 1));
    let answers = answers.into_iter().chain([502, 503, 504].map(|status| (status, own, 1)));
    // What may be of the event that is sent is also said of a transaction without any.
    let answers = answers.chain([(400, own, 2), (413, own, 2), (422, own, 2), (413, "<html>", 2)]);
    for (status, body, knocks) in answers.chain([(200, "", 1), (200, "[]", 1)]) {
        let net = FakeNet::new();
        let (a, b, room) = patient_couple(&net).await;
        let door = door(&net, &b, Some((status, body)));
        let event = a.say("alice", &room, "no").await;
        eventually("it is refused", async || state(&a, &b).await.refused.count == 1).await;
        assert!(state(&a, &b).await.failures == 0 && is_asked(&a, &b).await, "{status}");
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert_eq!(door.lock().knocks, knocks, "{status} {body}");
        door.lock().answer = None;
        a.federation.retry(Some(&b.name)).await.unwrap();
        eventually("it is sent", async || b.has(&event).await).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_never_taken_is_left_out_alone_and_only_by_the_word_of_a_server() {
    let own = r#"{"errcode":"M_BAD_JSON","error":"what is that"}"#;
    for (status, body, left_out) in [
        (400, own, true),
        (413, own, true),
        // A gateway's, but a shorter one passes.
        (413, "<html>", true),
        (400, "<html>", false),
        (403, own, false),
    ] {
        let net = FakeNet::new();
        let (a, b, _room) = patient_couple(&net).await;
        let door = door(&net, &b, Some((status, body)));
        door.lock().only = Some("poison");
        let mut tx = Tx::new();
        for content in ["apple", "poison", "cherry"] {
            tx.enqueue(&b.name, &OutboxItem::ToDevice(format!(r#"{{"is":"{content}"}}"#)));
        }
        a.store.commit(tx).await.unwrap();
        if left_out {
            eventually("the others are taken", async || a.waiting(&b).await == 0).await;
        } else {
            eventually("it is refused", async || state(&a, &b).await.refused.count == 1).await;
            tokio::time::sleep(Duration::from_mins(5)).await;
            assert_eq!((a.waiting(&b).await, door.lock().knocks), (3, 1), "{status} {body}");
            door.lock().only = Some("nothing of this kind");
            a.federation.retry(Some(&b.name)).await.unwrap();
            eventually("all is taken", async || a.waiting(&b).await == 0).await;
        }
        let taken = door.lock().taken.join("");
        let times = ["apple", "poison", "cherry"].map(|content| taken.matches(content).count());
        assert_eq!(times, [1, usize::from(!left_out), 1], "{status} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_set_up_anew_names_no_transaction_as_before() {
    let ids = async |seed: u8| {
        let net = FakeNet::new();
        let ids: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let seen = Arc::clone(&ids);
        net.judge(move |_, _, request| {
            seen.lock().extend(request.uri().path().strip_prefix(SEND).map(str::to_owned));
            Fate::Deliver
        });
        let a = Server::start(&net, "a.example", seed, config());
        let _b = Server::start(&net, "b.example", 9, config());
        for row in 0..3 {
            let mut tx = Tx::new();
            tx.enqueue(server_name!("b.example"), &OutboxItem::ToDevice(format!(r#"{{"n":{row}}}"#)));
            a.store.commit(tx).await.unwrap();
            eventually("it is sent", async || ids.lock().len() > row).await;
        }
        ids.lock().clone()
    };
    let (before, after) = (ids(1).await, ids(2).await);
    assert!(before.is_disjoint(&after), "{before:?} {after:?}");
}

#[tokio::test(start_paused = true)]
async fn an_id_that_comes_again_after_hours_is_that_of_another_transaction() {
    let net = FakeNet::new();
    let b = Server::start(&net, "b.example", 2, config());
    let receive = async || {
        let (origin, id) = (server_name!("a.example").to_owned(), "1".to_owned());
        let received = Received { origin, id, pdus: Vec::new(), edus: Vec::new() };
        b.federation.receive(received).await.unwrap()
    };
    let first = receive().await;
    assert!(Arc::ptr_eq(&first, &receive().await));
    tokio::time::sleep(Duration::from_hours(2)).await;
    assert!(!Arc::ptr_eq(&first, &receive().await));
}

#[tokio::test(start_paused = true)]
async fn joins_through_a_slow_server_hold_up_no_others() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let slow = Peer::start(&net, "slow.example", 9);
    net.judge(|_, to, request| {
        let joins = request.uri().path().starts_with("/_matrix/federation/v2/send_join");
        if joins && to == "slow.example" { Fate::Lose } else { Fate::Deliver }
    });
    let (network, room, begun) = (&a.network, &room, a.world.instant());
    let join = |to: OwnedServerName| async move {
        let pdu = RawValue::from_string("{}".to_owned()).unwrap();
        network.send_join(&to, room, ruma::event_id!("$nobodys"), pdu, Extent::Whole).await.map(drop)
    };
    let slow = join_all((0..8).map(|_| join(slow.name.clone())));
    let other = async { (join(b.name.clone()).await, begun.elapsed()) };
    let (slow, (answer, took)) = futures_util::join!(slow, other);
    assert!(slow.iter().all(|answer| matches!(answer, Err(PeerError::Unreachable(_)))), "{slow:?}");
    let is_answered = matches!(answer, Err(PeerError::Refused { .. }));
    assert!(is_answered && took < Duration::from_secs(10), "{answer:?} after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_state_may_come_slowly_and_one_that_trickles_is_not_waited_for() {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 1, config());
    let room = ruma::room_id!("!r:a.example");
    // Nothing but space, for longer than a long question may take: what comes whole is seen to be no answer.
    let read = async |name: &str, kibibytes: usize| {
        let peer = Peer::start(&net, name, 9);
        peer.answer(move |uri| {
            let spaces = futures_util::stream::unfold(0, move |second| async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let space = Bytes::from(vec![b' '; kibibytes << 10]);
                (second < 150).then(|| (Ok::<_, std::io::Error>(space), second + 1))
            });
            uri.contains("/send_join/").then(|| Body::from_stream(spaces))
        });
        let (pdu, begun) = (RawValue::from_string("{}".to_owned()).unwrap(), a.world.instant());
        let event = ruma::event_id!("$nobodys");
        let answer = a.network.send_join(&peer.name, room, event, pdu, Extent::Whole).await.map(drop);
        (answer, begun.elapsed())
    };
    let (steady, took) = read("steady.example", 128).await;
    assert!(matches!(steady, Err(PeerError::Malformed(_))), "{steady:?} after {took:?}");
    let (trickling, took) = read("trickling.example", 1).await;
    let is_left = matches!(trickling, Err(PeerError::Unreachable(_))) && took < Duration::from_secs(100);
    assert!(is_left, "{trickling:?} after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn messages_for_servers_that_turn_out_to_be_off_the_list_go() {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 1, config());
    let (listed, made_up) = (server_name!("b.example"), server_name!("made-up.example"));
    let allowed = a.network.allowed();
    allowed.follow_network(std::iter::empty());
    let mut tx = Tx::new();
    for server in [listed, made_up] {
        tx.enqueue(server, &OutboxItem::ToDevice("{}".to_owned()));
    }
    a.store.commit(tx).await.unwrap();
    let waiting = async |server: &ServerName| a.store.read().outbox(server, 9).await.unwrap().len();
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert_eq!(waiting(made_up).await, 1, "nobody knows yet who is on the list");
    allowed.follow_network([listed].into_iter());
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(waiting(made_up).await, 1, "the next list may have it");
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert_eq!((waiting(listed).await, waiting(made_up).await), (1, 0));
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
async fn receipts_that_went_with_what_was_refused_go_again() {
    let net = FakeNet::new();
    let (a, b, room) = patient_couple(&net).await;
    let event = b.say("bob", &room, "read me").await;
    eventually("it arrives", async || a.has(&event).await).await;
    let door = door(&net, &b, Some((400, r#"{"errcode":"M_BAD_JSON","error":"what is that"}"#)));
    door.lock().only = Some("poison");
    let alice = a.actor("alice");
    a.rooms.set_receipt(&alice, &room, &ReceiptType::Read, &event, &ReceiptThread::Unthreaded).await.unwrap();
    let mut tx = Tx::new();
    tx.enqueue(&b.name, &OutboxItem::ToDevice(r#"{"is":"poison"}"#.to_owned()));
    a.store.commit(tx).await.unwrap();
    eventually("it is read", async || door.lock().taken.join("").contains("m.receipt")).await;
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
async fn what_waits_for_who_stays_away_is_not_gone_through_with_every_try() {
    let (net, trips) = (FakeNet::new(), Arc::new(RoundTrips::default()));
    let store = Store::new(Db::new(Counting::new(Memory::default(), Arc::clone(&trips))));
    let a = Server::build(&net, "a.example", 1, config(), store);
    a.federation.start();
    let gone = server_name!("gone.example");
    let mut tx = Tx::new();
    for row in 0..6_000 {
        tx.enqueue(gone, &OutboxItem::ToDevice(format!(r#"{{"n":{row}}}"#)));
    }
    a.store.commit(tx).await.unwrap();
    let tries = async || a.network.backoff().state(gone).await.unwrap().failures;
    eventually("it is tried", async || tries().await > 1).await;
    let before = tries().await;
    trips.take();
    tokio::time::sleep(Duration::from_hours(1)).await;
    let scans = trips.take().1;
    let tried = tries().await - before;
    assert!(tried > 2 && scans < 15 * u64::from(tried), "{scans} scans for {tried} tries");
    assert_eq!(a.store.read().outbox(gone, 10_000).await.unwrap().len(), 6_000);
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

#[tokio::test(start_paused = true)]
async fn presence_that_changed_together_goes_in_one_piece() {
    let net = FakeNet::new();
    let (a, b, room) = patient_couple(&net).await;
    a.join("anna", &room, &a).await;
    eventually("b has it", async || a.waiting(&b).await == 0).await;
    let door = door(&net, &b, None);
    let said = |user: &str, presence: &str| {
        let (presence, status) = (presence.to_owned(), None);
        let news = PresenceNews { presence, status, last_active_ago: 1, currently_active: false };
        (a.actor(user).user, news)
    };
    let news = [said("alice", "online"), said("anna", "online"), said("alice", "unavailable")];
    a.federation.send_presence(&news).await.unwrap();
    eventually("b hears of both", async || b.seen.presence.lock().len() == 2).await;
    let mut taken = door.lock().taken.clone();
    taken.retain(|told| told.contains("m.presence"));
    assert!(taken.len() == 1 && taken[0].matches("m.presence").count() == 1, "{taken:?}");
    assert!(taken[0].contains(r#""presence":"unavailable""#), "the last word of each: {taken:?}");
    assert_eq!(*b.seen.presence.lock(), ["@alice:a.example", "@anna:a.example"]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_worked_on_again_soon_after_a_fault_of_the_store() {
    let net = FakeNet::new();
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = Arc::clone(&broken);
    let plan = move |_: &Batch| is_broken.load(SeqCst).then_some(Fault::Lost);
    let db = Db::new(Faulty::new(Memory::default(), Arc::new(Mutex::new(plan))));
    let a = Server::build(&net, "a.example", 1, config(), Store::new(db));
    let b = Server::start(&net, "b.example", 2, config());
    a.federation.start();
    let sent = Arc::new(AtomicUsize::new(0));
    let (counted, breaks) = (Arc::clone(&sent), Arc::clone(&broken));
    net.judge(move |from, _, request| {
        let is_sent = from == "a.example" && request.uri().path().starts_with(SEND);
        // It is taken, and nobody can write that down.
        if is_sent && counted.fetch_add(1, SeqCst) == 0 {
            breaks.store(true, SeqCst);
        }
        Fate::Deliver
    });
    let mut tx = Tx::new();
    tx.enqueue(&b.name, &OutboxItem::ToDevice("{}".to_owned()));
    a.store.commit(tx).await.unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    let tries = sent.load(SeqCst);
    assert!((5..=7).contains(&tries), "{tries} tries in a minute");
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(sent.load(SeqCst) <= tries + 11, "{} tries in ten more", sent.load(SeqCst));
    broken.store(false, SeqCst);
    eventually("the queue is empty", async || a.waiting(&b).await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn who_types_while_a_server_is_away_is_told_if_it_is_back_in_a_moment() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    eventually("quiet", async || a.waiting(&b).await == 0).await;
    let alice = a.actor("alice").user;
    net.unroute("b.example");
    a.say("alice", &room, "are you there").await;
    eventually("the outage is noticed", async || state(&a, &b).await.failures > 0).await;
    for typing in [true, false] {
        a.federation.send_typing(&room, &alice, typing).await.unwrap();
    }
    b.back(&net);
    eventually("the last word is told", async || !b.seen.typing.lock().is_empty()).await;
    assert_eq!(*b.seen.typing.lock(), [(room.clone(), alice.to_string(), false)]);

    net.unroute("b.example");
    a.say("alice", &room, "and now").await;
    eventually("the outage is noticed", async || state(&a, &b).await.failures > 0).await;
    a.federation.send_typing(&room, &alice, true).await.unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    b.back(&net);
    a.federation.retry(Some(&b.name)).await.unwrap();
    eventually("the queue is empty", async || a.waiting(&b).await == 0).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(b.seen.typing.lock().len(), 1, "that was long ago");
}
