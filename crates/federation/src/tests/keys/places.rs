//! Servers whose keys are fetched at the same time: who comes first, and who holds up whom.

use std::{collections::BTreeSet, ops::Range, sync::Arc, time::Duration};

use chappe_rooms::KeysWanted;
use chappe_world::{FakeNet, Fate};
use futures_util::future::join_all;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};

use super::{
    super::{Server, config, pair, peer::Peer},
    wanted,
};
use crate::keys::Haste;

/// It arrives later than anybody waits for the answer.
const SLOW: Fate = Fate::Delay(Duration::from_hours(1));

/// The names of servers to which something was sent.
type Asked = Arc<Mutex<BTreeSet<String>>>;

/// Decides what becomes of all that is sent to servers whose names are such.
fn fated(net: &FakeNet, fate: Fate, are_such: impl Fn(&str) -> bool + Send + Sync + 'static) -> Asked {
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    net.judge(move |_, to, _| {
        if !are_such(to) {
            return Fate::Deliver;
        }
        noted.lock().insert(to.to_owned());
        fate
    });
    asked
}

/// Keys of servers that events name and nobody knows, one of each.
fn made_up(numbers: Range<usize>) -> KeysWanted {
    numbers.flat_map(|number| wanted(&format!("n{number}.example"), "ed25519:k")).collect()
}

/// So many names under which a server is found, with all that is sent to them lost.
fn lost(net: &FakeNet, found: &Server, number: usize) -> (Vec<OwnedServerName>, Asked) {
    let names: Vec<OwnedServerName> =
        (0..number).map(|n| ServerName::parse(format!("a{n}.evil.example")).unwrap()).collect();
    for name in &names {
        net.route(name.as_str(), &found.world, found.router.clone());
    }
    (names, fated(net, Fate::Lose, |to| to.ends_with(".evil.example")))
}

#[tokio::test(start_paused = true)]
async fn servers_that_events_name_hold_up_no_requests_and_end() {
    let net = FakeNet::new();
    let (a, b) = pair(&net);
    let asked = fated(&net, SLOW, |to| to.starts_with('n'));
    let named = made_up(0..2_000);
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
    let asked = fated(&net, SLOW, |_| true);
    let named = made_up(0..2_000);
    for (haste, number) in [(Haste::Told, 128), (Haste::Join, 256)] {
        asked.lock().clear();
        let found = b.network.keys().look_for(&named, haste);
        assert!(b.world.timeout(Duration::from_secs(5), found).await.is_none());
        assert_eq!(asked.lock().len(), number, "{haste:?}");
        b.world.sleep(Duration::from_mins(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn servers_that_have_signed_most_are_asked_for_their_keys_first() {
    let net = FakeNet::new();
    let b = Server::start(&net, "b.example", 2, config());
    let asked = fated(&net, SLOW, |_| true);
    let mut named = made_up(0..2_000);
    let mut many = wanted("z.example", "ed25519:k");
    for keys in many.values_mut() {
        keys.events = 2;
    }
    named.extend(many);
    let found = b.network.keys().look_for(&named, Haste::Join);
    assert!(b.world.timeout(Duration::from_secs(5), found).await.is_none());
    assert!(asked.lock().contains("z.example"), "those that have signed one event each come before it");
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_with_events_for_the_keys_of_its_server() {
    let net = FakeNet::new();
    let (a, b) = pair(&net);
    fated(&net, SLOW, |to| to.starts_with('n'));
    let (ring, now, soon) = (b.network.keys(), b.world.now(), Duration::from_secs(1));
    let (some, more, own) = (made_up(0..128), made_up(128..256), wanted("a.example", "ed25519:k1"));
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
    let (a, b) = pair(&net);
    let (silent, asked) = lost(&net, &a, 600);
    let ring = b.network.keys();
    let looks = silent
        .iter()
        .map(|name| b.world.timeout(Duration::from_secs(1), ring.for_request(name, "ed25519:k1")));
    assert!(join_all(looks).await.iter().all(Option::is_none));
    let found = b.world.timeout(Duration::from_mins(5), ring.for_request(&a.name, "ed25519:k1")).await;
    assert!(found.flatten().is_some());
    assert_eq!(asked.lock().len(), 128, "those that had no place yet when nobody waited any more");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_too_long_for_keys_that_are_not_looked_for_yet_asks_again() {
    let net = FakeNet::new();
    let (a, b) = pair(&net);
    let (silent, _) = lost(&net, &a, 900);
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
async fn servers_that_are_made_up_keep_no_place_from_those_that_were_reached() {
    let net = FakeNet::new();
    let (a, b) = pair(&net);
    let (ring, soon) = (b.network.keys(), Duration::from_secs(1));
    let names: Vec<OwnedServerName> =
        (0..300).map(|n| ServerName::parse(format!("n{n}.example")).unwrap()).collect();
    // Each gives its keys once.
    let peers: Vec<Peer> = names.iter().map(|name| Peer::start(&net, name.as_str(), 9)).collect();
    for peer in &peers {
        assert!(ring.for_request(&peer.name, "ed25519:k9").await.is_some());
    }
    assert!(ring.for_request(&a.name, "ed25519:k1").await.is_some());
    b.network.backoff().succeeded(&a.name).await.unwrap();
    // Their keys end.
    tokio::time::advance(Duration::from_hours(25)).await;
    fated(&net, SLOW, |to| to.starts_with('n'));
    let mut crowd = std::pin::pin!(join_all(names.iter().map(|name| ring.for_request(name, "ed25519:k9"))));
    assert!(b.world.timeout(soon, &mut crowd).await.is_none());
    let key = b.world.timeout(soon, ring.for_request(&a.name, "ed25519:k1")).await;
    assert!(key.flatten().is_some(), "its place is taken");
}
