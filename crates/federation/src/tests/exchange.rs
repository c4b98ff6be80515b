//! Transactions between servers: delivered once, again after lost answers, caught up with after outages.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use chappe_rooms::{Error, PeerError, Peers};
use chappe_world::{FakeNet, Fate};
use parking_lot::Mutex;
use ruma::server_name;
use serde_json::{Value, json, value::RawValue};

use super::{Server, config, count, couple, eventually};
use crate::inbound::Received;

const SEND: &str = "/_matrix/federation/v1/send/";

#[tokio::test(start_paused = true)]
async fn messages_cross_in_both_directions() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let from_a = a.say("alice", &room, "hello").await;
    eventually("b gets it", async || b.has(&from_a).await).await;
    let from_b = b.say("bob", &room, "hello yourself").await;
    eventually("a gets it", async || a.has(&from_b).await).await;
    eventually("queues are empty", async || a.waiting(&b).await + b.waiting(&a).await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_with_the_same_transaction() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let ids: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&ids);
    net.judge(move |from, _, request| {
        let Some(id) = request.uri().path().strip_prefix(SEND).filter(|_| from == "a.example") else {
            return Fate::Deliver;
        };
        let mut seen = seen.lock();
        seen.push(id.to_owned());
        if seen.len() < 3 { Fate::LoseAnswer } else { Fate::Deliver }
    });
    let event = a.say("alice", &room, "once").await;
    eventually("the queue is empty", async || a.waiting(&b).await == 0).await;
    assert!(b.has(&event).await);
    let ids = ids.lock().clone();
    assert!(ids.len() >= 3, "{ids:?}");
    assert!(ids[..3].iter().all(|id| *id == ids[0]), "{ids:?}");
    let reader = b.store.read();
    let nid = reader.room_nid(&room).await.unwrap().unwrap();
    let rows = reader.timeline_back(nid, i64::MAX, 100).await.unwrap();
    let num = reader.event_num(nid, &event).await.unwrap().unwrap();
    assert_eq!(rows.iter().filter(|row| row.num == num).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_a_restart_is_the_same_transaction() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let ids: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&ids);
    net.judge(move |from, _, request| {
        let id = request.uri().path().strip_prefix(SEND).filter(|_| from == "a.example");
        seen.lock().extend(id.map(str::to_owned));
        if id.is_some() && seen.lock().len() == 1 { Fate::Unreachable } else { Fate::Deliver }
    });
    let event = a.say("alice", &room, "first").await;
    eventually("it was tried", async || !ids.lock().is_empty()).await;
    eventually("the failure is kept", async || {
        a.network.backoff().state(&b.name).await.unwrap().tried.is_some()
    })
    .await;
    a.world.kill();
    let again = Server::build(&net, "a.example", 1, config(), a.store.clone());
    let later = again.say("alice", &room, "second").await;
    again.federation.start();
    eventually("both arrive", async || b.has(&event).await && b.has(&later).await).await;
    let ids = ids.lock().clone();
    assert_eq!(ids[0], ids[1], "{ids:?}");
    assert_ne!(ids[1], ids[2], "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_long_outage_the_newest_events_are_enough() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    eventually("quiet", async || a.waiting(&b).await == 0).await;
    net.unroute("b.example");
    let mut last = a.say("alice", &room, "0").await;
    eventually("the outage is noticed", async || {
        a.network.backoff().state(&b.name).await.unwrap().failures > 0
    })
    .await;
    for number in 1..200 {
        last = a.say("alice", &room, &number.to_string()).await;
    }
    assert_eq!(a.waiting(&b).await, 200);
    tokio::time::sleep(Duration::from_hours(1)).await;
    let sent: Arc<Mutex<usize>> = Arc::default();
    let pdus = Arc::clone(&sent);
    net.judge(move |from, _, request| {
        if from == "a.example" && request.uri().path().starts_with(SEND) {
            let body: Value = serde_json::from_slice(request.body()).unwrap();
            *pdus.lock() += body["pdus"].as_array().unwrap().len();
        }
        Fate::Deliver
    });
    b.back(&net);
    a.federation.retry(Some(&b.name)).await.unwrap();
    eventually("b has the newest", async || b.has(&last).await).await;
    eventually("the queue is empty", async || a.waiting(&b).await == 0).await;
    assert!(*sent.lock() < 120, "{} events were sent", sent.lock());
}

#[tokio::test(start_paused = true)]
async fn a_sign_of_life_ends_the_wait() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    eventually("quiet", async || a.waiting(&b).await == 0).await;
    net.unroute("b.example");
    let event = a.say("alice", &room, "are you there").await;
    tokio::time::sleep(Duration::from_hours(4)).await;
    assert!(a.network.backoff().state(&b.name).await.unwrap().failures > 8);
    b.back(&net);
    let before = a.world.now();
    b.say("bob", &room, "here I am").await;
    eventually("it arrives", async || b.has(&event).await).await;
    assert!(a.world.now() - before < 30_000);
}

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_bad_event_does_not_hurt_the_others() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    eventually("quiet", async || a.waiting(&b).await == 0).await;
    net.unroute("b.example");
    let event = a.say("alice", &room, "good").await;
    let good = {
        let reader = a.store.read();
        let (nid, num) = reader.event_address(&event).await.unwrap().unwrap();
        reader.pdu(nid, num).await.unwrap().json.to_string()
    };
    let mut forged: Value = serde_json::from_str(&good).unwrap();
    forged["content"]["body"] = json!(1.5);
    let mut deep: Value = serde_json::from_str(&good).unwrap();
    deep["depth"] = json!(-1);
    let pdus = vec![
        raw(&json!({})),
        raw(&json!([1])),
        raw(&forged),
        raw(&deep),
        RawValue::from_string(good).unwrap(),
        raw(&json!({ "room_id": "!elsewhere:a.example", "type": "m.room.message" })),
    ];
    let received = |id: &str| Received {
        origin: a.name.clone(),
        id: id.to_owned(),
        pdus: pdus.clone(),
        edus: vec![raw(&json!({ "edu_type": 7 })), raw(&json!("x"))],
    };
    let results = b.federation.receive(received("1")).await.unwrap();
    assert_eq!(results.get(&event), Some(&Ok(())), "{results:?}");
    assert!(b.has(&event).await);
    assert!(Arc::ptr_eq(&results, &b.federation.receive(received("1")).await.unwrap()), "dealt with twice");
    // What was answered is forgotten with the process; going through it all again comes to the same.
    b.world.kill();
    let again = Server::build(&net, "b.example", 2, config(), b.store.clone());
    assert_eq!(results, again.federation.receive(received("1")).await.unwrap());
    let reader = again.store.read();
    let nid = reader.room_nid(&room).await.unwrap().unwrap();
    let num = reader.event_num(nid, &event).await.unwrap().unwrap();
    let rows = reader.timeline_back(nid, i64::MAX, 100).await.unwrap();
    assert_eq!(rows.iter().filter(|row| row.num == num).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn typing_and_receipts_cross_and_forged_ones_do_not() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let event = a.say("alice", &room, "read me").await;
    eventually("it arrives", async || b.has(&event).await).await;
    let alice = a.actor("alice").user;
    a.federation.send_typing(&room, &alice, true).await.unwrap();
    eventually("typing is seen", async || !b.seen.typing.lock().is_empty()).await;
    assert_eq!(*b.seen.typing.lock(), [(room.clone(), alice.to_string(), true)]);
    let edus = |sender: &str| {
        vec![
            raw(&json!({ "edu_type": "m.typing", "content":
                { "room_id": room, "user_id": sender, "typing": true } })),
            raw(&json!({ "edu_type": "m.presence", "content":
                { "push": [{ "user_id": sender, "presence": "online", "last_active_ago": 1 }] } })),
            raw(&json!({ "edu_type": "m.receipt", "content":
                { room.as_str(): { "m.read": { sender: { "event_ids": [event], "data": { "ts": 5 } } } } } })),
        ]
    };
    let receive = async |id: &str, sender: &str| {
        let (origin, id) = (server_name!("c.example").to_owned(), id.to_owned());
        b.federation.receive(Received { origin, id, pdus: Vec::new(), edus: edus(sender) }).await.unwrap();
    };
    receive("1", alice.as_str()).await;
    receive("2", "@stranger:c.example").await;
    assert_eq!(b.seen.typing.lock().len(), 1);
    assert_eq!(*b.seen.presence.lock(), ["@stranger:c.example"]);
    let reader = b.store.read();
    let nid = reader.room_nid(&room).await.unwrap().unwrap();
    assert!(reader.room_receipts(nid).await.unwrap().is_empty());
    drop(reader);
    let origin = a.name.clone();
    b.federation
        .receive(Received { origin, id: "3".to_owned(), pdus: Vec::new(), edus: edus(alice.as_str()) })
        .await
        .unwrap();
    assert_eq!(b.store.read().room_receipts(nid).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_one_entry_of_an_edu_spoils_no_other() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let event = a.say("alice", &room, "read me").await;
    eventually("it arrives", async || b.has(&event).await).await;
    let alice = a.actor("alice").user;
    // Some servers leave out since when a user was active where they do not know it.
    let presence = json!({ "push": [
        { "user_id": "nobody", "presence": "online", "last_active_ago": 1 },
        { "user_id": "@bare:a.example" },
        { "user_id": alice, "presence": "online" },
    ] });
    let at = |ts: i64| json!({ "event_ids": [event], "data": { "ts": ts } });
    let receipts = json!({
        "!": { "m.read": [] },
        "nowhere": { "m.read": { alice.as_str(): at(5) } },
        room.as_str(): { "m.read": { "nobody": at(5), "@early:a.example": at(-1), alice.as_str(): at(5) } },
    });
    let edus = vec![
        raw(&json!({ "edu_type": "m.presence", "content": presence })),
        raw(&json!({ "edu_type": "m.receipt", "content": receipts })),
    ];
    let received = Received { origin: a.name.clone(), id: "entries".to_owned(), pdus: Vec::new(), edus };
    b.federation.receive(received).await.unwrap();
    assert_eq!(*b.seen.presence.lock(), [alice.as_str()]);
    let reader = b.store.read();
    let nid = reader.room_nid(&room).await.unwrap().unwrap();
    assert_eq!(reader.room_receipts(nid).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_excluded_server_is_not_heard() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let acl = json!({ "allow": ["*"], "deny": ["b.example"], "allow_ip_literals": true });
    let draft = chappe_rooms::Draft::state("m.room.server_acl", "", acl.as_object().unwrap().clone());
    a.rooms.send(&a.actor("alice"), &room, draft, None).await.unwrap();
    eventually("b knows", async || a.waiting(&b).await == 0).await;
    let event = b.say("bob", &room, "still here").await;
    eventually("b has sent it", async || b.waiting(&a).await == 0).await;
    assert!(!a.has(&event).await);
    let backfill = b.network.backfill(&a.name, &room, &[event], 5).await;
    assert!(matches!(backfill, Err(PeerError::Refused { status: 403, .. })), "{backfill:?}");
}

#[tokio::test(start_paused = true)]
async fn dead_servers_do_not_delay_a_living_one() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let mut tx = chappe_store::Tx::new();
    for number in 0..1_000 {
        let dead = ruma::OwnedServerName::try_from(format!("dead{number}.example")).unwrap();
        tx.enqueue(&dead, &chappe_store::OutboxItem::ToDevice("{}".to_owned()));
    }
    a.store.commit(tx).await.unwrap();
    tokio::time::sleep(Duration::from_mins(10)).await;
    let before = a.world.now();
    let event = a.say("alice", &room, "quick").await;
    eventually("it arrives", async || b.has(&event).await).await;
    assert!(a.world.now() - before < 5_000, "{} ms", a.world.now() - before);
}

#[tokio::test(start_paused = true)]
async fn what_sticks_reaches_servers_that_come_later_and_those_that_were_away() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let early = a.stick("alice", &room, "in a call").await;
    let of_b = b.stick("bob", &room, "too").await;
    eventually("both have both", async || b.has(&early).await && a.has(&of_b).await).await;
    let sticks = async |server: &Server| {
        let reader = server.store.read();
        let nid = reader.room_nid(&room).await.unwrap().unwrap();
        reader.sticky_after(nid, chappe_store::Position(0), 99).await.unwrap().len()
    };
    assert_eq!((sticks(&a).await, sticks(&b).await), (2, 2), "what others send sticks as well");
    for number in 0..30 {
        a.say("alice", &room, &number.to_string()).await;
    }
    eventually("quiet", async || a.waiting(&b).await == 0).await;
    let c = Server::start(&net, "c.example", 3, config());
    c.join("carol", &room, &a).await;
    eventually("c gets what a's users said", async || c.has(&early).await).await;
    net.unroute("b.example");
    let missed = a.stick("alice", &room, "still in the call").await;
    eventually("the outage is noticed", async || {
        a.network.backoff().state(&b.name).await.unwrap().failures > 0
    })
    .await;
    for number in 0..200 {
        a.say("alice", &room, &number.to_string()).await;
    }
    b.back(&net);
    a.federation.retry(Some(&b.name)).await.unwrap();
    eventually("b gets it all the same", async || b.has(&missed).await).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_server_off_the_list_is_kept_short_until_it_is_back() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    eventually("quiet", async || a.waiting(&b).await == 0).await;
    let listed = |name: &str| a.network.allowed().replace(Some(&[name.to_owned()]));
    listed("c.example");
    for number in 0..200 {
        a.say("alice", &room, &number.to_string()).await;
    }
    // A short absence costs nothing.
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(a.waiting(&b).await, 200);
    eventually("the queue is shortened", async || a.waiting(&b).await == 1).await;
    let last = a.say("alice", &room, "last").await;
    listed("b.example");
    eventually("b has the last one", async || b.has(&last).await).await;
    assert_eq!(a.waiting(&b).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_restricted_room_is_entered_through_whoever_may_let_in() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let club = a.room("alice").await;
    b.join("bob", &club, &a).await;
    let c = Server::start(&net, "c.example", 3, config());
    c.join("carol", &club, &a).await;
    let rule = json!({
        "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club }],
    });
    let levels = json!({ "invite": 100, "users": { "@alice:a.example": 100 } });
    for (kind, content) in [("m.room.join_rules", rule), ("m.room.power_levels", levels)] {
        let draft = chappe_rooms::Draft::state(kind, "", content.as_object().unwrap().clone());
        a.rooms.send(&a.actor("alice"), &room, draft, None).await.unwrap();
    }
    let said = a.say("alice", &room, "closed").await;
    eventually("b knows", async || b.has(&said).await).await;
    let asked = count(&net, "/_matrix/federation/v1/make_join");
    let join = async |via: &[&Server]| {
        let via = via.iter().map(|server| server.name.clone()).collect();
        c.rooms.join(&c.actor("carol"), &room, via, serde_json::Map::new()).await
    };
    let Err(Error::Peer(PeerError::Refused { errcode, .. })) = join(&[&b]).await else {
        panic!("b let carol in")
    };
    assert_eq!(errcode, "M_UNABLE_TO_GRANT_JOIN");
    join(&[&b, &a]).await.unwrap();
    assert_eq!(asked.load(SeqCst), 3);
    // Who is not in the club is refused by each that is asked.
    let stranger = c.actor("dan");
    let via = vec![a.name.clone(), b.name.clone()];
    c.rooms.leave(&c.actor("carol"), &room, None).await.unwrap();
    let refused = c.rooms.join(&stranger, &room, via, serde_json::Map::new()).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(asked.load(SeqCst), 5);
}
