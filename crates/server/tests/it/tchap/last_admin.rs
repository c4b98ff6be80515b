//! Rows 63 to 65: the last administrator leaves.

use chappe_world::FakeNet;
use serde_json::{Value, json};

use super::{User, direct, eventually, forum, network, room_with, server_with};

async fn leave(user: &User<'_>, room: &str) {
    user.ok("POST", &format!("/rooms/{room}/leave"), json!({})).await;
}

async fn give(user: &User<'_>, room: &str, to: &User<'_>, level: i64) {
    let mut levels = user.levels(room).await;
    levels["users"][&to.id] = json!(level);
    user.ok("PUT", &format!("/rooms/{room}/state/m.room.power_levels/"), levels).await;
}

fn of_version(mut request: Value, version: &str) -> Value {
    request["room_version"] = json!(version);
    request
}

#[tokio::test]
async fn row_63_everybody_takes_over_a_restricted_room() {
    let (a, b, _) = network().await;
    let (alice, anne, bob) = (a.user("alice").await, a.user("anne").await, b.user("bob").await);
    for version in ["11", "12"] {
        for request in [room_with("restricted"), forum()] {
            let room = alice.room(of_version(request, version)).await;
            for user in [&anne, &bob] {
                user.enter(&room, &alice).await;
            }
            give(&alice, &room, &anne, 50).await;
            give(&alice, &room, &bob, -1).await;
            leave(&alice, &room).await;
            let levels = anne.levels(&room).await;
            assert_eq!(levels["users_default"], json!(100));
            let users =
                if version == "11" { json!({ &alice.id: 100, &bob.id: -1 }) } else { json!({ &bob.id: -1 }) };
            assert_eq!(levels["users"], users, "who was put below all others stays there");
            eventually("bob knows", || async { bob.levels(&room).await["users_default"] == json!(100) })
                .await;
        }
    }
}

#[tokio::test]
async fn row_64_agents_take_over_an_open_room_and_externals_do_not() {
    let (a, b, e) = network().await;
    let (alice, anne) = (a.user("alice").await, a.user("anne").await);
    let (bob, paul) = (b.user("bob").await, e.user("paul").await);
    for version in ["11", "12"] {
        let room = alice.room(of_version(room_with("unrestricted"), version)).await;
        for user in [&anne, &bob, &paul] {
            user.enter(&room, &alice).await;
        }
        give(&alice, &room, &anne, 50).await;
        leave(&alice, &room).await;
        let levels = anne.levels(&room).await;
        assert_eq!(levels["users_default"], json!(0));
        assert_eq!((&levels["users"][&anne.id], &levels["users"][&bob.id]), (&json!(100), &json!(100)));
        assert_eq!(levels["users"].get(&paul.id), None);
        // They can do with it what an administrator can.
        eventually("bob knows", || async { bob.levels(&room).await == levels }).await;
        bob.ok("PUT", &format!("/rooms/{room}/state/m.room.topic/"), json!({ "topic": "x" })).await;
    }
}

#[tokio::test]
async fn nobody_takes_over_where_somebody_is_left_or_nobody_is() {
    let (a, ..) = network().await;
    let (alice, anne) = (a.user("alice").await, a.user("anne").await);
    for second in [100, 0] {
        let room = alice.room(of_version(room_with("restricted"), "11")).await;
        if second == 100 {
            anne.enter(&room, &alice).await;
            give(&alice, &room, &anne, 100).await;
        }
        let before = alice.levels(&room).await;
        leave(&alice, &room).await;
        assert_eq!(alice.levels(&room).await, before);
    }
    let mut request = of_version(direct(), "11");
    request["preset"] = json!("private_chat");
    let chat = alice.room(request).await;
    anne.enter(&chat, &alice).await;
    leave(&alice, &chat).await;
    assert_eq!(anne.levels(&chat).await["users_default"], json!(0));
    // Somebody who has no power leaves.
    let room = alice.room(room_with("restricted")).await;
    anne.enter(&room, &alice).await;
    leave(&anne, &room).await;
    assert_eq!(alice.levels(&room).await["users_default"], json!(0));
}

#[tokio::test]
async fn row_65_moderators_take_over_where_they_are_to() {
    let net = FakeNet::new();
    let a = server_with(&net, "a.test", "promote_moderators = true").await;
    let (alice, anne, max) = (a.user("alice").await, a.user("anne").await, a.user("max").await);
    for (rule, version) in [("restricted", "11"), ("unrestricted", "12")] {
        let room = alice.room(of_version(room_with(rule), version)).await;
        for (user, level) in [(&anne, 50), (&max, 10)] {
            user.enter(&room, &alice).await;
            give(&alice, &room, user, level).await;
        }
        leave(&alice, &room).await;
        let levels = anne.levels(&room).await;
        assert_eq!((&levels["users_default"], &levels["users"][&anne.id]), (&json!(0), &json!(100)));
        assert_eq!(levels["users"][&max.id], json!(10));
    }
}
