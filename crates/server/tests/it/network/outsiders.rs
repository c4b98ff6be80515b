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

#[tokio::test(start_paused = true)]
async fn nobody_gives_outsiders_a_part_in_a_room_and_who_has_one_does_not_hold_it() {
    let net = FakeNet::new();
    let m = Place::start(&net, "m.test", 2, &section()).await;
    let bob = m.user("bob").await;
    m.apply(&list(m.world.now(), 1, &["m.test", "x.test"], 10)).await;
    let room = m.room(&bob).await;
    let at = |kind: &str| format!("/_matrix/client/v3/rooms/{room}/state/{kind}/");
    let power = at("m.room.power_levels");
    let mut levels = m.ok(&bob, "GET", &power, Value::Null).await;
    levels["users"]["@carol:x.test"] = json!(50);
    m.ok(&bob, "PUT", &power, levels.clone()).await;
    m.apply(&list(m.world.now(), 2, &["m.test"], 10)).await;

    levels["users"]["@anne:m.test"] = json!(50);
    m.ok(&bob, "PUT", &power, levels.clone()).await;
    levels["users"]["@chris:x.test"] = json!(50);
    let alias = json!({ "alt_aliases": ["#here:x.test"] });
    for (path, body) in [(&power, &levels), (&at("m.room.policy"), &json!({ "via": "x.test" }))] {
        let (status, said) = m.call(&bob, "PUT", path, body.clone()).await;
        assert_eq!((status, &said["errcode"]), (403, &json!("M_FORBIDDEN")), "{path}: {said}");
    }
    assert_ne!(m.call(&bob, "PUT", &at("m.room.canonical_alias"), alias).await.0, 200);
    let create = "/_matrix/client/v3/createRoom";
    for body in [
        json!({ "room_version": "12", "creation_content": { "additional_creators": ["@carol:x.test"] } }),
        json!({ "power_level_content_override": { "users": { "@bob:m.test": 100, "@carol:x.test": 50 } } }),
    ] {
        let (status, said) = m.call(&bob, "POST", create, body).await;
        assert_eq!((status, &said["errcode"]), (403, &json!("M_FORBIDDEN")), "{said}");
    }

    let path = format!("/_matrix/client/v3/rooms/{room}/upgrade");
    let new = m.ok(&bob, "POST", &path, json!({ "new_version": "12" })).await;
    let new = new["replacement_room"].as_str().unwrap();
    let path = format!("/_matrix/client/v3/rooms/{new}/state/m.room.power_levels/");
    let users = m.ok(&bob, "GET", &path, Value::Null).await["users"].clone();
    assert_eq!(users, json!({ "@anne:m.test": 50 }));
}
