//! Row 74: the public rooms of the network.

use std::time::Duration;

use axum::{Json, Router, routing::post};
use chappe_world::FakeNet;
use http::StatusCode;
use serde_json::{Value, json};

use super::{later, member, named, names, stranger, text};

#[tokio::test]
async fn row_74_one_list_has_the_public_rooms_of_the_network() {
    let net = FakeNet::new();
    let (a, b) = (member(&net, "a.test").await, member(&net, "b.test").await);
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let (cafe, canteen) = (alice.room(named("Café")).await, bob.room(named("Réunions")).await);
    let mut own = named("Entre nous");
    own["creation_content"] = json!({ "m.federate": false });
    bob.room(own).await;
    bob.room(json!({ "preset": "public_chat", "name": "Not listed" })).await;
    assert_eq!(bob.join(&cafe, "a.test").await.0, StatusCode::OK);
    alice.sees(&cafe, &bob.id, "join").await;
    // Somebody else says what a room of this or of another server is called.
    let room = |id: &str, name: &str, joined: u32| {
        json!({
            "room_id": id, "name": name, "num_joined_members": joined, "world_readable": false, "guest_can_join": false,
        })
    };
    let told = json!({ "chunk": [
        room(&canteen, "Fausses réunions", 900), room(&cafe, "Faux café", 900), room("!h:h.test", &"h".repeat(9_999), 1),
    ]});
    let other = post(async move || Json(told.clone()));
    let other = stranger(&net, "h.test", Router::new().route("/_matrix/federation/v1/publicRooms", other));
    let mut all = alice.forums("").await;
    assert_eq!((all.remove(0).as_str(), all.len()), ("Café", 2), "the biggest first: {all:?}");
    assert!(all.contains(&"Réunions".to_owned()) && all.contains(&"h".repeat(255)));
    assert_eq!(alice.forums("REUNION").await, ["Réunions"]);
    assert_eq!(bob.forums("entre").await, ["Entre nous"], "its own users see it");
    let listed = bob.ok("POST", "/publicRooms", json!({})).await;
    assert_eq!(names(&listed).len(), 2, "without being asked for more, a server lists its own");
    let theirs = alice.ok("POST", "/publicRooms?server=b.test", json!({})).await;
    assert_eq!(names(&theirs), ["Réunions"], "rooms of one server are listed to nobody else");
    // Pages: each room once, forth and back.
    let page = |since: Option<String>| {
        let mut body = json!({ "include_all_networks": true, "limit": 1 });
        if let Some(since) = since {
            body["since"] = json!(since);
        }
        alice.ok("POST", "/publicRooms", body)
    };
    let first = page(None).await;
    let second = page(Some(text(&first["next_batch"]))).await;
    let third = page(Some(text(&second["next_batch"]))).await;
    assert_eq!((&first["total_room_count_estimate"], &third["next_batch"]), (&json!(3), &Value::Null));
    let seen: Vec<String> = [&first, &second, &third].into_iter().flat_map(names).collect();
    assert_eq!(seen, [vec!["Café".to_owned()], all].concat());
    assert_eq!(page(Some(text(&third["prev_batch"]))).await["chunk"], second["chunk"]);
    let wrong = json!({ "include_all_networks": true, "since": "x" });
    assert_eq!(alice.call("POST", "/publicRooms", wrong).await.0, StatusCode::BAD_REQUEST);
    // What a server that is gone has listed is shown for a while.
    other.kill();
    net.unroute("h.test");
    later(Duration::from_secs(61)).await;
    assert_eq!(alice.forums("hhh").await.len(), 1);
}

#[tokio::test]
async fn row_74_a_room_of_the_list_is_entered_without_a_word_of_its_server() {
    let net = FakeNet::new();
    let (a, b) = (member(&net, "a.test").await, member(&net, "b.test").await);
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let mut request = named("Nouveau");
    // The ids of such rooms do not say where they are.
    request["room_version"] = json!("12");
    let room = bob.room(request).await;
    assert_eq!(alice.call("POST", &format!("/join/{room}"), json!({})).await.0, StatusCode::NOT_FOUND);
    assert_eq!(alice.forums("nouveau").await, ["Nouveau"]);
    alice.ok("POST", &format!("/join/{room}"), json!({})).await;
    bob.sees(&room, &alice.id, "join").await;
}
