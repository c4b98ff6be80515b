//! End-to-end keys, key backup and messages to devices.

use serde_json::{Value, json};

use super::home::{Home, User};

/// The keys of a device, without signatures: for what does not depend on them.
async fn fallback_less_upload(user: &User<'_>, count: usize) -> Value {
    let keys: serde_json::Map<String, Value> = (0..count)
        .map(|n| (format!("signed_curve25519:AAAA{n:02}"), json!({ "key": "a2V5", "signatures": {} })))
        .collect();
    user.post("/keys/upload", json!({ "one_time_keys": keys })).await.ok()
}

#[tokio::test]
async fn a_one_time_key_is_given_once() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let counts = fallback_less_upload(&bob, 2).await;
    assert_eq!(counts["one_time_key_counts"]["signed_curve25519"], 2);
    let claim = json!({ "one_time_keys": { bob.id.clone(): { bob.device.clone(): "signed_curve25519" } } });
    let mut seen = Vec::new();
    for _ in 0..2 {
        let claimed = alice.post("/keys/claim", claim.clone()).await.ok();
        let keys = claimed["one_time_keys"][&bob.id][&bob.device].as_object().unwrap().clone();
        seen.extend(keys.keys().cloned());
    }
    seen.dedup();
    assert_eq!(seen.len(), 2);
    let none = alice.post("/keys/claim", claim).await.ok();
    assert!(none["one_time_keys"][&bob.id][&bob.device].as_object().is_none_or(serde_json::Map::is_empty));
    let (synced, _) = bob.sync("").await;
    assert_eq!(synced["device_one_time_keys_count"]["signed_curve25519"], 0);
}

#[tokio::test]
async fn a_message_to_a_device_arrives_once_and_stays_until_it_was_seen() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let (_, start) = bob.sync("").await;
    let body = json!({ "messages": { bob.id.clone(): { "*": { "hello": 1 } } } });
    for _ in 0..2 {
        alice.put("/sendToDevice/org.example.hello/txn", body.clone()).await.ok();
    }
    for _ in 0..2 {
        let (synced, _) = bob.sync(&start).await;
        let events = synced["to_device"]["events"].as_array().unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(
            events[0],
            json!({ "type": "org.example.hello", "sender": alice.id, "content": { "hello": 1 } })
        );
    }
    let (_, next) = bob.sync(&start).await;
    let (synced, _) = bob.sync(&next).await;
    assert!(synced["to_device"]["events"].as_array().is_none_or(Vec::is_empty));
    alice.put("/sendToDevice/org.example.goodbye/txn", body).await.ok();
    let (synced, _) = bob.sync(&next).await;
    assert_eq!(synced["to_device"]["events"][0]["type"], "org.example.goodbye", "that was another request");
}

#[tokio::test]
async fn messages_to_devices_that_would_spoil_an_answer_are_refused() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let to = |content: &str| format!(r#"{{"messages":{{"{}":{{"*":{content}}}}}}}"#, bob.id);
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(110), "]".repeat(110));
    let refused = ["[]", "7", r#"{"a":1,"a":2}"#, r#"{"a":"\ud800"}"#, r#"{"a":1e999}"#, deep.as_str()];
    for (txn, content) in refused.into_iter().enumerate() {
        let path = format!("/_matrix/client/v3/sendToDevice/x.test/{txn}");
        let request = http::Request::put(path).header("authorization", format!("Bearer {}", alice.token));
        let answer = home.send(request.body(to(content).into()).unwrap()).await;
        answer.refused(400, "M_BAD_JSON");
    }
    let fraction = json!({ "messages": { bob.id.clone(): { "*": { "a": 1.5, "b": [[]] } } } });
    alice.put("/sendToDevice/x.test/good", fraction).await.ok();
    let (synced, _) = bob.sync("").await;
    let events = synced["to_device"]["events"].as_array().unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["content"], json!({ "a": 1.5, "b": [[]] }));
}

#[tokio::test]
async fn keys_are_kept_in_a_backup() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    alice.get("/room_keys/version").await.refused(404, "M_NOT_FOUND");
    let about = json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
        "auth_data": { "public_key": "abc", "signatures": {} } });
    let made = alice.post("/room_keys/version", about).await.ok();
    let version = made["version"].as_str().unwrap();
    let key = json!({ "first_message_index": 1, "forwarded_count": 0, "is_verified": false,
        "session_data": { "ephemeral": "a", "ciphertext": "b", "mac": "c" } });
    let path = format!("/room_keys/keys/!r:a.test/session?version={version}");
    assert_eq!(alice.put(&path, key.clone()).await.ok()["count"], 1);
    assert_eq!(alice.get(&path).await.ok(), key);
    let worse = json!({ "first_message_index": 9, "forwarded_count": 3, "is_verified": false,
        "session_data": { "ephemeral": "x", "ciphertext": "y", "mac": "z" } });
    alice.put(&path, worse).await.ok();
    assert_eq!(alice.get(&path).await.ok(), key, "the better key stays");
    let all = alice.get(&format!("/room_keys/keys?version={version}")).await.ok();
    assert_eq!(all["rooms"]["!r:a.test"]["sessions"]["session"], key);
    alice
        .put("/room_keys/keys/!r:a.test/session?version=999", key)
        .await
        .refused(403, "M_WRONG_ROOM_KEYS_VERSION");
    alice.call("DELETE", &path, Value::Null).await.ok();
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
    assert_eq!(alice.get("/room_keys/version").await.ok()["count"], 0);
}

#[tokio::test]
async fn a_backup_is_changed_and_removed_under_its_own_version() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let about = |key: &str, version: Option<&str>| {
        let mut about = json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
            "auth_data": { "public_key": key, "signatures": {} } });
        if let Some(version) = version {
            about["version"] = json!(version);
        }
        about
    };
    assert_eq!(alice.post("/room_keys/version", about("a", None)).await.ok()["version"], "1");
    let path = "/room_keys/version/1";
    alice.put(path, about("b", Some("2"))).await.refused(400, "M_INVALID_PARAM");
    assert_eq!(alice.get(path).await.ok()["auth_data"]["public_key"], "a");
    for version in [None, Some("1")] {
        alice.put(path, about("b", version)).await.ok();
    }
    assert_eq!(alice.get(path).await.ok()["auth_data"]["public_key"], "b");
    for _ in 0..2 {
        alice.delete(path).await.ok();
    }
    alice.get(path).await.refused(404, "M_NOT_FOUND");
    alice.delete("/room_keys/version/2").await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_backup_of_many_keys_comes_whole() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let about = json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": { "public_key": "abc", "signatures": {} } });
    let made = alice.post("/room_keys/version", about).await.ok();
    let version = made["version"].as_str().unwrap();
    let (all, of_room) = (format!("/room_keys/keys?version={version}"), |room: &str| {
        format!("/room_keys/keys/{room}?version={version}")
    });
    assert_eq!(alice.get(&all).await.ok(), json!({ "rooms": {} }));
    assert_eq!(alice.get(&of_room("!a:a.test")).await.ok(), json!({ "sessions": {} }));
    let key = |n: usize| {
        json!({ "first_message_index": n, "forwarded_count": 0, "is_verified": false,
            "session_data": { "ephemeral": "a", "ciphertext": "\"}", "mac": "c" } })
    };
    let sessions = |numbers: std::ops::Range<usize>| -> Value {
        let sessions: serde_json::Map<_, _> = numbers.map(|n| (format!("s \"{n}"), key(n))).collect();
        json!({ "sessions": sessions })
    };
    let rooms = json!({ "rooms": { "!a:a.test": sessions(0..50), "!b:a.test": sessions(0..1), "!c:a.test": sessions(0..120) } });
    assert_eq!(alice.put(&all, rooms.clone()).await.ok()["count"], 171);
    assert_eq!(alice.get(&all).await.ok(), rooms);
    for room in ["!a:a.test", "!b:a.test", "!c:a.test"] {
        assert_eq!(alice.get(&of_room(room)).await.ok(), rooms["rooms"][room]);
    }
    alice.get("/room_keys/keys?version=9").await.refused(404, "M_NOT_FOUND");
    bob.get(&all).await.refused(404, "M_NOT_FOUND");
    assert_eq!(alice.delete(&of_room("!c:a.test")).await.ok()["count"], 51);
    assert_eq!(alice.delete(&all).await.ok()["count"], 0);
    assert_eq!(alice.get(&all).await.ok(), json!({ "rooms": {} }));
}

#[tokio::test]
async fn keys_of_the_wrong_user_are_refused() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let keys = json!({ "device_keys": { "user_id": bob.id, "device_id": alice.device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"], "keys": {}, "signatures": {} } });
    let refused = alice.post("/keys/upload", keys).await;
    assert_eq!(refused.status.as_u16(), 400, "{}", refused.json);
    let asked = bob.post("/keys/query", json!({ "device_keys": { alice.id.clone(): [] } })).await.ok();
    assert_eq!(asked["device_keys"][&alice.id], json!({}));
}

#[tokio::test]
async fn questions_about_too_many_keys_are_refused() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let users: serde_json::Map<String, Value> =
        (0..20_001).map(|n| (format!("@u{n}:x.example"), json!([]))).collect();
    assert_eq!(alice.post("/keys/query", json!({ "device_keys": users })).await.status.as_u16(), 413);
    let devices: serde_json::Map<String, Value> =
        (0..20_001).map(|n| (format!("D{n}"), json!("signed_curve25519"))).collect();
    let claim = json!({ "one_time_keys": { alice.id.clone(): devices } });
    assert_eq!(alice.post("/keys/claim", claim).await.status.as_u16(), 413);
}
