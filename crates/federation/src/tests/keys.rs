//! Keys: published, fetched once, vouched for by notaries, refused when they are weak.

mod notaries;
mod places;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use chappe_rooms::{KeysWanted, WantedKeys};
use chappe_rules::{build::SigningKey, json};
use chappe_store::{RoomNid, Tx, members::RoomServers, server_keys::ServerKeys};
use chappe_world::{FakeNet, Fate};
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use ruma::{CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName, server_name};
use serde_json::json;

use super::{Server, config, count, key, pair, peer::Peer};
use crate::{Config, OldKey, PinnedKey, keys::own_document};

const HOUR: u64 = 3_600_000;
const QUERY: &str = "/_matrix/key/v2/query";

fn wanted(server: &str, id: &str) -> KeysWanted {
    all_wanted(server, &[id])
}

fn all_wanted(server: &str, ids: &[&str]) -> KeysWanted {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    BTreeMap::from([(server.try_into().unwrap(), WantedKeys { ids, events: 1, at: 0 })])
}

/// The public key of a seed, in base64.
fn text(seed: u8) -> String {
    ruma::serde::Base64::<ruma::serde::base64::Standard, _>::new(key(seed).public_key()).encode()
}

/// The key of a seed, as one that was in use until some time.
fn before(seed: u8, expired_ts: u64) -> BTreeMap<ruma::OwnedServerSigningKeyId, OldKey> {
    let id = format!("ed25519:k{seed}");
    BTreeMap::from([(id.as_str().try_into().unwrap(), OldKey { key: text(seed), expired_ts })])
}

/// What a server with the key of a seed published at some time, good for a day.
fn published(server: &ServerName, seed: u8, at: u64) -> CanonicalJsonObject {
    own_document(server, &key(seed), &config(), at)
}

/// What a server published at some time that has a key of this id, and names so many others as old ones.
fn rotated(server: &ServerName, (id, old): (&str, usize), at: u64) -> CanonicalJsonObject {
    let entry = |number: usize| {
        let id = format!("ed25519:{id}_{number}");
        let id: ruma::OwnedServerSigningKeyId = id.as_str().try_into().unwrap();
        (id, OldKey { key: text(9), expired_ts: at })
    };
    let old_keys = (0..old).map(entry).collect();
    let key = SigningKey::from_seed([9; 32], id).unwrap();
    own_document(server, &key, &Config { old_keys, ..config() }, at)
}

/// Has a notary, whose key is of this seed, answer with these documents.
fn vouch(notary: &Peer, seed: u8, documents: Vec<CanonicalJsonObject>) {
    let name = notary.name.clone();
    let signed = documents.into_iter().map(|mut document| {
        key(seed).sign_json(&name, &mut document);
        document
    });
    let answer = json!({ "server_keys": signed.collect::<Vec<_>>() }).to_string();
    notary.answer(move |uri| uri.starts_with(QUERY).then(|| Body::from(answer.clone())));
}

/// A server that asks notaries, whose keys are of these seeds.
fn asker(net: &FakeNet, notaries: &[(&Peer, u8)]) -> Server {
    Server::start(net, "b.example", 3, asking(notaries))
}

fn asking(notaries: &[(&Peer, u8)]) -> Config {
    let pinned = |seed: &u8| {
        let id = format!("ed25519:k{seed}");
        BTreeMap::from([(id.as_str().try_into().unwrap(), PinnedKey::Current(text(*seed)))])
    };
    let pinned_keys = notaries.iter().map(|(notary, seed)| (notary.name.clone(), pinned(seed))).collect();
    let notaries = notaries.iter().map(|(notary, _)| notary.name.clone()).collect();
    Config { notaries, pinned_keys, ..config() }
}

/// Until when the key of a seed counts.
async fn until(server: &Server, of: &ServerName, seed: u8) -> Option<u64> {
    let id = format!("ed25519:k{seed}");
    let found = server.network.keys().for_events(&wanted(of.as_str(), &id), server.world.now()).await;
    let key = found.get(of)?.get(&id)?;
    Some(key.until.get().into())
}

#[tokio::test(start_paused = true)]
async fn notaries_know_what_a_server_signed_with_before_it_was_set_up_anew() {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 2, config());
    let n = Peer::start(&net, "n.example", 5);
    let b = asker(&net, &[(&n, 5)]);
    let now = b.world.now();
    vouch(&n, 5, vec![published(&a.name, 1, now - 12 * HOUR)]);
    let ring = b.network.keys();
    // What was found of it just now does not keep the notaries from being asked.
    assert!(ring.for_request(&a.name, "ed25519:k2").await.is_some());
    assert_eq!(n.asked(QUERY), 0);
    let found = ring.for_events(&all_wanted("a.example", &["ed25519:k1", "ed25519:k2"]), now).await;
    assert_eq!(found[&a.name]["ed25519:k1"].public, key(1).public_key());
    assert_eq!(
        (until(&b, &a.name, 1).await, until(&b, &a.name, 2).await),
        (Some(now), Some(now + 24 * HOUR))
    );
    assert!(ring.for_request(&a.name, "ed25519:k1").await.is_none(), "it does not sign with it any more");
    for _ in 0..5 {
        ring.for_events(&wanted("a.example", "ed25519:k7"), now).await;
    }
    assert_eq!(n.asked(QUERY), 1, "notaries are asked again and again");
}

#[tokio::test(start_paused = true)]
async fn all_that_notaries_know_is_put_together() {
    let net = FakeNet::new();
    let (n, o) = (Peer::start(&net, "n.example", 5), Peer::start(&net, "o.example", 6));
    let b = asker(&net, &[(&n, 5), (&o, 6)]);
    let (a, now) = (server_name!("a.example"), b.world.now());
    let mut forged = published(a, 9, now);
    forged.remove("signatures");
    vouch(&n, 5, vec![forged, published(a, 1, now - 48 * HOUR), published(a, 2, now - HOUR)]);
    vouch(&o, 6, vec![published(a, 4, now - 36 * HOUR)]);
    let ids = ["ed25519:k1", "ed25519:k2", "ed25519:k4", "ed25519:k9"];
    let found = b.network.keys().for_events(&all_wanted("a.example", &ids), now).await;
    let found: Vec<&str> = found[a].keys().map(String::as_str).collect();
    assert_eq!(found, ids[..3]);
    let ends = [until(&b, a, 1).await, until(&b, a, 2).await, until(&b, a, 4).await];
    assert_eq!(ends, [Some(now - 24 * HOUR), Some(now + 23 * HOUR), Some(now - 12 * HOUR)]);
}

#[tokio::test(start_paused = true)]
async fn an_older_document_takes_nothing_back() {
    let net = FakeNet::new();
    let n = Peer::start(&net, "n.example", 5);
    let b = asker(&net, &[(&n, 5)]);
    let first = b.world.now();
    let old_keys = before(1, first - HOUR);
    let a = Server::start(&net, "a.example", 2, Config { old_keys, ..config() });
    assert_eq!(until(&b, &a.name, 2).await, Some(first + 24 * HOUR));
    net.unroute("a.example");
    tokio::time::advance(Duration::from_hours(25)).await;
    vouch(&n, 5, vec![published(&a.name, 1, first - 2 * HOUR), published(&a.name, 2, first - 3 * HOUR)]);
    assert_eq!(until(&b, &a.name, 2).await, Some(first + 24 * HOUR));
    assert_eq!(n.asked(QUERY), 1);
    assert_eq!(until(&b, &a.name, 1).await, Some(first - HOUR), "it was laid aside");
    let kept = b.network.keys().kept_document(&a.name).await.unwrap();
    assert_eq!(kept.valid_until, first + 24 * HOUR, "others who ask get the newer one");
}

#[tokio::test(start_paused = true)]
async fn a_notary_makes_no_old_key_current_again() {
    let net = FakeNet::new();
    let n = Peer::start(&net, "n.example", 5);
    let b = asker(&net, &[(&n, 5)]);
    let first = b.world.now();
    let a = Server::start(&net, "a.example", 2, Config { old_keys: before(1, first - HOUR), ..config() });
    until(&b, &a.name, 2).await;
    net.unroute("a.example");
    tokio::time::advance(Duration::from_hours(25)).await;
    vouch(&n, 5, vec![published(&a.name, 1, b.world.now())]);
    until(&b, &a.name, 2).await;
    assert_eq!(n.asked(QUERY), 1);
    assert!(b.network.keys().for_request(&a.name, "ed25519:k1").await.is_none());
    assert_eq!(until(&b, &a.name, 1).await, Some(first - HOUR));
    let kept = b.network.keys().kept_document(&a.name).await.unwrap();
    assert_eq!(kept.valid_until, first + 24 * HOUR, "nor is it told to others");
}

#[tokio::test(start_paused = true)]
async fn an_old_key_signs_no_request_and_vouches_until_it_was_laid_aside() {
    let net = FakeNet::new();
    let b = Server::start(&net, "b.example", 3, config());
    let now = b.world.now();
    let old_keys = before(9, now + 365 * 24 * HOUR);
    let a = Server::start(&net, "a.example", 2, Config { old_keys, ..config() });
    let ring = b.network.keys();
    assert!(ring.for_request(&a.name, "ed25519:k2").await.is_some());
    assert!(ring.for_request(&a.name, "ed25519:k9").await.is_none());
    assert_eq!(until(&b, &a.name, 9).await, Some(now), "an end in the future is none");

    let pinned = before(9, now + HOUR).into_iter().map(|(id, old)| (id, PinnedKey::Old(old)));
    let current = ("ed25519:k8".try_into().unwrap(), PinnedKey::Current(text(8)));
    let pinned_keys = BTreeMap::from([(a.name.clone(), pinned.chain([current]).collect())]);
    let c = Server::start(&net, "c.example", 4, Config { pinned_keys, ..config() });
    let ring = c.network.keys();
    assert!(ring.for_request(&a.name, "ed25519:k8").await.is_some());
    assert!(ring.for_request(&a.name, "ed25519:k9").await.is_none());
    assert_eq!(until(&c, &a.name, 9).await, Some(now + HOUR));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_askers_fetch_a_key_once() {
    let net = FakeNet::new();
    let (a, b) = pair(&net);
    let fetches = count(&net, "/_matrix/key/v2/server");
    let wanted = wanted("a.example", "ed25519:k1");
    let ring = b.network.keys();
    let found = join_all((0..100).map(|_| ring.for_events(&wanted, b.world.now()))).await;
    assert!(found.iter().all(|found| found[&a.name]["ed25519:k1"].public == key(1).public_key()));
    assert_eq!(fetches.load(SeqCst), 1);
    ring.for_events(&wanted, b.world.now()).await;
    assert_eq!(fetches.load(SeqCst), 1, "a known key was fetched again");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_id_is_not_asked_for_again_and_again() {
    let net = FakeNet::new();
    let (_a, b) = pair(&net);
    let fetches = count(&net, "/_matrix/key/v2/server");
    for _ in 0..5 {
        let found = b.network.keys().for_events(&wanted("a.example", "ed25519:other"), 0).await;
        assert!(found.is_empty());
    }
    assert_eq!(fetches.load(SeqCst), 1);
    tokio::time::advance(Duration::from_hours(1)).await;
    b.network.keys().for_events(&wanted("a.example", "ed25519:other"), 0).await;
    assert_eq!(fetches.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_back_is_not_left_alone_for_as_long_as_it_was_away() {
    let net = FakeNet::new();
    let (a, b) = pair(&net);
    let ring = b.network.keys();
    net.unroute("a.example");
    for _ in 0..10 {
        assert!(ring.for_request(&a.name, "ed25519:k1").await.is_none());
        tokio::time::advance(Duration::from_hours(2)).await;
    }
    assert!(ring.for_request(&a.name, "ed25519:k1").await.is_none());
    a.back(&net);
    assert!(ring.for_request(&a.name, "ed25519:k1").await.is_none(), "it was asked just now");
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(ring.for_request(&a.name, "ed25519:k1").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_keys_were_asked_for_in_vain_is_asked_again_soon_and_less_and_less() {
    let net = FakeNet::new();
    let (a, b) = pair(&net);
    let (fetches, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
    let (counted, is_lost) = (Arc::clone(&fetches), Arc::clone(&lost));
    net.judge(move |_, _, request| {
        let is_fetch = request.uri().path().starts_with("/_matrix/key/v2/server");
        counted.fetch_add(usize::from(is_fetch), SeqCst);
        if is_fetch && is_lost.load(SeqCst) { Fate::Unreachable } else { Fate::Deliver }
    });
    let ring = b.network.keys();
    // Somebody goes on claiming to be this server.
    let claims = async |number: u32| {
        let before = fetches.load(SeqCst);
        for _ in 0..number {
            assert!(ring.for_request(&a.name, "ed25519:k1").await.is_none());
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        fetches.load(SeqCst) - before
    };
    assert_eq!(claims(600).await, 6, "in the first minute");
    assert_eq!(claims(6_000).await, 10, "in ten more");

    let other = Server::start(&net, "c.example", 4, config());
    assert!(ring.for_request(&other.name, "ed25519:k4").await.is_none());
    lost.store(false, SeqCst);
    assert!(ring.for_request(&other.name, "ed25519:k4").await.is_none(), "it was asked just now");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(ring.for_request(&other.name, "ed25519:k4").await.is_some(), "one lost packet");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_not_waited_for_long() {
    let net = FakeNet::new();
    let b = Server::start(&net, "b.example", 2, Config { timeout: 600, ..config() });
    net.judge(|_, _, _| Fate::Delay(Duration::from_hours(1)));
    let begun = b.world.now();
    assert!(b.network.keys().for_request(server_name!("n.example"), "ed25519:k").await.is_none());
    assert!(b.world.now() - begun < 31_000, "it was waited for {} ms", b.world.now() - begun);
}

#[tokio::test(start_paused = true)]
async fn a_notary_vouches_for_a_server_that_is_away() {
    let net = FakeNet::new();
    let (a, b) = pair(&net);
    let notaries = vec![b.name.clone()];
    let c = Server::start(&net, "c.example", 3, Config { notaries, ..config() });
    b.network.keys().for_events(&wanted("a.example", "ed25519:k1"), 0).await;
    net.unroute("a.example");
    let found = c.network.keys().for_events(&wanted("a.example", "ed25519:k1"), 0).await;
    assert_eq!(found[&a.name]["ed25519:k1"].public, key(1).public_key());
    assert_eq!(
        c.network.keys().ids(server_name!("b.example")).await,
        BTreeSet::from(["ed25519:k2".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_notary_a_server_that_is_away_has_no_keys() {
    let net = FakeNet::new();
    let c = Server::start(&net, "c.example", 3, config());
    assert!(c.network.keys().for_events(&wanted("a.example", "ed25519:k1"), 0).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn pinned_keys_count_alone_and_nobody_is_asked() {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 1, config());
    let fetches = count(&net, "/_matrix/key/v2/server");
    let pinned = BTreeMap::from([("ed25519:k9".try_into().unwrap(), PinnedKey::Current(text(9)))]);
    let pinned_keys = BTreeMap::from([(a.name.clone(), pinned)]);
    let b = Server::start(&net, "b.example", 2, Config { pinned_keys, ..config() });
    let ring = b.network.keys();
    assert!(ring.for_events(&wanted("a.example", "ed25519:k1"), 0).await.is_empty(), "what a publishes");
    let found = ring.for_events(&wanted("a.example", "ed25519:k9"), b.world.now()).await;
    assert_eq!(found[&a.name]["ed25519:k9"].public, key(9).public_key());
    assert!(ring.for_request(&a.name, "ed25519:k1").await.is_none());
    assert!(ring.for_request(&a.name, "ed25519:k9").await.is_some());
    assert_eq!(fetches.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn what_this_server_signed_with_an_earlier_key_still_counts_here() {
    let net = FakeNet::new();
    let b = Server::start(&net, "b.example", 2, Config { old_keys: before(9, 7), ..config() });
    let known = chappe_rooms::Peers::keys(&b.network, &wanted("b.example", "ed25519:k9")).await;
    let own = &known[&b.name]["ed25519:k9"];
    assert_eq!((own.public, u64::from(own.until.get())), (key(9).public_key(), 7));
}

#[tokio::test(start_paused = true)]
async fn a_server_is_not_left_alone_because_this_one_had_too_much_under_way() {
    let net = FakeNet::new();
    let (a, b) = pair(&net);
    let ring = b.network.keys();
    net.judge(|_, _, _| Fate::Busy);
    assert!(ring.for_request(&a.name, "ed25519:k1").await.is_none());
    net.judge(|_, _, _| Fate::Deliver);
    assert!(ring.for_request(&a.name, "ed25519:k1").await.is_some());

    let away = server_name!("away.example");
    let fetches = count(&net, "/_matrix/key/v2/server");
    for _ in 0..5 {
        assert!(ring.for_request(away, "ed25519:k1").await.is_none());
    }
    assert_eq!(fetches.load(SeqCst), 1, "one that is away is");
}

#[tokio::test(start_paused = true)]
async fn notaries_that_could_not_be_asked_are_asked_again() {
    let net = FakeNet::new();
    let n = Peer::start(&net, "n.example", 5);
    let notaries = vec![n.name.clone()];
    let id = "ed25519:k5".try_into().unwrap();
    let pinned_keys = BTreeMap::from([(n.name.clone(), BTreeMap::from([(id, PinnedKey::Current(text(5)))]))]);
    let allow = Some(vec![n.name.to_string()]);
    let b = Server::start(&net, "b.example", 3, Config { allow, notaries, pinned_keys, ..config() });
    let (gone, now) = (server_name!("gone.example"), b.world.now());
    vouch(&n, 5, vec![published(gone, 1, now)]);
    net.judge(|_, _, _| Fate::Busy);
    assert!(until(&b, gone, 1).await.is_none());
    net.judge(|_, _, _| Fate::Deliver);
    assert!(until(&b, gone, 1).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_fetch_of_keys_that_breaks_down_is_not_the_last() {
    let net = FakeNet::new();
    let (a, b) = pair(&net);
    net.judge(|_, _, request| {
        if request.uri().path().starts_with("/_matrix/key/v2/server") {
            std::panic::resume_unwind(Box::new("a defect"));
        }
        Fate::Deliver
    });
    let ring = b.network.keys();
    assert!(ring.for_request(&a.name, "ed25519:k1").await.is_none());
    net.judge(|_, _, _| Fate::Deliver);
    assert!(ring.for_request(&a.name, "ed25519:k1").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn of_a_document_that_is_more_than_one_the_keys_alone_are_kept() {
    let net = FakeNet::new();
    let n = Peer::start(&net, "n.example", 5);
    let b = asker(&net, &[(&n, 5)]);
    let (a, now) = (server_name!("a.example"), b.world.now());
    let mut odd = published(a, 1, now);
    odd.remove("signatures");
    odd.insert("more".to_owned(), CanonicalJsonValue::Bool(true));
    key(1).sign_json(a, &mut odd);
    vouch(&n, 5, vec![odd]);
    assert!(until(&b, a, 1).await.is_some());
    assert_eq!(b.network.keys().kept_document(a).await.unwrap().json, "");
}

#[tokio::test(start_paused = true)]
async fn keys_of_servers_that_nobody_meets_do_not_fill_the_disk() {
    let net = FakeNet::new();
    let n = Peer::start(&net, "n.example", 5);
    let b = asker(&net, &[(&n, 5)]);
    let servers: Vec<OwnedServerName> =
        (0..10).map(|n| ServerName::parse(format!("s{n}.example")).unwrap()).collect();
    let ring = b.network.keys();
    for server in &servers {
        vouch(&n, 5, vec![published(server, 1, b.world.now())]);
        assert!(until(&b, server, 1).await.is_some(), "{server}");
        tokio::time::advance(Duration::from_mins(1)).await;
    }
    let mut tx = Tx::new();
    tx.add::<RoomServers>(&(RoomNid(1), servers[0].clone()), 1);
    b.store.commit(tx).await.unwrap();
    let kept = async |most: usize| {
        ring.drop_surplus(most).await.unwrap();
        let mut kept = Vec::new();
        for (n, server) in servers.iter().enumerate() {
            let document = ring.kept_document(server).await;
            assert_eq!(document.is_some(), !ring.ids(server).await.is_empty(), "{server}");
            kept.extend(document.map(|_| n));
        }
        kept
    };
    assert_eq!(kept(10).await.len(), 10);
    assert_eq!(kept(3).await, [0, 7, 8, 9], "who is met, and those that came last");
}

#[tokio::test(start_paused = true)]
async fn of_a_server_that_has_another_key_each_time_so_many_are_kept() {
    let net = FakeNet::new();
    let b = Server::start(&net, "b.example", 3, config());
    let (a, ring, number) = (server_name!("a.example"), b.network.keys(), Arc::new(AtomicUsize::new(0)));
    let (current, here) = (Arc::clone(&number), b.world.clone());
    let service = tower::service_fn(move |_: Request<Full<Bytes>>| {
        let id = format!("x{}", current.load(SeqCst));
        let document = json::canonical(&rotated(a, (&id, 0), here.now()));
        async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(document)))) }
    });
    net.route(a.as_str(), &b.world, service);
    for n in 0..80 {
        number.store(n, SeqCst);
        assert!(ring.for_request(a, &format!("ed25519:x{n}")).await.is_some(), "{n}");
        tokio::time::advance(Duration::from_secs(31)).await;
    }
    let last: BTreeSet<String> = (15..80).map(|n| format!("ed25519:x{n}")).collect();
    assert_eq!(ring.ids(a).await, last, "the one that it names, and those that end last");
}

#[tokio::test(start_paused = true)]
async fn what_a_notary_says_puts_no_key_out_and_comes_to_an_end() {
    let net = FakeNet::new();
    let n = Peer::start(&net, "n.example", 5);
    let b = asker(&net, &[(&n, 5)]);
    let first = b.world.now();
    let a = Server::start(&net, "a.example", 2, Config { old_keys: before(1, first - HOUR), ..config() });
    assert!(until(&b, &a.name, 2).await.is_some());
    net.unroute("a.example");
    tokio::time::advance(Duration::from_hours(25)).await;
    // Newer than what is kept, and older.
    let at = [b.world.now(), first - HOUR];
    let documents = (0..6).map(|d| rotated(&a.name, (&format!("d{d}"), 99), at[d % 2])).collect();
    vouch(&n, 5, documents);
    until(&b, &a.name, 7).await;
    let kept = async || b.store.read().scan_all::<ServerKeys>(&a.name).await.unwrap().len();
    assert_eq!(kept().await, 264);
    assert_eq!(until(&b, &a.name, 1).await, Some(first - HOUR), "what the server said itself");
    a.back(&net);
    assert!(b.network.keys().for_request(&a.name, "ed25519:k2").await.is_some());
    assert_eq!(kept().await, 66, "what it names, and so many more");
    assert_eq!(until(&b, &a.name, 1).await, Some(first - HOUR));
}
