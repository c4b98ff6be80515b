//! Notaries: when they are asked, and what is believed of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Body;
use chappe_kv::{Batch, Db, Fault, Faulty, Memory};
use chappe_store::{
    Json, Store, Table, Tx,
    server_keys::{KeyDocument, KeyDocuments},
};
use chappe_web::Rate;
use chappe_world::{FakeNet, Fate};
use http::{Request, StatusCode};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName, server_name};
use serde_json::{Map, Value, json};

use super::{
    super::{Server, config, count, peer::Peer},
    HOUR, QUERY, asker, asking, before, published, until, vouch, wanted,
};
use crate::{Config, Rates};

/// The documents that a server tells as a notary, asked for keys with these ids of these servers.
async fn told(notary: &Server, servers: &[&str], ids: &[&str]) -> Vec<Value> {
    let ids: Map<String, Value> = ids.iter().map(|id| ((*id).to_owned(), json!({}))).collect();
    let servers: Map<String, Value> =
        servers.iter().map(|server| ((*server).to_owned(), ids.clone().into())).collect();
    let body = json!({ "server_keys": servers }).to_string();
    let (status, told) = notary.answer(Request::post(QUERY).body(Body::from(body)).unwrap()).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    told["server_keys"].as_array().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_known_key_is_not_asked_for_again_and_again_whatever_events_are_dated() {
    let net = FakeNet::new();
    let n = Peer::start(&net, "n.example", 5);
    let a = Server::start(&net, "a.example", 1, config());
    let short = Config { key_validity: 60, ..config() };
    let c = Server::start(&net, "c.example", 2, short);
    let b = asker(&net, &[(&n, 5)]);
    let fetches = count(&net, "/_matrix/key/v2/server");
    let (ring, now) = (b.network.keys(), b.world.now());
    for _ in 0..5 {
        ring.for_events(&wanted("c.example", "ed25519:k2"), now + HOUR / 2).await;
    }
    assert_eq!(fetches.load(SeqCst), 1, "{} ends before the event each time", c.name);
    for _ in 0..3 {
        ring.for_events(&wanted("a.example", "ed25519:k1"), now + 1_000 * 24 * HOUR).await;
        tokio::time::advance(Duration::from_mins(2)).await;
    }
    assert_eq!(fetches.load(SeqCst), 2, "the key of {} is good for a day", a.name);
}

#[tokio::test(start_paused = true)]
async fn a_notary_may_change_its_key() {
    let net = FakeNet::new();
    let n = Peer::start(&net, "n.example", 5);
    let b = Server::start(&net, "b.example", 3, Config { notaries: vec![n.name.clone()], ..config() });
    let (a, c) = (server_name!("a.example"), server_name!("c.example"));
    vouch(&n, 5, vec![published(a, 1, b.world.now())]);
    assert!(until(&b, a, 1).await.is_some());
    tokio::time::advance(Duration::from_mins(1)).await;
    let anew = Peer::start(&net, "n.example", 6);
    vouch(&anew, 6, vec![published(c, 2, b.world.now())]);
    assert!(until(&b, c, 2).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_a_notary_says_is_judged_by_what_is_kept_when_it_is_written() {
    let net = FakeNet::new();
    let n = Peer::start(&net, "n.example", 5);
    let judged = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&judged);
    // Another document comes before the first is written.
    let plan = move |batch: &Batch| {
        let is_document = |key: &[u8]| key.first() == Some(&KeyDocuments::INFO.number);
        let is_judged = batch.expectations.iter().any(|expected| is_document(expected.key()));
        (is_judged && seen.fetch_add(1, SeqCst) == 0).then_some(Fault::Conflict)
    };
    let store = Store::new(Db::new(Faulty::new(Memory::default(), Arc::new(Mutex::new(plan)))));
    let b = Server::build(&net, "b.example", 3, asking(&[(&n, 5)]), store);
    let a = server_name!("a.example");
    vouch(&n, 5, vec![published(a, 1, b.world.now())]);
    assert!(until(&b, a, 1).await.is_some());
    assert_eq!(judged.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_notary_asks_for_a_key_that_its_document_does_not_name() {
    let net = FakeNet::new();
    let _before = Server::start(&net, "a.example", 1, config());
    let b = Server::start(&net, "b.example", 3, config());
    let fetches = count(&net, "/_matrix/key/v2/server");
    let named = async |ids: &[&str]| {
        let told = told(&b, &["a.example"], ids).await;
        told[0]["verify_keys"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(named(&["ed25519:k1"]).await, ["ed25519:k1"]);
    let old_keys = before(1, b.world.now());
    let _a = Server::start(&net, "a.example", 2, Config { old_keys, ..config() });
    tokio::time::advance(Duration::from_secs(31)).await;
    for ids in [vec![], vec!["ed25519:k1"]] {
        assert_eq!(named(&ids).await, ["ed25519:k1"], "what is here is good for a day");
    }
    assert_eq!(fetches.load(SeqCst), 1);
    assert_eq!(named(&["ed25519:k1", "ed25519:k2"]).await, ["ed25519:k2"]);
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(named(&["ed25519:k1", "ed25519:k2"]).await, ["ed25519:k2"], "both are named");
    assert_eq!(fetches.load(SeqCst), 2);
    for _ in 0..100 {
        assert_eq!(named(&["ed25519:nobodys"]).await, ["ed25519:k2"]);
    }
    assert_eq!(fetches.load(SeqCst), 3, "it is asked again and again");
}

#[tokio::test(start_paused = true)]
async fn a_notary_asks_again_once_half_of_the_time_of_a_document_is_over() {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 1, config());
    let b = Server::start(&net, "b.example", 3, config());
    let fetches = count(&net, "/_matrix/key/v2/server");
    let told = async || told(&b, &["a.example"], &[]).await[0]["valid_until_ts"].as_u64().unwrap();
    let first = told().await;
    tokio::time::advance(Duration::from_hours(11)).await;
    assert_eq!((told().await, fetches.load(SeqCst)), (first, 1), "it is good for a day");
    tokio::time::advance(Duration::from_hours(2)).await;
    let second = told().await;
    assert!(second > first);
    assert_eq!((told().await, fetches.load(SeqCst)), (second, 2));
    tokio::time::advance(Duration::from_hours(13)).await;
    net.unroute("a.example");
    for _ in 0..50 {
        assert_eq!(told().await, second, "it is still good");
    }
    assert!(fetches.load(SeqCst) < 6, "it is asked again and again");
    // Nor is whoever asks kept waiting for a newer one.
    a.back(&net);
    net.judge(|_, _, _| Fate::Delay(Duration::from_hours(1)));
    tokio::time::advance(Duration::from_mins(2)).await;
    let begun = b.world.now();
    assert_eq!(told().await, second);
    assert!(b.world.now() - begun < 10_000, "it was waited for {} ms", b.world.now() - begun);
}

#[tokio::test(start_paused = true)]
async fn what_strangers_have_a_notary_ask_again_is_counted() {
    let net = FakeNet::new();
    let _a = Server::start(&net, "a.example", 1, config());
    let rates = Rates { key_lookups: Rate::new(0.000_000_001, 1), ..Rates::default() };
    let b = Server::start(&net, "b.example", 3, Config { rates, ..config() });
    let fetches = count(&net, "/_matrix/key/v2/server");
    assert_eq!(told(&b, &["a.example"], &[]).await.len(), 1);
    tokio::time::advance(Duration::from_hours(13)).await;
    assert_eq!(told(&b, &["a.example"], &[]).await.len(), 1);
    assert_eq!(fetches.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn of_more_servers_than_it_asks_a_notary_tells_what_is_at_hand_and_so_much() {
    let net = FakeNet::new();
    let y = Server::start(&net, "y.example", 3, config());
    let (met, _unmet) = (Peer::start(&net, "z0.example", 5), Peer::start(&net, "z1.example", 6));
    assert!(y.network.keys().for_request(&met.name, "ed25519:k5").await.is_some());
    let made_up: Vec<String> = (0..100).map(|n| format!("n{n}.example")).collect();
    let many: Vec<&str> = made_up.iter().map(String::as_str).collect();
    let all = [&many[..], &["y.example", "z0.example", "z1.example"]].concat();
    let documents = told(&y, &all, &[]).await;
    let names: Vec<&str> = documents.iter().filter_map(|document| document["server_name"].as_str()).collect();
    assert_eq!(names, ["y.example", "z0.example"]);
    assert!(documents[1]["signatures"]["y.example"].is_object(), "{documents:?}");

    let long: Vec<OwnedServerName> =
        (0..60).map(|n| ServerName::parse(format!("zz{n}.example")).unwrap()).collect();
    let mut tx = Tx::new();
    for server in &long {
        let json = json!({ "server_name": server, "tls_fingerprints": "x".repeat(30 << 10) }).to_string();
        let kept = KeyDocument { fetched_at: 0, valid_until: y.world.now() + HOUR, json };
        tx.put::<KeyDocuments>(server, &Json(kept));
    }
    y.store.commit(tx).await.unwrap();
    let all: Vec<&str> = many.iter().copied().chain(long.iter().map(|server| server.as_str())).collect();
    let documents = told(&y, &all, &[]).await;
    assert!((30..40).contains(&documents.len()), "{} documents of 30 KiB", documents.len());
}

#[tokio::test(start_paused = true)]
async fn what_a_notary_has_at_hand_of_many_servers_it_tells_an_address_so_often() {
    let net = FakeNet::new();
    let rates = Rates { key_lookups: Rate::new(0.000_1, 2), ..Rates::default() };
    let y = Server::start(&net, "y.example", 3, Config { rates, ..config() });
    let met = Peer::start(&net, "z.example", 5);
    assert!(y.network.keys().for_request(&met.name, "ed25519:k5").await.is_some());
    let made_up: Vec<String> = (0..100).map(|n| format!("n{n}.example")).collect();
    let all: Vec<&str> = made_up.iter().map(String::as_str).chain(["z.example"]).collect();
    for number in [1, 1, 0, 0] {
        assert_eq!(told(&y, &all, &[]).await.len(), number);
    }
    assert_eq!(told(&y, &["z.example"], &[]).await.len(), 1, "it was among the first");
}
