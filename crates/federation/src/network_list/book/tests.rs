//! Lists that are applied, replayed, expired, and a clock that jumps.

use std::{collections::BTreeMap, sync::atomic::Ordering::SeqCst};

use chappe_identity::Email;
use chappe_rules::build::SigningKey;
use chappe_store::server_keys::ServerKey;
use chappe_world::{Fake, FakeNet};
use ruma::server_name;
use serde_json::json;

use super::*;
use crate::{Config, NetworkDeps};

const HOUR: u64 = 3_600_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32], &format!("root_{seed}")).unwrap()
}

/// A server that follows a network, in a world whose wall clock shows `now`.
struct Place {
    book: ListBook,
    network: Network,
    map: MapBook,
    now: u64,
}

async fn place(store: &Store, now: u64, roots: &[u8]) -> Place {
    place_on(&FakeNet::new(), store, now, (roots, &[])).await
}

async fn place_on(net: &FakeNet, store: &Store, now: u64, (roots, publishers): (&[u8], &[&str])) -> Place {
    let world = World::fake(Fake { epoch_ms: now, ..Fake::new("us.example", 1, net) });
    let server = server_name!("us.example").to_owned();
    let deps = NetworkDeps {
        world: world.clone(),
        store: store.clone(),
        server: server.clone(),
        key: Arc::new(key(7)),
    };
    let network = Network::new(deps, Config::default());
    let map = MapBook::open(store.clone()).await.unwrap();
    let roots = roots.iter().map(|seed| key(*seed));
    let config = NetworkConfig {
        name: server_name!("net.example").to_owned(),
        trust_roots: roots.map(|key| (key.id().try_into().unwrap(), key.public_base64())).collect(),
        publishers: publishers.iter().map(|name| (*name).try_into().unwrap()).collect(),
        fetch_seconds: 3600,
    };
    let (store, list_map) = (store.clone(), map.clone());
    let deps = ListDeps { world, store, server, config, network: Some(network.clone()), map: list_map };
    Place { book: ListBook::open(deps).await.unwrap(), network, map, now }
}

impl Place {
    fn permits(&self, server: &str) -> bool {
        self.network.allowed().permits(&OwnedServerName::try_from(server).unwrap())
    }

    /// List number `sequence` with one other server, signed now, good for `hours`.
    fn list(&self, sequence: u64, server: &str, hours: u64) -> String {
        list(sequence, server).sign(&key(1), self.now, self.now + hours * HOUR).unwrap()
    }
}

fn list(sequence: u64, server: &str) -> NetworkList {
    let pinned = json!({ "verify_keys": { "ed25519:1": { "key": key(9).public_base64() } } });
    let servers = BTreeMap::from([(server, pinned), ("us.example", json!({}))]);
    let whole = json!({
        "network": "net.example", "sequence": sequence - 1, "issued_at": 0, "expires_at": 0, "servers": servers,
        "addresses": { "x.fr": { "hs": server } },
    });
    NetworkList::read(whole.to_string().as_bytes()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn without_a_list_the_network_is_closed_and_a_list_opens_it() {
    let store = crate::tests::memory();
    let place = place(&store, 1_000 * HOUR, &[1]).await;
    assert!(!place.permits("a.example"), "there is no list yet");
    assert_eq!(place.book.apply(place.list(1, "a.example", 5).as_bytes()).await.unwrap(), Applied::New);
    assert!(place.permits("a.example") && !place.permits("b.example"));
    let pins = place.network.pins().of(server_name!("A.example")).unwrap();
    assert_eq!(pins["ed25519:1"].key, key(9).public_base64());
    let belongs = |map: &MapBook| {
        let email = Email::parse("jean@x.fr").unwrap();
        map.map().target(&email).map(|(target, _)| target.hs.to_string())
    };
    assert_eq!(belongs(&place.map).as_deref(), Some("a.example"));

    assert_eq!(place.book.apply(place.list(2, "b.example", 5).as_bytes()).await.unwrap(), Applied::New);
    assert!(place.permits("b.example") && !place.permits("a.example"));
    assert!(place.network.pins().of(server_name!("a.example")).is_none());
    assert_eq!(belongs(&place.map).as_deref(), Some("b.example"));
}

#[tokio::test(start_paused = true)]
async fn what_is_forged_replayed_expired_or_from_the_future_changes_nothing() {
    let store = crate::tests::memory();
    let place = place(&store, 1_000 * HOUR, &[1]).await;
    let held = place.list(5, "a.example", 5);
    place.book.apply(held.as_bytes()).await.unwrap();
    let forged = list(6, "evil.example").sign(&key(2), place.now, place.now + HOUR).unwrap();
    let expired = list(6, "evil.example").sign(&key(1), place.now - 2 * HOUR, place.now).unwrap();
    let future = list(6, "evil.example").sign(&key(1), place.now + 2 * HOUR, place.now + 9 * HOUR).unwrap();
    for wrong in [
        forged,
        expired,
        future,
        place.list(4, "evil.example", 5),
        place.list(5, "evil.example", 5),
        place.list(6, "evil.example", 5).replace("evil.example", "worse.example"),
        "{}".to_owned(),
    ] {
        assert!(place.book.apply(wrong.as_bytes()).await.is_err(), "{wrong}");
        assert!(place.permits("a.example") && !place.permits("evil.example"));
    }
    assert_eq!(place.book.apply(held.as_bytes()).await.unwrap(), Applied::Known);
    assert_eq!(place.book.status().held.unwrap().list.sequence, 5);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_list_is_kept_over_a_restart_until_it_expires() {
    let store = crate::tests::memory();
    let first = place(&store, 1_000 * HOUR, &[1]).await;
    first.book.apply(first.list(3, "a.example", 5).as_bytes()).await.unwrap();

    let again = place(&store, 1_004 * HOUR, &[1, 2]).await;
    assert!(again.permits("a.example") && again.book.status().open);

    // The clock jumps behind the end, and back.
    let late = place(&store, 1_005 * HOUR, &[1]).await;
    assert!(!late.permits("a.example") && !late.book.status().open);
    assert!(late.network.pins().of(server_name!("a.example")).is_some(), "what is pinned stays so");
    assert!(!late.map.map().is_empty(), "addresses still belong where they did");
    let older = late.list(2, "b.example", 5);
    assert!(
        matches!(late.book.apply(older.as_bytes()).await, Err(ListError::Older { .. })),
        "though the held one is over"
    );
    late.book.apply(late.list(4, "b.example", 5).as_bytes()).await.unwrap();
    assert!(late.permits("b.example"));
    let back = place(&store, 1_000 * HOUR, &[1]).await;
    assert!(back.permits("b.example"), "a list that was good when it was applied is not too new now");

    let other_root = place(&store, 1_005 * HOUR, &[2]).await;
    assert!(!other_root.permits("b.example"), "a root that is trusted no more takes its list with it");
    let next = list(5, "c.example").sign(&key(2), other_root.now, other_root.now + HOUR).unwrap();
    other_root.book.apply(next.as_bytes()).await.unwrap();
    assert!(other_root.permits("c.example"));
}

#[tokio::test(start_paused = true)]
async fn the_network_closes_at_the_moment_the_list_expires() {
    let store = crate::tests::memory();
    let place = place(&store, 1_000 * HOUR, &[1]).await;
    place.book.apply(place.list(1, "a.example", 5).as_bytes()).await.unwrap();
    let world = place.book.0.deps.world.clone();
    let following = world.spawn("network list", place.book.clone().follow());
    world.sleep(Duration::from_hours(5).saturating_sub(LOOK)).await;
    assert!(place.permits("a.example"));
    world.sleep(2 * LOOK).await;
    assert!(!place.permits("a.example") && !place.book.status().open);
    drop(following);
}

#[tokio::test(start_paused = true)]
async fn a_server_is_let_in_for_its_time_alone() {
    let store = crate::tests::memory();
    let first = place(&store, 1_000 * HOUR, &[1]).await;
    let mut timed = list(1, "a.example");
    let member = timed.servers.get_mut(server_name!("a.example")).unwrap();
    (member.valid_from, member.valid_until) = (Some(first.now + HOUR), Some(first.now + 2 * HOUR));
    let signed = timed.sign(&key(1), first.now, first.now + 5 * HOUR).unwrap();
    first.book.apply(signed.as_bytes()).await.unwrap();
    assert!(!first.permits("a.example") && first.book.status().open, "not yet");
    let world = first.book.0.deps.world.clone();
    let following = world.spawn("network list", first.book.clone().follow());
    world.sleep(Duration::from_hours(1).saturating_sub(LOOK)).await;
    assert!(!first.permits("a.example"));
    world.sleep(2 * LOOK).await;
    assert!(first.permits("a.example") && first.permits("us.example"), "now");
    world.sleep(Duration::from_hours(1).saturating_sub(2 * LOOK)).await;
    assert!(first.permits("a.example"));
    let mut changes = first.network.allowed().changes();
    changes.mark_unchanged();
    world.sleep(2 * LOOK).await;
    assert!(
        !first.permits("a.example") && first.permits("us.example") && first.book.status().open,
        "no more"
    );
    assert!(changes.has_changed().unwrap(), "whoever follows the list is told");
    assert!(first.network.pins().of(server_name!("a.example")).is_some(), "what is pinned stays so");
    drop(following);

    for (hours, expected) in [(0, false), (1, true), (2, false)] {
        let again = place(&store, first.now + hours * HOUR, &[1]).await;
        assert_eq!(again.permits("a.example"), expected, "after a restart, {hours} h later");
    }
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_takes_its_time_does_not_put_the_end_off() {
    let (net, store) = (FakeNet::new(), crate::tests::memory());
    net.judge(|_, _, _| chappe_world::Fate::Delay(Duration::from_hours(1)));
    let place = place_on(&net, &store, 1_000 * HOUR, (&[1], &["p.example"])).await;
    let soon = list(1, "a.example").sign(&key(1), place.now, place.now + 20_000).unwrap();
    place.book.apply(soon.as_bytes()).await.unwrap();
    let world = place.book.0.deps.world.clone();
    let following = world.spawn("network list", place.book.clone().follow());
    world.sleep(LOOK).await;
    assert!(place.permits("a.example"));
    world.sleep(2 * LOOK).await;
    assert!(!place.permits("a.example") && !place.book.status().open);
    drop(following);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_is_away_is_asked_again_soon() {
    let (net, store) = (FakeNet::new(), crate::tests::memory());
    let place = place_on(&net, &store, 1_000 * HOUR, (&[1], &["p.example"])).await;
    let asked = crate::tests::count(&net, PATH);
    let world = place.book.0.deps.world.clone();
    let following = world.spawn("network list", place.book.clone().follow());
    // After 1, 2, 4, 8 and 16 minutes.
    world.sleep(Duration::from_mins(40)).await;
    assert_eq!(asked.load(SeqCst), 6);
    world.sleep(Duration::from_hours(24)).await;
    assert!((28..=31).contains(&asked.load(SeqCst)), "then every hour");
    drop(following);
}

#[tokio::test(start_paused = true)]
async fn what_a_server_signed_that_went_off_the_list_still_counts() {
    let store = crate::tests::memory();
    let place = place(&store, 1_000 * HOUR, &[1]).await;
    place.book.apply(place.list(1, "a.example", 5).as_bytes()).await.unwrap();
    let kept = async |server: &str| {
        let key = (OwnedServerName::try_from(server).unwrap(), "ed25519:1".to_owned());
        store.read().get::<ServerKeys>(&key).await.unwrap().map(|Json(key)| key)
    };
    assert_eq!(kept("a.example").await, None);
    let now = place.book.0.deps.world.now();
    place.book.apply(place.list(2, "b.example", 5).as_bytes()).await.unwrap();
    let old = ServerKey { key: key(9).public_base64(), valid_until: now, old: true };
    assert_eq!(kept("a.example").await, Some(old));
    assert_eq!(kept("b.example").await, None, "it is pinned");

    // One that stays may go on signing with it, and is asked.
    let mut unpinned = list(3, "b.example");
    unpinned.servers.get_mut(server_name!("b.example")).unwrap().verify_keys.clear();
    let unpinned = unpinned.sign(&key(1), place.now, place.now + HOUR).unwrap();
    let now = place.book.0.deps.world.now();
    place.book.apply(unpinned.as_bytes()).await.unwrap();
    let ended = ServerKey { key: key(9).public_base64(), valid_until: now, old: false };
    assert_eq!(kept("b.example").await, Some(ended));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_followed_already_is_not_followed_anew() {
    let store = crate::tests::memory();
    let place = place(&store, 1_000 * HOUR, &[1]).await;
    let same = place.list(1, "a.example", 5);
    place.book.apply(same.as_bytes()).await.unwrap();
    let mut changes = place.network.allowed().changes();
    changes.mark_unchanged();
    assert_eq!(place.book.apply(same.as_bytes()).await.unwrap(), Applied::Known);
    assert!(!changes.has_changed().unwrap());
    place.book.apply(place.list(2, "b.example", 5).as_bytes()).await.unwrap();
    assert!(changes.has_changed().unwrap());
}

/// The list with more signatures in the name of the network, and one in another name.
fn with_more(list: &str, more: &[(&str, String)]) -> String {
    let mut list: serde_json::Value = serde_json::from_str(list).unwrap();
    for (id, signature) in more {
        list["signatures"]["net.example"][*id] = json!(signature);
        list["signatures"]["evil.example"][*id] = json!(signature);
    }
    list.to_string()
}

#[tokio::test(start_paused = true)]
async fn what_is_added_to_a_list_on_its_way_rolls_nothing_back() {
    let store = crate::tests::memory();
    let place = place(&store, 1_000 * HOUR, &[1]).await;
    let (older, newer) = (place.list(6, "x.example", 5), place.list(7, "a.example", 5));
    for id in ["ed25519:one", "ed25519:other"] {
        let padded = with_more(&newer, &[(id, "x".repeat(3 << 20))]);
        place.book.apply(padded.as_bytes()).await.unwrap();
    }
    let short: Vec<_> = (0..100).map(|n| (format!("ed25519:{n}"), "x".repeat(86))).collect();
    let short: Vec<_> = short.iter().map(|(id, signature)| (id.as_str(), signature.clone())).collect();
    let known = place.book.apply(with_more(&newer, &short).as_bytes()).await.unwrap();
    assert_eq!(known, Applied::Known);
    let held = place.book.status().held.unwrap();
    assert!(held.text.len() < newer.len() + 5_000, "{}", held.text.len());
    let refused = place.book.apply(older.as_bytes()).await;
    assert!(matches!(refused, Err(ListError::Older { given: 6, held: 7 })), "{refused:?}");
    let again = place_on(&FakeNet::new(), &store, place.now, (&[1], &[])).await;
    assert!(again.permits("a.example") && !again.permits("x.example"));
}

#[tokio::test(start_paused = true)]
async fn the_signature_of_a_root_that_is_not_known_yet_is_kept_and_a_wrong_one_gives_way() {
    let store = crate::tests::memory();
    let first = place(&store, 1_000 * HOUR, &[1]).await;
    let list = first.list(3, "a.example", 5);
    let both = crate::network_list::cosign(list.as_bytes(), &key(2)).unwrap();
    let wrong = with_more(&list, &[(key(2).id(), "x".repeat(86))]);
    for given in [&list, &wrong, &both] {
        first.book.apply(given.as_bytes()).await.unwrap();
    }
    // Whose signature is right is not known before the root is.
    let next = place(&store, first.now, &[1, 2]).await;
    next.book.apply(both.as_bytes()).await.unwrap();
    let last = place(&store, first.now, &[2]).await;
    assert!(last.permits("a.example"), "the new root stands behind it");
}

#[tokio::test(start_paused = true)]
async fn a_held_list_that_is_not_understood_is_not_rolled_back() {
    let store = crate::tests::memory();
    let mut newer = json::object(list(7, "a.example").unsigned().as_bytes()).unwrap();
    newer.insert("restriction".to_owned(), ruma::CanonicalJsonValue::Bool(true));
    key(1).sign_json(server_name!("net.example"), &mut newer);
    let held = HeldList { sequence: 7, applied_at: 0, text: json::canonical(&newer) };
    let mut tx = Tx::new();
    tx.put::<NetworkLists>(&server_name!("net.example").to_owned(), &Json(held));
    store.commit(tx).await.unwrap();
    let place = place(&store, 1_000 * HOUR, &[1]).await;
    assert!(!place.book.status().open);
    let refused = place.book.apply(place.list(6, "x.example", 5).as_bytes()).await;
    assert!(matches!(refused, Err(ListError::Older { given: 6, held: 7 })), "{refused:?}");
    place.book.apply(place.list(8, "b.example", 5).as_bytes()).await.unwrap();
    assert!(place.permits("b.example"));
}
