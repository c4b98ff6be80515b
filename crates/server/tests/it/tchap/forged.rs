//! Row 61: what a server without rules sends is soft-failed where it breaks one, and never shown.

use chappe_world::FakeNet;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Place, RULES, User, network, room_with, server};

/// A server of agents and one that knows no rules, whose user has all power in a room of both; a second room tells when
/// what came before has arrived.
struct Pair {
    net: FakeNet,
    a: Place,
    m: Place,
}

impl Pair {
    async fn new() -> Self {
        let net = FakeNet::new();
        let (a, m) = (server(&net, "a.test").await, Place::start(&net, "m.test", "").await);
        Self { net, a, m }
    }
}

struct Rooms {
    room: String,
    other: String,
}

/// Rooms of `alice` with `mary` in them, who may do everything in the first.
async fn rooms(alice: &User<'_>, mary: &User<'_>, rule: &str) -> Rooms {
    let mut request = room_with(rule);
    request["room_version"] = json!("11");
    let (room, other) = (alice.room(request).await, alice.room(room_with("restricted")).await);
    mary.enter(&room, alice).await;
    mary.enter(&other, alice).await;
    let mut levels = alice.levels(&room).await;
    levels["users"][&mary.id] = json!(100);
    let path = format!("/rooms/{room}/state/m.room.power_levels/");
    alice.ok("PUT", &path, levels.clone()).await;
    super::eventually("mary has power", || async { mary.levels(&room).await == levels }).await;
    Rooms { room, other }
}

async fn timeline(user: &User<'_>, room: &str) -> String {
    user.ok("GET", &format!("/rooms/{room}/messages?dir=b&limit=100"), Value::Null).await.to_string()
}

#[tokio::test]
async fn row_61_state_that_breaks_a_rule_is_never_shown() {
    let Pair { a, m, .. } = &Pair::new().await;
    let (alice, mary) = (a.user("alice").await, m.user("mary").await);
    let forged = [
        ("unrestricted", RULES, json!({ "rule": "restricted", "mark": "forged" })),
        ("unrestricted", "m.room.power_levels", json!({ "users_default": 100, "mark": "forged" })),
        ("direct", "m.room.name", json!({ "name": "forged" })),
        ("direct", RULES, json!({ "rule": "unrestricted", "mark": "forged" })),
    ];
    for (n, (rule, kind, content)) in forged.into_iter().enumerate() {
        let rooms = if rule == "direct" {
            pair_of_two(&alice, &mary).await
        } else {
            rooms(&alice, &mary, rule).await
        };
        let before = alice.state(&rooms.room, kind).await;
        let mut said = before.clone().unwrap_or_else(|| json!({}));
        for (field, value) in content.as_object().unwrap() {
            said[field] = value.clone();
        }
        mary.ok("PUT", &format!("/rooms/{}/state/{kind}/", rooms.room), said).await;
        mary.say(&rooms.other, &format!("marker{n}")).await;
        alice.hears(&rooms.other, &format!("marker{n}")).await;
        assert_eq!(alice.state(&rooms.room, kind).await, before, "{content}");
        assert!(!timeline(&alice, &rooms.room).await.contains("forged"), "{content}");
    }
}

/// A direct chat, and a room that tells what has arrived.
async fn pair_of_two(alice: &User<'_>, mary: &User<'_>) -> Rooms {
    let mut request = super::direct();
    request["invite"] = json!([mary.id]);
    request["room_version"] = json!("11");
    let (room, other) = (alice.room(request).await, alice.room(room_with("restricted")).await);
    assert_eq!(mary.join(&room, "a.test").await.0, StatusCode::OK);
    mary.enter(&other, alice).await;
    alice.sees(&room, &mary.id, "join").await;
    Rooms { room, other }
}

#[tokio::test]
async fn row_61_an_external_let_in_by_a_server_without_rules_is_never_shown() {
    let Pair { net, a, m } = &Pair::new().await;
    // A server of externals that keeps no rules either.
    let x = Place::start(net, "x.test", "").await;
    let (alice, mary, eve) = (a.user("alice").await, m.user("mary").await, x.user("eve").await);
    for rule in ["restricted", "unrestricted"] {
        let Rooms { room, other } = rooms(&alice, &mary, rule).await;
        alice
            .ok("PUT", &format!("/rooms/{room}/state/m.room.join_rules/"), json!({ "join_rule": "public" }))
            .await;
        let open = || async {
            mary.state(&room, "m.room.join_rules").await.is_some_and(|said| said["join_rule"] == "public")
        };
        super::eventually("the room is open", open).await;
        assert_eq!(eve.join(&room, "a.test").await.0, StatusCode::FORBIDDEN, "{rule}");
        let (status, said) = eve.join(&room, "m.test").await;
        assert_eq!(status, StatusCode::OK, "{said}");
        mary.say(&other, &format!("marker-{rule}")).await;
        alice.hears(&other, &format!("marker-{rule}")).await;
        assert_eq!(alice.membership(&room, &eve.id).await, None, "{rule}");
        assert!(!timeline(&alice, &room).await.contains(&eve.id), "{rule}");
    }
}

#[tokio::test]
async fn row_61_an_invite_that_breaks_a_rule_is_refused_by_the_server_of_the_invited() {
    let net = FakeNet::new();
    let (m, e) = (Place::start(&net, "m.test", "").await, server(&net, "e.test").await);
    let (mary, paul) = (m.user("mary").await, e.user("paul").await);
    let closed = mary.room(room_with("restricted")).await;
    let (status, said) =
        mary.call("POST", &format!("/rooms/{closed}/invite"), json!({ "user_id": paul.id })).await;
    assert_eq!((status.as_u16(), &said["errcode"]), (403, &json!("M_FORBIDDEN")), "{said}");
    assert!(!paul.is_invited(&closed).await);
    let open = mary.room(room_with("unrestricted")).await;
    paul.enter(&open, &mary).await;
}

/// Other servers keep what clients write, nulls as well.
#[tokio::test]
async fn row_61_rules_with_nulls_count_where_they_are_received() {
    let net = FakeNet::new();
    let m = Place::start(&net, "m.test", "").await;
    let (a, e) = (server(&net, "a.test").await, server(&net, "e.test").await);
    let (mary, alice, paul) = (m.user("mary").await, a.user("alice").await, e.user("paul").await);
    let rules =
        |rule: &str| json!({ "rule": rule, "force_unencrypted_at_creation": null, "visibility": null });
    let made = |rule: &str| {
        let rules = json!({ "type": RULES, "state_key": "", "content": rules(rule) });
        json!({ "preset": "private_chat", "initial_state": [rules] })
    };
    let chat = mary.room(made("direct")).await;
    paul.enter(&chat, &mary).await;
    let room = mary.room(made("restricted")).await;
    alice.enter(&room, &mary).await;
    alice.refused("POST", &format!("/rooms/{room}/invite"), json!({ "user_id": paul.id })).await;
    let opened = rules("unrestricted");
    mary.ok("PUT", &format!("/rooms/{room}/state/{RULES}/"), opened.clone()).await;
    let is_open = || async { alice.state(&room, RULES).await == Some(opened.clone()) };
    super::eventually("it is open", is_open).await;
    paul.enter(&room, &alice).await;
    mary.sees(&room, &paul.id, "join").await;
}

/// What all agree on stays agreed on: nothing diverges where nobody lies.
#[tokio::test]
async fn row_61_what_keeps_the_rules_arrives() {
    let (a, b, e) = network().await;
    let (alice, bob, paul) = (a.user("alice").await, b.user("bob").await, e.user("paul").await);
    let room = alice.room(room_with("restricted")).await;
    bob.enter(&room, &alice).await;
    let opened = json!({ "rule": "unrestricted", "visibility": "private" });
    alice.ok("PUT", &format!("/rooms/{room}/state/{RULES}/"), opened.clone()).await;
    super::eventually("the rule", || async { bob.state(&room, RULES).await == Some(opened.clone()) }).await;
    paul.enter(&room, &alice).await;
    paul.say(&room, "bonjour").await;
    for user in [&alice, &bob] {
        user.hears(&room, "bonjour").await;
    }
}
