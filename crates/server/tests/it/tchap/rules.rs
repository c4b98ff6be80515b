//! Rows 44 to 47, 52, 55, 58 to 60, 62, 75, 89 and 92: what may be said of a room, and who is exempt.

use chappe_world::FakeNet;
use http::StatusCode;
use serde_json::{Value, json};

use super::{RULES, User, direct, eventually, forum, network, room_with, server};

async fn rule(user: &User<'_>, room: &str) -> Value {
    user.state(room, RULES).await.unwrap()["rule"].clone()
}

fn put(room: &str, kind: &str) -> String {
    format!("/rooms/{room}/state/{kind}/")
}

#[tokio::test]
async fn rows_44_45_46_how_a_rule_changes() {
    let (a, ..) = network().await;
    let (alice, anne) = (a.user("alice").await, a.user("anne").await);
    let room = alice.room(room_with("restricted")).await;
    anne.enter(&room, &alice).await;
    let mut levels = alice.levels(&room).await;
    levels["users"][&anne.id] = json!(50);
    alice.ok("PUT", &put(&room, "m.room.power_levels"), levels).await;
    let path = put(&room, RULES);
    anne.refused("PUT", &path, json!({ "rule": "unrestricted" })).await;
    alice.refused("PUT", &path, json!({ "rule": "direct" })).await;
    alice.ok("PUT", &path, json!({ "rule": "unrestricted" })).await;
    for other in ["restricted", "direct", "nonsense"] {
        alice.refused("PUT", &path, json!({ "rule": other })).await;
    }
    assert_eq!(rule(&alice, &room).await, json!("unrestricted"));
    let chat = alice.room(direct()).await;
    for other in ["restricted", "unrestricted"] {
        alice.refused("PUT", &put(&chat, RULES), json!({ "rule": other })).await;
    }
    // Redacting it says nothing else.
    let state = alice.ok("GET", &format!("/rooms/{room}/state"), Value::Null).await;
    let event = state.as_array().unwrap().iter().find(|event| event["type"] == RULES).unwrap();
    let id = event["event_id"].as_str().unwrap();
    alice.refused("PUT", &format!("/rooms/{room}/redact/{id}/1"), json!({})).await;
}

#[tokio::test]
async fn row_47_a_public_room_is_not_opened_to_externals() {
    let (a, ..) = network().await;
    let alice = a.user("alice").await;
    let room = alice.room(forum()).await;
    let opened = json!({ "rule": "unrestricted", "visibility": "public" });
    alice.refused("PUT", &put(&room, RULES), opened).await;
    // A private room that was put into the directory afterwards.
    let room = alice.room(room_with("restricted")).await;
    let list = format!("/directory/list/room/{room}");
    alice.ok("PUT", &list, json!({ "visibility": "public" })).await;
    alice.refused("PUT", &put(&room, RULES), json!({ "rule": "unrestricted" })).await;
    alice.ok("PUT", &list, json!({ "visibility": "private" })).await;
    alice.ok("PUT", &put(&room, RULES), json!({ "rule": "unrestricted" })).await;
    // A room in which everybody has power.
    let room = alice.room(room_with("restricted")).await;
    let mut levels = alice.levels(&room).await;
    levels["users_default"] = json!(100);
    alice.ok("PUT", &put(&room, "m.room.power_levels"), levels).await;
    alice.refused("PUT", &put(&room, RULES), json!({ "rule": "unrestricted" })).await;
}

#[tokio::test]
async fn row_52_externals_get_no_power() {
    let (a, _, e) = network().await;
    let (alice, paul) = (a.user("alice").await, e.user("paul").await);
    let room = alice.room(room_with("unrestricted")).await;
    paul.enter(&room, &alice).await;
    let path = put(&room, "m.room.power_levels");
    let levels = alice.levels(&room).await;
    let mut mighty = levels.clone();
    mighty["users"][&paul.id] = json!(50);
    alice.refused("PUT", &path, mighty).await;
    let mut all = levels.clone();
    all["users_default"] = json!(10);
    alice.refused("PUT", &path, all).await;
    let mut quiet = levels;
    quiet["events_default"] = json!(50);
    alice.ok("PUT", &path, quiet).await;
}

#[tokio::test]
async fn row_55_a_direct_chat_is_given_no_name() {
    let (a, b, _) = network().await;
    let alice = a.user("alice").await;
    let chat = alice.room(direct()).await;
    for (kind, content) in [
        ("m.room.name", json!({ "name": "x" })),
        ("m.room.topic", json!({ "topic": "x" })),
        ("m.room.avatar", json!({ "url": "mxc://a.test/x" })),
        ("m.room.join_rules", json!({ "join_rule": "public" })),
    ] {
        alice.refused("PUT", &put(&chat, kind), content).await;
    }
    // But for what it is made with, here and elsewhere.
    let bob = b.user("bob").await;
    let mut named = direct();
    named["name"] = json!("Direct Room");
    let chat = alice.room(named).await;
    bob.enter(&chat, &alice).await;
    for user in [&alice, &bob] {
        assert_eq!(user.state(&chat, "m.room.name").await, Some(json!({ "name": "Direct Room" })));
    }
    alice.refused("PUT", &put(&chat, "m.room.name"), json!({ "name": "x" })).await;
}

#[tokio::test]
async fn row_58_only_restricted_rooms_are_published() {
    let (a, ..) = network().await;
    let alice = a.user("alice").await;
    for (request, status) in [
        (room_with("restricted"), StatusCode::OK),
        (room_with("unrestricted"), StatusCode::FORBIDDEN),
        (direct(), StatusCode::FORBIDDEN),
    ] {
        let room = alice.room(request).await;
        let list = format!("/directory/list/room/{room}");
        let (said, answer) = alice.call("PUT", &list, json!({ "visibility": "public" })).await;
        assert_eq!(said, status, "{answer}");
        alice.ok("PUT", &list, json!({ "visibility": "private" })).await;
    }
}

#[tokio::test]
async fn row_59_a_forum_stays_open() {
    let (a, ..) = network().await;
    let alice = a.user("alice").await;
    let room = alice.room(forum()).await;
    alice.refused("PUT", &put(&room, "m.room.join_rules"), json!({ "join_rule": "invite" })).await;
    let linked = alice.room(room_with("restricted")).await;
    for rule in ["public", "invite"] {
        alice.ok("PUT", &put(&linked, "m.room.join_rules"), json!({ "join_rule": rule })).await;
    }
}

#[tokio::test]
async fn row_60_administrators_and_some_users_are_exempt() {
    let (a, b, e) = network().await;
    let (chief, bot, alice) = (a.admin("chief").await, a.user("bot").await, a.user("alice").await);
    let (bob, paul) = (b.user("bob").await, e.user("paul").await);
    // Whom the configuration names is exempt on every server.
    let room = alice.room(room_with("restricted")).await;
    for user in [&bot, &bob] {
        user.enter(&room, &alice).await;
    }
    alice.refused("POST", &format!("/rooms/{room}/invite"), json!({ "user_id": paul.id })).await;
    let mut levels = alice.levels(&room).await;
    levels["users"][&bot.id] = json!(50);
    alice.ok("PUT", &put(&room, "m.room.power_levels"), levels).await;
    paul.enter(&room, &bot).await;
    bob.sees(&room, &paul.id, "join").await;
    // An administrator is on its own.
    let room = chief.room(room_with("unrestricted")).await;
    chief.ok("PUT", &put(&room, RULES), json!({ "rule": "restricted" })).await;
    let chat = alice.room(direct()).await;
    for user in [&bob, &chief] {
        alice.invite(&chat, user).await;
    }
    let (status, said) = chief.join(&chat, "a.test").await;
    assert_eq!(status, StatusCode::OK, "{said}");
}

#[tokio::test]
async fn row_62_an_upgrade_keeps_the_rule_and_the_externals() {
    let (a, b, e) = network().await;
    let (alice, bob, paul) = (a.user("alice").await, b.user("bob").await, e.user("paul").await);
    for version in ["11", "12"] {
        let mut request = room_with("unrestricted");
        request["room_version"] = json!("10");
        let room = alice.room(request).await;
        alice.ok("PUT", &put(&room, "m.room.join_rules"), json!({ "join_rule": "public" })).await;
        for user in [&bob, &paul] {
            user.enter(&room, &alice).await;
        }
        let said =
            alice.ok("POST", &format!("/rooms/{room}/upgrade"), json!({ "new_version": version })).await;
        let new = said["replacement_room"].as_str().unwrap();
        assert_eq!(alice.state(new, RULES).await, alice.state(&room, RULES).await);
        assert_eq!(alice.levels(new).await["state_default"], json!(100));
        eventually("the external is invited", || paul.is_invited(new)).await;
        for user in [&paul, &bob] {
            let (status, said) = user.join(new, "a.test").await;
            assert_eq!(status, StatusCode::OK, "{said}");
        }
        alice.sees(new, &paul.id, "join").await;
    }
    let room = alice.room(room_with("restricted")).await;
    let said = alice.ok("POST", &format!("/rooms/{room}/upgrade"), json!({ "new_version": "12" })).await;
    assert_eq!(rule(&alice, said["replacement_room"].as_str().unwrap()).await, json!("restricted"));
}

#[tokio::test]
async fn row_75_a_forum_of_one_server() {
    let (a, b, _) = network().await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let mut own = forum();
    own["creation_content"] = json!({ "m.federate": false });
    let room = alice.room(own).await;
    let (status, said) = bob.join(&room, "a.test").await;
    assert_eq!((status, &said["errcode"]), (StatusCode::FORBIDDEN, &json!("M_FORBIDDEN")), "{said}");
    let anne = a.user("anne").await;
    assert_eq!(anne.join(&room, "a.test").await.0, StatusCode::OK);
}

#[tokio::test]
async fn row_89_a_forum_is_not_kept_for_longer() {
    let net = FakeNet::new();
    let a = server(&net, "a.test").await;
    let alice = a.user("alice").await;
    let room = alice.room(forum()).await;
    let day = 24 * 60 * 60 * 1_000_i64;
    let path = put(&room, "m.room.retention");
    for wrong in [json!({ "max_lifetime": 91 * day }), json!({}), json!({ "min_lifetime": day })] {
        alice.refused("PUT", &path, wrong).await;
    }
    alice.ok("PUT", &path, json!({ "max_lifetime": day })).await;
    let private = alice.room(json!({})).await;
    alice.ok("PUT", &put(&private, "m.room.retention"), json!({ "max_lifetime": 400 * day })).await;
}

#[tokio::test]
async fn row_92_nobody_calls_in_a_public_room() {
    let (a, ..) = network().await;
    let alice = a.user("alice").await;
    let invite = json!({ "call_id": "1", "version": "1", "party_id": "x", "lifetime": 1, "offer": {} });
    let (open, closed) = (alice.room(forum()).await, alice.room(json!({})).await);
    alice.refused("PUT", &format!("/rooms/{open}/send/m.call.invite/1"), invite.clone()).await;
    alice.ok("PUT", &format!("/rooms/{closed}/send/m.call.invite/1"), invite).await;
}
