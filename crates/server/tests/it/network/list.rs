//! A list is published, fetched, followed and replaced, and its end closes the network.

use chappe_world::FakeNet;
use serde_json::{Value, json};

use super::{HOUR, Place, eventually, list, section};

const LIST: &str = "/_matrix/federation/unstable/chappe/network_list";

#[tokio::test(start_paused = true)]
async fn a_network_opens_with_its_list_closes_with_its_end_and_opens_with_the_next() {
    let net = FakeNet::new();
    let p = Place::start(&net, "p.test", 1, &section()).await;
    let m = Place::start(&net, "m.test", 2, &section()).await;
    let x = Place::start(&net, "x.test", 3, "").await;
    let (alice, bob, carol) = (p.user("alice").await, m.user("bob").await, x.user("carol").await);
    let room = p.room(&alice).await;
    assert_eq!(p.call("", "GET", LIST, Value::Null).await.0, 404, "there is none yet");
    assert_ne!(m.join(&bob, &room, "p.test").await.0, 200, "nobody is talked with before the first list");

    p.apply(&list(p.world.now(), 1, &["p.test", "m.test"], 10)).await;
    eventually("the list is fetched", async || m.sequence() == 1).await;
    let (status, shown) = p.call("", "GET", LIST, Value::Null).await;
    assert_eq!((status, &shown["sequence"]), (200, &json!(1)));
    assert_eq!(m.call("", "GET", LIST, Value::Null).await.1, shown, "members pass it on");
    assert_eq!(x.call("", "GET", LIST, Value::Null).await.0, 404);
    eventually("members talk with each other", async || m.join(&bob, &room, "p.test").await.0 == 200).await;
    assert_ne!(x.join(&carol, &room, "p.test").await.0, 200, "a stranger gets in nowhere");
    let invite = format!("/_matrix/client/v3/rooms/{room}/invite");
    let (status, said) = p.call(&alice, "POST", &invite, json!({ "user_id": "@carol:x.test" })).await;
    assert_eq!((status, &said["errcode"]), (403, &json!("M_FORBIDDEN")), "{said}");
    let metrics = m.raw("", "GET", "/metrics", Value::Null).await.1;
    assert!(metrics.contains("chappe_network_open 1"), "{metrics}");

    tokio::time::sleep(std::time::Duration::from_millis(10 * HOUR)).await;
    eventually("the end closes both", async || {
        let open = |place: &Place| place.house.network_list().unwrap().status().open;
        !open(&p) && !open(&m)
    })
    .await;
    let second = p.room(&alice).await;
    assert_ne!(m.join(&bob, &second, "p.test").await.0, 200);
    assert_eq!(p.call("", "GET", LIST, Value::Null).await.0, 404);

    p.apply(&list(p.world.now(), 2, &["p.test", "m.test", "x.test"], 10)).await;
    eventually("the next list is fetched", async || m.sequence() == 2).await;
    eventually("it opens the network", async || m.join(&bob, &second, "p.test").await.0 == 200).await;
    eventually("for the new member too", async || x.join(&carol, &room, "p.test").await.0 == 200).await;
}
