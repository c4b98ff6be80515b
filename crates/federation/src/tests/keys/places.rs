//! Servers whose keys are fetched at the same time: who comes first, and who holds up whom.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chappe_rooms::KeysWanted;
use chappe_world::{FakeNet, Fate};
use futures_util::future::join_all;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};

use super::{
    super::{Server, config},
    wanted,
};
use crate::keys::Haste;

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
    let named: KeysWanted =
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
    let named: KeysWanted =
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
async fn servers_that_have_signed_most_are_asked_for_their_keys_first() {
    let net = FakeNet::new();
    let b = Server::start(&net, "b.example", 2, config());
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = Arc::clone(&asked);
    net.judge(move |_, to, _| {
        noted.lock().insert(to.to_owned());
        Fate::Delay(Duration::from_hours(1))
    });
    let mut named: KeysWanted =
        (0..2_000).flat_map(|number| wanted(&format!("n{number}.example"), "ed25519:k")).collect();
    let mut many = wanted("z.example", "ed25519:k");
    for keys in many.values_mut() {
        keys.events = 2;
    }
    named.extend(many);
    let found = b.network.keys().look_for(&named, b.world.now(), Haste::Join);
    assert!(b.world.timeout(Duration::from_secs(5), found).await.is_none());
    assert!(asked.lock().contains("z.example"), "those that have signed one event each come before it");
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
    let named = |numbers: std::ops::Range<usize>| -> KeysWanted {
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
