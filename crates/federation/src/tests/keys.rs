//! Keys: published, fetched once, vouched for by notaries, refused when they are weak.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use axum::body::Body;
use chappe_store::{RoomNid, Tx, members::RoomServers};
use chappe_world::{FakeNet, Fate};
use futures_util::future::join_all;
use parking_lot::Mutex;
use ruma::{CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName, server_name};
use serde_json::json;

use super::{Server, config, count, key, peer::Peer};
use crate::{
    Config, OldKey, PinnedKey,
    keys::{Haste, own_document},
};

const HOUR: u64 = 3_600_000;
const QUERY: &str = "/_matrix/key/v2/query";

fn wanted(server: &str, id: &str) -> BTreeMap<OwnedServerName, BTreeSet<String>> {
    all_wanted(server, &[id])
}

fn all_wanted(server: &str, ids: &[&str]) -> BTreeMap<OwnedServerName, BTreeSet<String>> {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    BTreeMap::from([(server.try_into().unwrap(), ids)])
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
    let pinned = |seed: &u8| {
        let id = format!("ed25519:k{seed}");
        BTreeMap::from([(id.as_str().try_into().unwrap(), PinnedKey::Current(text(*seed)))])
    };
    let pinned_keys = notaries.iter().map(|(notary, seed)| (notary.name.clone(), pinned(seed))).collect();
    let notaries = notaries.iter().map(|(notary, _)| notary.name.clone()).collect();
    Server::start(net, "b.example", 3, Config { notaries, pinned_keys, ..config() })
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
    let (a, b) =
        (Server::start(&net, "a.example", 1, config()), Server::start(&net, "b.example", 2, config()));
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
async fn servers_that_events_name_hold_up_no_requests_and_end() {
    let net = FakeNet::new();
    let (a, b) =
        (Server::start(&net, "a.example", 1, config()), Server::start(&net, "b.example", 2, config()));
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = Arc::clone(&asked);
    net.judge(move |_, to, _| {
        if !to.starts_with('n') {
            return Fate::Deliver;
        }
        noted.lock().insert(to.to_owned());
        Fate::Delay(Duration::from_hours(1))
    });
    let named: BTreeMap<OwnedServerName, BTreeSet<String>> =
        (0..2_000).flat_map(|number| wanted(&format!("n{number}.example"), "ed25519:k")).collect();
    let ring = b.network.keys();
    let mut checked = std::pin::pin!(ring.for_events(&named, b.world.now()));
    let key = tokio::select! {
        biased;
        _ = &mut checked => panic!("nobody waits for those that do not answer"),
        key = ring.for_request(&a.name, "ed25519:k1") => key,
    };
    assert!(key.is_some());
    assert!(asked.lock().len() <= 128, "{} servers were asked before", asked.lock().len());
    let begun = b.world.now();
    assert!(checked.await.is_empty());
    assert!(b.world.now() - begun < 2 * 60_000, "events wait for servers without end");
}

#[tokio::test(start_paused = true)]
async fn for_a_join_more_servers_are_asked_for_keys_at_the_same_time() {
    let net = FakeNet::new();
    let b = Server::start(&net, "b.example", 2, config());
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = Arc::clone(&asked);
    net.judge(move |_, to, _| {
        noted.lock().insert(to.to_owned());
        Fate::Delay(Duration::from_hours(1))
    });
    let named: BTreeMap<OwnedServerName, BTreeSet<String>> =
        (0..2_000).flat_map(|number| wanted(&format!("n{number}.example"), "ed25519:k")).collect();
    for (haste, number) in [(Haste::Told, 128), (Haste::Join, 256)] {
        asked.lock().clear();
        let found = b.network.keys().look_for(&named, b.world.now(), haste);
        assert!(b.world.timeout(Duration::from_secs(5), found).await.is_none());
        assert_eq!(asked.lock().len(), number, "{haste:?}");
        b.world.sleep(Duration::from_mins(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_with_events_for_the_keys_of_its_server() {
    let net = FakeNet::new();
    let (a, b) =
        (Server::start(&net, "a.example", 1, config()), Server::start(&net, "b.example", 2, config()));
    net.judge(
        |_, to, _| {
            if to.starts_with('n') { Fate::Delay(Duration::from_hours(1)) } else { Fate::Deliver }
        },
    );
    let (ring, now, soon) = (b.network.keys(), b.world.now(), Duration::from_secs(1));
    let named = |numbers: std::ops::Range<usize>| -> BTreeMap<OwnedServerName, BTreeSet<String>> {
        numbers.flat_map(|number| wanted(&format!("n{number}.example"), "ed25519:k")).collect()
    };
    let (some, more, own) = (named(0..128), named(128..256), wanted("a.example", "ed25519:k1"));
    let crowd = futures_util::future::join(ring.for_events(&some, now), ring.for_events(&more, now));
    let mut crowd = std::pin::pin!(crowd);
    assert!(b.world.timeout(soon, &mut crowd).await.is_none());
    let mut last = std::pin::pin!(ring.for_events(&own, now));
    assert!(b.world.timeout(soon, &mut last).await.is_none(), "there is a place for events");
    let key = b.world.timeout(soon, ring.for_request(&a.name, "ed25519:k1")).await;
    assert!(key.flatten().is_some(), "a request waits in the queue of events");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_id_is_not_asked_for_again_and_again() {
    let net = FakeNet::new();
    let (_a, b) =
        (Server::start(&net, "a.example", 1, config()), Server::start(&net, "b.example", 2, config()));
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
async fn a_notary_vouches_for_a_server_that_is_away() {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 1, config());
    let b = Server::start(&net, "b.example", 2, config());
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
    let at = ruma::MilliSecondsSinceUnixEpoch(ruma::uint!(5));
    let known = chappe_rooms::Peers::keys(&b.network, &wanted("b.example", "ed25519:k9"), at).await;
    let own = &known[&b.name]["ed25519:k9"];
    assert_eq!((own.public, u64::from(own.until.get())), (key(9).public_key(), 7));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_of_keys_that_nobody_waits_for_any_more_gives_its_place_away() {
    let net = FakeNet::new();
    let (a, b) =
        (Server::start(&net, "a.example", 1, config()), Server::start(&net, "b.example", 2, config()));
    let silent: Vec<OwnedServerName> =
        (0..600).map(|n| ServerName::parse(format!("a{n}.evil.example")).unwrap()).collect();
    for name in &silent {
        net.route(name.as_str(), &b.world, a.router.clone());
    }
    let asked: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let seen = Arc::clone(&asked);
    net.judge(move |_, to, _| {
        if !to.ends_with(".evil.example") {
            return Fate::Deliver;
        }
        seen.lock().insert(to.to_owned());
        Fate::Lose
    });
    let ring = b.network.keys();
    let looks = silent
        .iter()
        .map(|name| b.world.timeout(Duration::from_secs(1), ring.for_request(name, "ed25519:k1")));
    assert!(join_all(looks).await.iter().all(Option::is_none));
    let found = b.world.timeout(Duration::from_mins(5), ring.for_request(&a.name, "ed25519:k1")).await;
    assert!(found.flatten().is_some());
    assert_eq!(asked.lock().len(), 64, "those that had no place yet when nobody waited any more");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_too_long_for_keys_that_are_not_looked_for_yet_asks_again() {
    let net = FakeNet::new();
    let (a, b) =
        (Server::start(&net, "a.example", 1, config()), Server::start(&net, "b.example", 2, config()));
    let silent: Vec<OwnedServerName> =
        (0..900).map(|n| ServerName::parse(format!("a{n}.evil.example")).unwrap()).collect();
    for name in &silent {
        net.route(name.as_str(), &b.world, a.router.clone());
    }
    net.judge(|_, to, _| if to.ends_with(".evil.example") { Fate::Lose } else { Fate::Deliver });
    let ring = b.network.keys();
    let look = async |names: &[OwnedServerName]| {
        join_all(names.iter().map(|name| ring.for_request(name, "ed25519:k1"))).await;
    };
    let others = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        look(&silent[300..]).await;
    };
    let last = async {
        tokio::time::sleep(Duration::from_secs(21)).await;
        assert!(ring.for_request(&a.name, "ed25519:k1").await.is_none());
        tokio::time::sleep(Duration::from_mins(3)).await;
        assert!(ring.for_request(&a.name, "ed25519:k1").await.is_some(), "of it nothing was learned");
    };
    futures_util::join!(look(&silent[..300]), others, last);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_of_keys_that_breaks_down_is_not_the_last() {
    let net = FakeNet::new();
    let (a, b) =
        (Server::start(&net, "a.example", 1, config()), Server::start(&net, "b.example", 2, config()));
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
