//! Users of servers that are not on the list, in rooms of servers that are.

use chappe_world::FakeNet;
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
