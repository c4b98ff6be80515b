//! Users of servers that are not on the list, in rooms of servers that are.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use chappe_world::{FakeNet, Fate};
use serde_json::{Value, json};

use super::{Place, eventually, list, section};

#[tokio::test(start_paused = true)]
async fn a_room_with_outsiders_is_not_entered_and_left_at_once() {
    let net = FakeNet::new();
    let m = Place::start(&net, "m.test", 2, &section()).await;
    // A member that is careless: it talks with everybody.
    let h = Place::start(&net, "h.test", 1, "").await;
    let x = Place::start(&net, "x.test", 3, "").await;
    let (alice, bob, carol) = (h.user("alice").await, m.user("bob").await, x.user("carol").await);
    m.apply(&list(m.world.now(), 1, &["m.test", "h.test"], 10)).await;
    let room = h.room(&alice).await;
    assert_eq!(x.join(&carol, &room, "h.test").await.0, 200);

    let (status, said) = m.join(&bob, &room, "h.test").await;
    assert_eq!((status, &said["errcode"]), (403, &json!("M_FORBIDDEN")), "{said}");
    assert!(said["error"].as_str().unwrap().contains("x.test"), "{said}");
    let members = format!("/_matrix/client/v3/rooms/{room}/joined_members");
    let joined = h.ok(&alice, "GET", &members, Value::Null).await["joined"].clone();
    assert!(joined["@carol:x.test"].is_object() && joined["@bob:m.test"].is_null(), "{joined}");
}

#[tokio::test(start_paused = true)]
async fn what_an_outsider_says_through_a_member_is_not_shown() {
    let net = FakeNet::new();
    let network = format!("[federation]\nnotaries = [\"h.test\"]\n{}", section());
    let m = Place::start(&net, "m.test", 2, &network).await;
    let h = Place::start(&net, "h.test", 1, "").await;
    let x = Place::start(&net, "x.test", 3, "").await;
    let (alice, bob, carol) = (h.user("alice").await, m.user("bob").await, x.user("carol").await);
    m.apply(&list(m.world.now(), 1, &["m.test", "h.test"], 10)).await;
    let room = h.room(&alice).await;
    eventually("bob is in", async || m.join(&bob, &room, "h.test").await.0 == 200).await;
    assert_eq!(x.join(&carol, &room, "h.test").await.0, 200);
    x.say(&carol, &room, "from-outside").await;
    let path = format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=50");
    eventually("it is heard where it may be", async || {
        h.ok(&alice, "GET", &path, Value::Null).await.to_string().contains("from-outside")
    })
    .await;

    // What follows rests on it.
    h.say(&alice, &room, "from-a-member").await;
    let mut seen = Value::Null;
    for _ in 0..2_000 {
        seen = m.ok(&bob, "GET", &path, Value::Null).await;
        if seen.to_string().contains("from-a-member") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    assert!(seen.to_string().contains("from-a-member"), "{seen}");
    assert!(!seen.to_string().contains("from-outside"), "{seen}");
    assert!(!seen.to_string().contains("@carol:x.test"), "{seen}");
    m.say(&bob, &room, "and-back").await;
    eventually("the room goes on", async || {
        h.ok(&alice, "GET", &path, Value::Null).await.to_string().contains("and-back")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn outsiders_are_neither_looked_at_nor_heard() {
    let net = FakeNet::new();
    let m = Place::start(&net, "m.test", 2, &section()).await;
    let x = Place::start(&net, "x.test", 3, "").await;
    let (bob, carol) = (m.user("bob").await, x.user("carol").await);
    m.apply(&list(m.world.now(), 1, &["m.test", "x.test"], 10)).await;
    let profile = "/_matrix/client/v3/profile/@carol:x.test";
    assert_eq!(m.call(&bob, "GET", profile, Value::Null).await.0, 200, "while the server is on the list");
    m.apply(&list(m.world.now(), 2, &["m.test"], 10)).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    net.judge(move |from, _, _| {
        count.fetch_add(usize::from(from == "m.test"), SeqCst);
        Fate::Deliver
    });
    assert_eq!(m.call(&bob, "GET", profile, Value::Null).await.0, 404, "not even what was kept");
    let search = json!({ "search_term": "carol" });
    let found = m.ok(&bob, "POST", "/_matrix/client/v3/user_directory/search", search).await;
    assert_eq!(found["results"], json!([]));
    let room = x.room(&carol).await;
    let invite = format!("/_matrix/client/v3/rooms/{room}/invite");
    let (status, said) = x.call(&carol, "POST", &invite, json!({ "user_id": "@bob:m.test" })).await;
    assert_ne!(status, 200, "{said}");
    let synced = m.ok(&bob, "GET", "/_matrix/client/v3/sync?timeout=0", Value::Null).await;
    assert!(synced["rooms"]["invite"].is_null(), "{synced}");
    assert_ne!(x.call(&carol, "GET", "/_matrix/client/v3/profile/@bob:m.test", Value::Null).await.0, 200);
    assert_eq!(asked.load(SeqCst), 0, "nobody outside is asked anything");
}
