//! Keys of users of other servers, and messages to their devices: who is asked and counted, and what waits.

use std::time::Duration;

use chappe_world::FakeNet;
use serde_json::{Map, Value, json};

use super::{HOUR, Place, eventually, list, section};

const QUERY: &str = "/keys/query";
const CLAIM: &str = "/keys/claim";

/// The section by which a user has so many servers asked for keys.
fn counted(burst: u32) -> String {
    format!("[client.rates]\nremote_keys = {{ per_second = 0.00001, burst = {burst} }}")
}

/// Something of somebody on each of these servers.
fn of(servers: &[&str], what: &Value) -> Value {
    servers.iter().map(|server| (format!("@eve:{server}"), what.clone())).collect::<Map<_, _>>().into()
}

fn query(servers: &[&str]) -> Value {
    json!({ "device_keys": of(servers, &json!([])) })
}

fn claim(servers: &[&str]) -> Value {
    json!({ "one_time_keys": of(servers, &json!({ "D": "signed_curve25519" })) })
}

#[tokio::test(start_paused = true)]
async fn the_servers_that_are_asked_for_keys_are_counted_by_user() {
    let net = FakeNet::new();
    let a = Place::start(&net, "a.test", 1, &counted(3)).await;
    let (alice, bob) = (a.user("alice").await, a.user("bob").await);
    a.ok(&alice, "POST", QUERY, query(&["n0.test", "n1.test"])).await;
    let more = ["n2.test", "n3.test"];
    assert_eq!(a.call(&alice, "POST", QUERY, query(&more)).await.0, 429);
    assert_eq!(a.call(&alice, "POST", CLAIM, claim(&more)).await.0, 429);
    a.ok(&bob, "POST", CLAIM, claim(&more)).await;
    a.ok(&alice, "POST", QUERY, json!({ "device_keys": { "@bob:a.test": [] } })).await;
}

#[tokio::test(start_paused = true)]
async fn servers_that_are_not_asked_for_keys_are_not_counted() {
    let net = FakeNet::new();
    let listed = "allow = [\"a.test\", \"b.test\", \"gone.test\"]\nbackoff_min_ms = 3600000";
    let a = Place::start(&net, "a.test", 1, &format!("{}\n[federation]\n{listed}", counted(10))).await;
    let b = Place::start(&net, "b.test", 2, "").await;
    let (alice, anne, bob) = (a.user("alice").await, a.user("anne").await, b.user("bob").await);
    for (path, body) in [(QUERY, query(&["off.test"])), (CLAIM, claim(&["off.test"]))] {
        for _ in 0..20 {
            let said = a.ok(&alice, "POST", path, body.clone()).await;
            assert!(said["failures"]["off.test"].is_object(), "{said}");
        }
    }
    // The first few times it is tried.
    for _ in 0..20 {
        let said = a.ok(&alice, "POST", CLAIM, claim(&["gone.test"])).await;
        assert!(said["failures"]["gone.test"].is_object(), "{said}");
    }
    let room = a.room(&anne).await;
    eventually("bob is in", async || b.join(&bob, &room, "a.test").await.0 == 200).await;
    // The first time his list is fetched, and when it has changed.
    for _ in 0..20 {
        a.ok(&anne, "POST", QUERY, json!({ "device_keys": { "@bob:b.test": [] } })).await;
    }
}

/// Sends a message to all devices of a user.
async fn tell(from: &Place, token: &str, user: &str, text: &str) {
    let path = format!("/sendToDevice/org.example.note/{text}");
    from.ok(token, "PUT", &path, json!({ "messages": { user: { "*": { "text": text } } } })).await;
}

/// The messages that wait for a device.
async fn told(to: &Place, token: &str) -> String {
    to.ok(token, "GET", "/sync?timeout=0", Value::Null).await["to_device"].to_string()
}

#[tokio::test(start_paused = true)]
async fn messages_to_devices_wait_while_the_network_has_no_list() {
    let net = FakeNet::new();
    let p = Place::start(&net, "p.test", 1, &section()).await;
    let m = Place::start(&net, "m.test", 2, &section()).await;
    let x = Place::start(&net, "x.test", 3, "").await;
    let (alice, bob, carol) = (p.user("alice").await, m.user("bob").await, x.user("carol").await);
    p.apply(&list(p.world.now(), 1, &["p.test", "m.test"], 10)).await;
    eventually("the list is fetched", async || m.sequence() == 1).await;
    tell(&p, &alice, "@carol:x.test", "off-the-list").await;

    tokio::time::sleep(Duration::from_millis(10 * HOUR)).await;
    eventually("the network is closed", async || !p.house.network_list().unwrap().status().open).await;
    tell(&p, &alice, "@bob:m.test", "without-a-list").await;
    p.apply(&list(p.world.now(), 2, &["p.test", "m.test", "x.test"], 10)).await;
    eventually("it comes with the next list", async || told(&m, &bob).await.contains("without-a-list")).await;
    tell(&p, &alice, "@carol:x.test", "on-the-list").await;
    eventually("it comes", async || told(&x, &carol).await.contains("on-the-list")).await;
    assert!(!told(&x, &carol).await.contains("off-the-list"), "nothing waits for who is off a good list");
}
