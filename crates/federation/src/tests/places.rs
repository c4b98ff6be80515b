//! Who is sent to while many others keep this server waiting, and how much of it is in memory.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use chappe_store::{
    Json, OutboxItem, Tx,
    outbox::{DestinationState, Destinations},
};
use chappe_world::{FakeNet, Fate};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};

use super::{Server, config, eventually, memory, peer::Peer};
use crate::Config;

const SEND: &str = "/_matrix/federation/v1/send/";

/// A peer that takes every transaction.
fn taker(net: &FakeNet, name: &str) -> Peer {
    let peer = Peer::start(net, name, 9);
    peer.answer(|uri| uri.contains(SEND).then(|| Body::from("{}")));
    peer
}

/// Something waits for a server that was not reached so many times, and may be tried again.
fn failed(tx: &mut Tx, server: &ServerName, failures: u32) {
    tx.enqueue(server, &OutboxItem::ToDevice("{}".to_owned()));
    let state = DestinationState { failures, retry_at: 1, ..DestinationState::default() };
    tx.put::<Destinations>(&server.to_owned(), &Json(state));
}

#[tokio::test(start_paused = true)]
async fn who_was_away_for_a_moment_or_shows_life_does_not_wait_for_the_dead() {
    let (net, store) = (FakeNet::new(), memory());
    let brief = taker(&net, "one.example");
    let (alive, asked) = (taker(&net, "three.example"), taker(&net, "two.example"));
    let a = Server::build(&net, "a.example", 1, config(), store);
    let mut tx = Tx::new();
    for number in 0..1_000 {
        let dead = OwnedServerName::try_from(format!("dead{number}.example")).unwrap();
        net.route(dead.as_str(), &a.world, a.router.clone());
        failed(&mut tx, &dead, 9);
    }
    for (peer, failures) in [(&brief, 1), (&alive, 9), (&asked, 9)] {
        failed(&mut tx, &peer.name, failures);
    }
    a.store.commit(tx).await.unwrap();
    net.judge(|_, to, _| if to.starts_with("dead") { Fate::Lose } else { Fate::Deliver });
    let begun = a.world.now();
    a.federation.start();
    eventually("it is sent to", async || brief.asked(SEND) > 0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((alive.asked(SEND), asked.asked(SEND)), (0, 0), "they had a place");
    a.network.backoff().heard_from(&alive.name);
    eventually("life is seen", async || alive.asked(SEND) > 0).await;
    a.federation.retry(Some(&asked.name)).await.unwrap();
    eventually("it is tried", async || asked.asked(SEND) > 0).await;
    assert!(a.world.now() - begun < 5_000, "{} ms", a.world.now() - begun);
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_of_ones_own_all_can_be_tried() {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 1, Config { backoff_min_ms: 600_000, ..config() });
    let peers = ["b.example", "c.example"].map(|name| taker(&net, name));
    let is_out = Arc::new(Mutex::new(true));
    let is_cut = Arc::clone(&is_out);
    net.judge(move |_, _, _| if *is_cut.lock() { Fate::Unreachable } else { Fate::Deliver });
    let mut tx = Tx::new();
    for peer in &peers {
        tx.enqueue(&peer.name, &OutboxItem::ToDevice("{}".to_owned()));
    }
    a.store.commit(tx).await.unwrap();
    for peer in &peers {
        let failures = async || a.network.backoff().state(&peer.name).await.unwrap().failures;
        eventually("the outage is noticed", async || failures().await == 1).await;
    }
    *is_out.lock() = false;
    let begun = a.world.now();
    a.federation.retry(None).await.unwrap();
    eventually("all are tried", async || peers.iter().all(|peer| peer.asked(SEND) == 1)).await;
    assert!(a.world.now() - begun < 5_000);
}

/// So many long messages wait for a server.
fn enqueue_long(tx: &mut Tx, server: &ServerName, count: usize) {
    for _ in 0..count {
        let content = format!(r#"{{"long":"{}"}}"#, "x".repeat(60_000));
        tx.enqueue(server, &OutboxItem::ToDevice(content));
    }
}

#[tokio::test(start_paused = true)]
async fn few_long_transactions_are_under_way_at_once() {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 1, config());
    let sizes: Arc<Mutex<Vec<usize>>> = Arc::default();
    let seen = Arc::clone(&sizes);
    net.judge(move |_, _, request| {
        if request.uri().path().starts_with(SEND) {
            seen.lock().push(request.body().len());
            return Fate::Lose;
        }
        Fate::Deliver
    });
    let mut tx = Tx::new();
    for number in 0..40 {
        let silent = OwnedServerName::try_from(format!("silent{number}.example")).unwrap();
        net.route(silent.as_str(), &a.world, a.router.clone());
        enqueue_long(&mut tx, &silent, 5);
    }
    a.store.commit(tx).await.unwrap();
    eventually("all are tried", async || sizes.lock().len() == 40).await;
    let sizes = sizes.lock().clone();
    assert_eq!(sizes.iter().filter(|size| **size > 200_000).count(), 32, "{sizes:?}");
}

#[tokio::test(start_paused = true)]
async fn who_was_not_reached_last_time_is_sent_no_long_transaction_at_first() {
    let net = FakeNet::new();
    let peer = taker(&net, "peer.example");
    let a = Server::build(&net, "a.example", 1, config(), memory());
    let mut tx = Tx::new();
    failed(&mut tx, &peer.name, 9);
    enqueue_long(&mut tx, &peer.name, 10);
    a.store.commit(tx).await.unwrap();
    let sizes: Arc<Mutex<Vec<usize>>> = Arc::default();
    let seen = Arc::clone(&sizes);
    net.judge(move |_, _, request| {
        if request.uri().path().starts_with(SEND) {
            seen.lock().push(request.body().len());
        }
        Fate::Deliver
    });
    a.federation.start();
    eventually("all is taken", async || a.store.read().outbox(&peer.name, 1).await.unwrap().is_empty()).await;
    let sizes = sizes.lock().clone();
    assert!(sizes[0] < 200_000 && sizes[1] > 200_000, "{sizes:?}");
}

#[tokio::test(start_paused = true)]
async fn who_shows_life_stays_where_it_stands_among_those_of_its_kind() {
    let net = FakeNet::new();
    let a = Server::build(&net, "a.example", 1, Config { concurrent_sends: 2, ..config() }, memory());
    let mut tx = Tx::new();
    for name in ["d1.example", "d2.example", "d3.example"] {
        net.route(name, &a.world, a.router.clone());
        failed(&mut tx, <&ServerName>::try_from(name).unwrap(), 1);
    }
    let (first, second) = (taker(&net, "e.example"), taker(&net, "f.example"));
    for peer in [&first, &second] {
        failed(&mut tx, &peer.name, 1);
    }
    a.store.commit(tx).await.unwrap();
    let sent: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&sent);
    net.judge(move |_, to, request| {
        if !request.uri().path().starts_with(SEND) {
            return Fate::Deliver;
        }
        seen.lock().push(to.to_owned());
        if to.starts_with('d') { Fate::Lose } else { Fate::Deliver }
    });
    a.federation.start();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(*sent.lock(), ["d1.example", "d2.example", "d3.example"], "there is a place");
    a.network.backoff().heard_from(&first.name);
    eventually("all are sent to", async || second.asked(SEND) > 0 && first.asked(SEND) > 0).await;
    let place = |peer: &Peer| sent.lock().iter().position(|to| *to == peer.name.as_str());
    assert!(place(&first) < place(&second), "{:?}", sent.lock());
}
