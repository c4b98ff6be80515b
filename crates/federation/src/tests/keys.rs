//! Keys: published, fetched once, vouched for by notaries, refused when they are weak.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering::SeqCst,
    time::Duration,
};

use chappe_world::FakeNet;
use futures_util::future::join_all;
use ruma::server_name;

use super::{Server, config, count};
use crate::{Config, PinnedKey};

fn wanted(server: &str, id: &str) -> BTreeMap<ruma::OwnedServerName, BTreeSet<String>> {
    BTreeMap::from([(server.try_into().unwrap(), BTreeSet::from([id.to_owned()]))])
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
    assert!(found.iter().all(|found| found[&a.name]["ed25519:k1"].public == super::key(1).public_key()));
    assert_eq!(fetches.load(SeqCst), 1);
    ring.for_events(&wanted, b.world.now()).await;
    assert_eq!(fetches.load(SeqCst), 1, "a known key was fetched again");
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
    assert_eq!(found[&a.name]["ed25519:k1"].public, super::key(1).public_key());
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
    let text = |seed| {
        let public = super::key(seed).public_key();
        ruma::serde::Base64::<ruma::serde::base64::Standard, _>::new(public).encode()
    };
    let pinned = BTreeMap::from([("ed25519:k9".try_into().unwrap(), PinnedKey::Current(text(9)))]);
    let pinned_keys = BTreeMap::from([(a.name.clone(), pinned)]);
    let b = Server::start(&net, "b.example", 2, Config { pinned_keys, ..config() });
    let ring = b.network.keys();
    assert!(ring.for_events(&wanted("a.example", "ed25519:k1"), 0).await.is_empty(), "what a publishes");
    let found = ring.for_events(&wanted("a.example", "ed25519:k9"), b.world.now()).await;
    assert_eq!(found[&a.name]["ed25519:k9"].public, super::key(9).public_key());
    assert!(ring.for_request(&a.name, "ed25519:k1").await.is_none());
    assert!(ring.for_request(&a.name, "ed25519:k9").await.is_some());
    assert_eq!(fetches.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn what_this_server_signed_with_an_earlier_key_still_counts_here() {
    let net = FakeNet::new();
    let public = super::key(9).public_key();
    let key = ruma::serde::Base64::<ruma::serde::base64::Standard, _>::new(public).encode();
    let old_keys = BTreeMap::from([("ed25519:k9".try_into().unwrap(), crate::OldKey { key, expired_ts: 7 })]);
    let b = Server::start(&net, "b.example", 2, Config { old_keys, ..config() });
    let at = ruma::MilliSecondsSinceUnixEpoch(ruma::uint!(5));
    let known = chappe_rooms::Peers::keys(&b.network, &wanted("b.example", "ed25519:k9"), at).await;
    let own = &known[&b.name]["ed25519:k9"];
    assert_eq!((own.public, u64::from(own.until.get())), (public, 7));
}
