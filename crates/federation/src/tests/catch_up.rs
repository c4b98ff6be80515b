//! What a server gets that was away for long.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use chappe_rooms::{Change, Draft};
use chappe_rules::Pdu;
use chappe_store::Membership;
use chappe_world::{FakeNet, Fate};
use parking_lot::Mutex;
use ruma::{OwnedEventId, UserId, user_id};
use serde_json::{Value, json};

use super::{Server, config, couple, eventually, peer::Peer};

#[tokio::test(start_paused = true)]
async fn who_comes_back_is_not_sent_what_was_said_to_others_meanwhile() {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 1, config());
    let (b, c) = (Peer::start(&net, "b.example", 2), Peer::start(&net, "c.example", 3));
    for peer in [&b, &c] {
        peer.answer(|uri| uri.contains("/send/").then(|| Body::from("{}")));
    }
    let room = a.room("alice").await;
    b.join(&a, &room, "@bob:b.example").await;
    let carol = c.join(&a, &room, "@carol:c.example").await;
    let members = json!({ "history_visibility": "joined" }).as_object().unwrap().clone();
    let members = Draft::state("m.room.history_visibility", "", members);
    a.rooms.send(&a.actor("alice"), &room, members, None).await.unwrap();
    let waiting = async || a.store.read().outbox(&b.name, 1_000).await.unwrap().len();
    eventually("b has it all", async || waiting().await == 0).await;
    let away = Arc::new(Mutex::new(true));
    let is_away = Arc::clone(&away);
    net.judge(
        move |_, to, _| {
            if to == "b.example" && *is_away.lock() { Fate::Unreachable } else { Fate::Deliver }
        },
    );
    a.say("alice", &room, "are you there").await;
    let failures = async || a.network.backoff().state(&b.name).await.unwrap().failures;
    eventually("the outage is noticed", async || failures().await > 0).await;
    for number in 0..100 {
        a.say("alice", &room, &number.to_string()).await;
    }
    let bob = user_id!("@bob:b.example");
    a.rooms.change(&a.actor("alice"), &room, bob, Change::Kick, None).await.unwrap();
    let last = a.say("alice", &room, "bob is out").await;
    // Bob comes back while somebody else, who has not heard of it yet, goes on.
    let back = b.join(&a, &room, bob.as_str()).await;
    let secret = c.message(&carol, "for those who are in", &[last.as_str()], back.depth);
    c.send(&a, "secret", std::slice::from_ref(&secret)).await;
    assert!(waiting().await > 60);
    *away.lock() = false;
    a.federation.retry(Some(&b.name)).await.unwrap();
    eventually("b is told", async || waiting().await == 0).await;
    let pdus = b.told("/send/").into_iter().flat_map(|body| body["pdus"].as_array().unwrap().clone());
    let told: Vec<OwnedEventId> = pdus
        .map(|pdu| Pdu::parse(carol.rules, pdu.to_string().as_bytes()).unwrap().event_id().to_owned())
        .collect();
    assert!(a.has(&secret.event_id().to_owned()).await && told.len() < 60, "{}", told.len());
    assert!(told.contains(&back.join), "the newest event that is for b");
    assert!(!told.contains(&secret.event_id().to_owned()));
}

#[tokio::test(start_paused = true)]
async fn who_is_put_out_while_their_server_is_away_is_out_when_it_is_back() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    b.join("carol", &room, &a).await;
    eventually("quiet", async || a.waiting(&b).await + b.waiting(&a).await == 0).await;
    net.unroute("b.example");
    a.say("alice", &room, "0").await;
    eventually("the outage is noticed", async || {
        a.network.backoff().state(&b.name).await.unwrap().failures > 0
    })
    .await;
    for number in 1..200 {
        a.say("alice", &room, &number.to_string()).await;
    }
    let out = [b.actor("bob").user, b.actor("carol").user];
    for user in &out {
        a.rooms.change(&a.actor("alice"), &room, user, Change::Ban, None).await.unwrap();
    }
    tokio::time::sleep(Duration::from_hours(1)).await;
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&told);
    net.judge(move |from, _, request| {
        if from == "a.example" && request.uri().path().starts_with("/_matrix/federation/v1/send/") {
            let body: Value = serde_json::from_slice(request.body()).unwrap();
            let members = body["pdus"].as_array().unwrap().iter();
            seen.lock().extend(members.filter_map(|pdu| pdu["state_key"].as_str()).map(str::to_owned));
        }
        Fate::Deliver
    });
    b.back(&net);
    a.federation.retry(Some(&b.name)).await.unwrap();
    let is_banned = async |user: &UserId| {
        let reader = b.store.read();
        let nid = reader.room_nid(&room).await.unwrap().unwrap();
        reader.membership(nid, user).await.unwrap().is_some_and(|(is, _)| is == Membership::Ban)
    };
    eventually("both are out", async || is_banned(&out[0]).await && is_banned(&out[1]).await).await;
    // Whoever is not told what was before the second ban hears of the first.
    assert_eq!(*told.lock(), out.each_ref().map(ToString::to_string));
}
