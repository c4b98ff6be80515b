//! Rows 30 to 43 and 88: what becomes of `createRoom`.

use chappe_world::FakeNet;
use http::StatusCode;
use serde_json::{Value, json};

use super::{RULES, User, direct, eventually, forum, network, room_with, server};

fn event(kind: &str, content: &Value) -> Value {
    json!({ "type": kind, "state_key": "", "content": content })
}

async fn bad(user: &User<'_>, request: Value) {
    let (status, said) = user.call("POST", "/createRoom", request.clone()).await;
    assert_eq!(
        (status, &said["errcode"]),
        (StatusCode::BAD_REQUEST, &json!("M_INVALID_PARAM")),
        "{request}: {said}"
    );
}

#[tokio::test]
async fn rows_30_31_a_room_has_an_access_rule() {
    let (a, ..) = network().await;
    let alice = a.user("alice").await;
    for (request, rule) in
        [(json!({}), "restricted"), (direct(), "direct"), (room_with("unrestricted"), "unrestricted")]
    {
        let room = alice.room(request).await;
        let said = alice.state(&room, RULES).await.unwrap();
        assert_eq!(said, json!({ "rule": rule, "visibility": "private" }));
    }
}

#[tokio::test]
async fn rows_32_33_a_wrong_access_rule_makes_no_room() {
    let (a, ..) = network().await;
    let alice = a.user("alice").await;
    for (is_direct, content) in [
        (true, json!({ "rule": "restricted" })),
        (false, json!({ "rule": "direct" })),
        (false, json!({ "rule": "foo" })),
        (false, json!({})),
        (true, json!({ "rule": null })),
    ] {
        bad(&alice, json!({ "is_direct": is_direct, "initial_state": [event(RULES, &content)] })).await;
    }
    bad(&alice, json!({ "is_direct": true, "preset": "public_chat" })).await;
    let open = event("m.room.join_rules", &json!({ "join_rule": "public" }));
    bad(&alice, json!({ "is_direct": true, "initial_state": [open] })).await;
    let rooms = alice.ok("GET", "/joined_rooms", Value::Null).await;
    assert_eq!(rooms["joined_rooms"], json!([]));
}

#[tokio::test]
async fn row_34_externals_make_no_rooms() {
    let (_, _, e) = network().await;
    let paul = e.user("paul").await;
    for request in [json!({}), direct(), forum(), json!({ "creation_content": { "type": "m.space" } })] {
        paul.refused("POST", "/createRoom", request).await;
    }
    let chief = e.admin("chief").await;
    let room = chief.room(json!({})).await;
    assert_eq!(chief.state(&room, RULES).await, None, "administrators make rooms as on any server");
}

#[tokio::test]
async fn rows_35_36_the_visibility_is_written_down_and_stays() {
    let (a, ..) = network().await;
    let alice = a.user("alice").await;
    for (request, visibility) in [(forum(), "public"), (json!({ "preset": "public_chat" }), "private")] {
        let room = alice.room(request).await;
        let said = alice.state(&room, RULES).await.unwrap();
        assert_eq!(said["visibility"], json!(visibility));
        let other = if visibility == "public" { "private" } else { "public" };
        let path = format!("/rooms/{room}/state/{RULES}/");
        alice.refused("PUT", &path, json!({ "rule": "restricted", "visibility": other })).await;
        alice.ok("PUT", &path, json!({ "rule": "restricted", "visibility": visibility })).await;
    }
    let private = event(RULES, &json!({ "rule": "restricted", "visibility": "private" }));
    bad(&alice, json!({ "visibility": "public", "initial_state": [private] })).await;
    let public = event(RULES, &json!({ "rule": "restricted", "visibility": "public" }));
    bad(&alice, json!({ "initial_state": [public] })).await;
    // Open to externals and in the directory: not both.
    let open = event(RULES, &json!({ "rule": "unrestricted" }));
    alice.refused("POST", "/createRoom", json!({ "visibility": "public", "initial_state": [open] })).await;
}

#[tokio::test]
async fn rows_37_38_39_what_is_encrypted_and_what_is_not() {
    let (a, ..) = network().await;
    let alice = a.user("alice").await;
    let plain = json!({ "rule": "restricted", "force_unencrypted_at_creation": true });
    let plain_chat = json!({ "rule": "direct", "force_unencrypted_at_creation": true });
    let linked = event("m.room.join_rules", &json!({ "join_rule": "public" }));
    for (request, encrypted) in [
        (json!({}), true),
        (json!({ "preset": "private_chat" }), true),
        (direct(), true),
        (
            json!({ "is_direct": true, "preset": "trusted_private_chat", "initial_state": [event(RULES, &plain_chat)] }),
            true,
        ),
        (json!({ "preset": "trusted_private_chat" }), true),
        (json!({ "preset": "private_chat", "initial_state": [event(RULES, &plain)] }), false),
        (forum(), false),
        (json!({ "initial_state": [linked] }), false),
    ] {
        let room = alice.room(request.clone()).await;
        let algorithm = alice.state(&room, "m.room.encryption").await.map(|said| said["algorithm"].clone());
        assert_eq!(algorithm, encrypted.then(|| json!("m.megolm.v1.aes-sha2")), "{request}");
    }
    let algorithm = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    for request in [json!({ "preset": "private_chat", "initial_state": [event(RULES, &plain)] }), forum()] {
        let room = alice.room(request).await;
        alice.refused("PUT", &format!("/rooms/{room}/state/m.room.encryption/"), algorithm.clone()).await;
    }
}

#[tokio::test]
async fn row_38_whether_a_room_stays_unencrypted_is_written_down_as_it_holds() {
    let (a, ..) = network().await;
    let alice = a.user("alice").await;
    for (is_direct, said, written) in [
        (false, json!(false), false),
        (false, Value::Null, false),
        (false, json!(true), true),
        (true, json!(false), false),
        (true, Value::Null, false),
        // It is encrypted all the same.
        (true, json!(true), false),
    ] {
        let mut request = if is_direct { direct() } else { json!({ "preset": "private_chat" }) };
        let rule = if is_direct { "direct" } else { "restricted" };
        let content = json!({ "rule": rule, "force_unencrypted_at_creation": said, "visibility": "private" });
        request["initial_state"] = json!([event(RULES, &content)]);
        let room = alice.room(request).await;
        let mut expected = content.clone();
        expected["force_unencrypted_at_creation"] = json!(written);
        assert_eq!(alice.state(&room, RULES).await, Some(expected), "{content}");
        assert_eq!(alice.state(&room, "m.room.encryption").await.is_none(), written, "{content}");
    }
}

/// Tchap X writes every field of the rules: null where it has nothing to say, and later what it has read.
#[tokio::test]
async fn rows_33_to_38_and_44_null_is_not_said() {
    let (a, b, e) = network().await;
    let (alice, bob, paul) = (a.user("alice").await, b.user("bob").await, e.user("paul").await);
    let with_nulls = |rule: &str, visibility: Value| json!({ "rule": rule, "force_unencrypted_at_creation": null, "visibility": visibility });
    let made = |rules: Value| json!({ "preset": "private_chat", "visibility": "private", "initial_state": [event(RULES, &rules)] });
    let mut chat = made(with_nulls("direct", json!("private")));
    chat["is_direct"] = json!(true);
    let chat = alice.room(chat).await;
    paul.enter(&chat, &alice).await;
    for (request, visibility) in [
        (made(with_nulls("restricted", json!("private"))), json!("private")),
        (made(with_nulls("restricted", Value::Null)), Value::Null),
        // Made by another client, opened by this one.
        (room_with("restricted"), json!("private")),
    ] {
        let room = alice.room(request).await;
        let said = alice.state(&room, RULES).await.unwrap();
        assert_eq!((&said["rule"], &said["visibility"]), (&json!("restricted"), &json!("private")));
        assert!(alice.state(&room, "m.room.encryption").await.is_some());
        bob.enter(&room, &alice).await;
        let opened = with_nulls("unrestricted", visibility);
        alice.ok("PUT", &format!("/rooms/{room}/state/{RULES}/"), opened.clone()).await;
        let mut expected = said.clone();
        expected["rule"] = json!("unrestricted");
        let is_open = || async { bob.state(&room, RULES).await == Some(expected.clone()) };
        eventually("it is open", is_open).await;
        paul.enter(&room, &alice).await;
    }
    let mut public = forum();
    public["initial_state"] = json!([event(RULES, &with_nulls("restricted", Value::Null))]);
    let public = alice.room(public).await;
    assert_eq!(alice.state(&public, RULES).await.unwrap()["visibility"], json!("public"));
    // It does not take back what was said.
    let path = format!("/rooms/{public}/state/{RULES}/");
    alice.refused("PUT", &path, with_nulls("restricted", Value::Null)).await;
}

#[tokio::test]
async fn rows_40_41_42_power_levels() {
    let (a, ..) = network().await;
    let (alice, anne) = (a.user("alice").await, a.user("anne").await);
    for version in ["11", "12"] {
        let room = alice.room(json!({ "preset": "private_chat", "room_version": version })).await;
        let levels = alice.levels(&room).await;
        let creators_stand_above = version == "12";
        let (users, tombstone) =
            if creators_stand_above { (json!({}), 150) } else { (json!({ alice.id.clone(): 100 }), 100) };
        assert_eq!(
            levels,
            json!({
                "users": users, "users_default": 0, "events_default": 0, "state_default": 100,
                "ban": 50, "kick": 50, "redact": 50, "invite": 50,
                "events": {
                    "m.room.name": 50, "m.room.avatar": 50, "m.room.canonical_alias": 50,
                    "m.room.power_levels": 100, "m.room.history_visibility": 100, "m.room.tombstone": tombstone,
                    "m.room.server_acl": 100, "m.room.encryption": 100, "m.beacon_info": 0,
                    "org.matrix.msc3672.beacon_info": 0, "m.call.member": 0, "org.matrix.msc3401.call.member": 0,
                },
            })
        );
        let mut trusted =
            json!({ "preset": "trusted_private_chat", "invite": [anne.id], "room_version": version });
        let room = alice.room(trusted.clone()).await;
        if creators_stand_above {
            let create = alice.state(&room, "m.room.create").await.unwrap();
            assert_eq!(create["additional_creators"], json!([anne.id]));
        } else {
            assert_eq!(alice.levels(&room).await["users"], json!({ &alice.id: 100, &anne.id: 100 }));
        }
        trusted["power_level_content_override"] = json!({ "events": { "m.room.name": 100 }, "invite": 100 });
        let room = alice.room(trusted).await;
        let levels = alice.levels(&room).await;
        assert_eq!((&levels["invite"], &levels["events"]["m.room.name"]), (&json!(100), &json!(100)));
        assert_eq!((&levels["state_default"], &levels["events"]["m.call.member"]), (&json!(100), &json!(0)));
    }
    for low in [json!({ "invite": 0 }), json!({ "invite": "50" }), json!({ "state_default": 50 })] {
        bad(&alice, json!({ "power_level_content_override": low })).await;
        bad(&alice, json!({ "initial_state": [event("m.room.power_levels", &low)] })).await;
    }
    let room = alice.room(forum()).await;
    assert_eq!(alice.levels(&room).await["invite"], json!(0));
    let users = event("m.room.power_levels", &json!({ "users": { &alice.id: 100, &anne.id: 50 } }));
    let room = alice.room(json!({ "room_version": "11", "initial_state": [users] })).await;
    let levels = alice.levels(&room).await;
    assert_eq!((&levels["users"][&anne.id], &levels["state_default"]), (&json!(50), &json!(100)));
}

#[tokio::test]
async fn row_43_who_sees_history() {
    let (a, ..) = network().await;
    let alice = a.user("alice").await;
    let told = event("m.room.history_visibility", &json!({ "history_visibility": "joined" }));
    for (request, seen) in [
        (json!({}), "invited"),
        (direct(), "invited"),
        (forum(), "shared"),
        (json!({ "initial_state": [told] }), "joined"),
    ] {
        let room = alice.room(request).await;
        let said = alice.state(&room, "m.room.history_visibility").await.unwrap();
        assert_eq!(said["history_visibility"], json!(seen));
    }
}

#[tokio::test]
async fn row_88_what_is_said_in_public_is_kept_for_90_days() {
    let (a, ..) = network().await;
    let alice = a.user("alice").await;
    let day = 24 * 60 * 60 * 1_000_i64;
    let room = alice.room(forum()).await;
    assert_eq!(alice.state(&room, "m.room.retention").await, Some(json!({ "max_lifetime": 90 * day })));
    let private = alice.room(json!({})).await;
    assert_eq!(alice.state(&private, "m.room.retention").await, None);
    let with = |retention: Value| {
        let mut request = forum();
        request["initial_state"] = json!([event("m.room.retention", &retention)]);
        request
    };
    let room = alice.room(with(json!({ "max_lifetime": day }))).await;
    assert_eq!(alice.state(&room, "m.room.retention").await, Some(json!({ "max_lifetime": day })));
    for wrong in [json!({ "max_lifetime": 91 * day }), json!({})] {
        alice.refused("POST", "/createRoom", with(wrong)).await;
    }
}

#[tokio::test]
async fn a_server_without_the_profile_is_a_plain_one() {
    let net = FakeNet::new();
    let plain = super::Place::start(&net, "m.test", "").await;
    let mary = plain.user("mary").await;
    let room = mary.room(json!({ "preset": "private_chat" })).await;
    for kind in [RULES, "m.room.encryption", "m.room.retention"] {
        assert_eq!(mary.state(&room, kind).await, None, "{kind}");
    }
    assert_eq!(mary.levels(&room).await["state_default"], json!(50));
    drop(server(&net, "a.test").await);
}
