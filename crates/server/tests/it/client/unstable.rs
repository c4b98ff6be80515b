//! What clients ask for that is not, or only just, part of the specification.

use std::time::Duration;

use serde_json::{Value, json};

use super::home::Home;

#[tokio::test]
async fn account_data_is_deleted() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room(json!({})).await;
    let unstable = "/_matrix/client/unstable/org.matrix.msc3391";
    for path in [
        format!("/user/{}/account_data/x", alice.id),
        format!("/user/{}/rooms/{room}/account_data/x", alice.id),
    ] {
        alice.put(&path, json!({ "v": 1 })).await.ok();
        let gone = format!("{unstable}{path}");
        bob.call("DELETE", &gone, Value::Null).await.refused(403, "M_FORBIDDEN");
        alice.call("DELETE", &gone, Value::Null).await.ok();
        alice.get(&path).await.refused(404, "M_NOT_FOUND");
        alice.call("DELETE", &gone, Value::Null).await.ok();
    }
    for managed in ["m.push_rules", "m.fully_read"] {
        let path = format!("/user/{}/rooms/{room}/account_data/{managed}", alice.id);
        alice.put(&path, json!({ "event_id": "$e" })).await.refused(405, "M_BAD_JSON");
        let path = format!("/user/{}/account_data/{managed}", alice.id);
        alice.put(&path, json!({})).await.refused(405, "M_BAD_JSON");
        alice.delete(&format!("{unstable}{path}")).await.refused(405, "M_BAD_JSON");
    }
}

#[tokio::test]
async fn account_data_that_is_set_to_nothing_comes_down_sync() {
    const SLIDING: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?timeout=0";
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let room = alice.room(json!({})).await;
    let global = format!("/user/{}/account_data/x", alice.id);
    let of_room = format!("/user/{}/rooms/{room}/account_data/x", alice.id);
    let ask = json!({ "conn_id": "a", "extensions": { "account_data": { "enabled": true } } });
    let nothing = json!([{ "type": "x", "content": {} }]);
    let (_, mut since) = alice.sync("").await;
    let first = alice.post(SLIDING, ask.clone()).await.ok();
    let mut pos = first["pos"].as_str().unwrap().to_owned();
    // It was never there, and then it is deleted already.
    for _ in 0..2 {
        for path in [&global, &of_room] {
            alice.put(path, json!({})).await.ok();
            alice.get(path).await.refused(404, "M_NOT_FOUND");
        }
        let (told, next) = alice.sync(&since).await;
        assert_eq!(told["account_data"]["events"], nothing, "{told}");
        assert_eq!(told["rooms"]["join"][&room]["account_data"]["events"], nothing, "{told}");
        let told = alice.post(&format!("{SLIDING}&pos={pos}"), ask.clone()).await.ok();
        assert_eq!(told["extensions"]["account_data"]["global"], nothing, "{told}");
        pos = told["pos"].as_str().unwrap().to_owned();
        since = next;
    }
    let (all, _) = alice.sync("").await;
    let all = all["account_data"]["events"].as_array().unwrap();
    assert!(all.iter().all(|event| event["type"] != "x"), "who begins is not told: {all:?}");
}

#[tokio::test]
async fn polls_have_push_rules() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let rule =
        alice.get("/pushrules/global/underride/.org.matrix.msc3930.rule.poll_start_one_to_one").await.ok();
    assert_eq!(rule["actions"], json!(["notify", { "set_tweak": "sound", "value": "default" }]));
    let rules = alice.get("/pushrules/").await.ok();
    let position = |name: &str| {
        let id = format!(".org.matrix.msc3930.rule.{name}");
        rules["global"]["underride"].as_array().unwrap().iter().position(|rule| rule["rule_id"] == json!(id))
    };
    assert!(position("poll_start_one_to_one").unwrap() < position("poll_start").unwrap());
    assert!(position("poll_end_one_to_one").unwrap() < position("poll_end").unwrap());
}

#[tokio::test]
async fn threads_have_push_rules_where_it_is_said_that_they_are_followed() {
    let home = Home::with("accounts.thread_subscriptions = true").await;
    let alice = home.user("alice").await;
    let features = home.call("", "GET", "/_matrix/client/versions", Value::Null).await.ok();
    assert_eq!(features["unstable_features"]["org.matrix.msc4306"], true);
    let rules = alice.get("/pushrules/").await.ok();
    let (kind, followed) = ("postcontent", ".io.element.msc4306.rule.subscribed_thread");
    assert_eq!(rules["global"][kind][1]["rule_id"], followed);
    let path = format!("/pushrules/global/io.element.msc4306.{kind}/{followed}");
    let condition = json!({ "kind": "io.element.msc4306.thread_subscription", "subscribed": true });
    assert_eq!(alice.get(&path).await.ok()["conditions"], json!([condition]));
    alice.put(&format!("{path}/enabled"), json!({ "enabled": false })).await.ok();
    let short = format!("/pushrules/global/{kind}/{followed}");
    assert_eq!(alice.get(&short).await.ok()["enabled"], false);
    alice.put(&format!("{short}/actions"), json!({ "actions": [] })).await.ok();
    alice.put(&format!("{short}/enabled"), json!({ "enabled": false })).await.ok();
    let (synced, _) = alice.sync("").await;
    let mut told = synced["account_data"]["events"].as_array().unwrap().iter();
    let told = told.find(|event| event["type"] == "m.push_rules").unwrap();
    assert_eq!(told["content"]["global"][kind][1]["enabled"], false);
}

#[tokio::test]
async fn unwanted_invites_are_not_shown() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let invited = async || {
        let room = alice.room(json!({})).await;
        (alice.post(&format!("/rooms/{room}/invite"), json!({ "user_id": bob.id })).await, room)
    };
    let config = async |kind: &str, config: Value| {
        bob.put(&format!("/user/{}/account_data/{kind}", bob.id), config).await.ok();
    };
    let filter = "org.matrix.msc4155.invite_permission_config";
    config(filter, json!({ "ignored_servers": ["*"] })).await;
    let (answer, _) = invited().await;
    answer.ok();
    assert!(bob.sync("").await.0["rooms"].get("invite").is_none());
    config(filter, json!({ "blocked_users": [alice.id] })).await;
    invited().await.0.refused(403, "M_INVITE_BLOCKED");
    config(filter, json!({ "enabled": false, "blocked_users": [alice.id] })).await;
    let (answer, room) = invited().await;
    answer.ok();
    assert!(bob.sync("").await.0["rooms"]["invite"].get(&room).is_some());
    config("m.invite_permission_config", json!({ "default_action": "block" })).await;
    invited().await.0.refused(403, "M_INVITE_BLOCKED");
    assert!(
        bob.sync("").await.0["rooms"].get("invite").is_none(),
        "those that came before are hidden as well"
    );
}

#[tokio::test]
async fn events_are_delayed() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room(json!({ "preset": "public_chat" })).await;
    let all = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events";
    let delayed = async |path: &str, delay: &str, body: Value| {
        let path = format!("/rooms/{room}/{path}?org.matrix.msc4140.delay={delay}");
        alice.put(&path, body).await
    };
    let id = |answer: Value| answer["delay_id"].as_str().unwrap().to_owned();
    delayed("state/x", "soon", json!({})).await.refused(400, "M_INVALID_PARAM");
    let long = id(delayed("state/x/k", "60000", json!({ "n": 1 })).await.ok());
    let said = id(delayed("send/m.room.message/1", "61000", json!({ "body": "hi" })).await.ok());
    assert_eq!(id(delayed("send/m.room.message/1", "61000", Value::Null).await.ok()), said);
    let body = json!({ "delay_ms": 30_000, "state_key": "", "content": { "topic": "T" } });
    let path =
        format!("/_matrix/client/unstable/org.matrix.msc4140/rooms/{room}/delayed_event/m.room.topic/2");
    let topic = id(alice.put(&path, body).await.ok());
    let listed = alice.get(all).await.ok();
    let ids: Vec<&str> = listed["delayed_events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["delay_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [&topic, &long, &said], "the next one first");
    let shown = alice.get(&format!("{all}/{long}")).await.ok();
    assert_eq!((&shown["state_key"], &shown["content"]), (&json!("k"), &json!({ "n": 1 })));
    bob.get(&format!("{all}/{long}")).await.refused(404, "M_NOT_FOUND");
    home.call("", "GET", all, Value::Null).await.refused(401, "M_MISSING_TOKEN");

    let act = async |id: &str, action: &str| {
        home.call("", "POST", &format!("{all}/{id}/{action}"), json!({})).await
    };
    act(&long, "oops").await.refused(404, "M_NOT_FOUND");
    act("abc", "send").await.refused(404, "M_NOT_FOUND");
    act(&long, "restart").await.ok();
    act(&said, "cancel").await.ok();
    act(&said, "send").await.refused(409, "M_UNKNOWN");
    home.call("", "POST", &format!("{all}/{topic}"), json!({ "action": "send" })).await.ok();
    assert_eq!(bob.post(&format!("/join/{room}"), json!({})).await.status, 200);
    assert_eq!(bob.get(&format!("/rooms/{room}/state/m.room.topic")).await.ok()["topic"], "T");
    let sent = alice.get(&format!("{all}/{topic}")).await.ok();
    assert!(sent["event_id"].is_string() && sent["finalised_ts"].is_u64());

    id(delayed("state/x/soon", "50", json!({})).await.ok());
    let arrived = async {
        while alice.get(&format!("/rooms/{room}/state/x/soon")).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), arrived).await.expect("the worker sends it");
}

#[tokio::test]
async fn what_is_said_to_be_there_is_there() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let said = home.call("", "GET", "/_matrix/client/versions", Value::Null).await.ok();
    for version in 1..=19 {
        assert!(said["versions"].as_array().unwrap().contains(&json!(format!("v1.{version}"))), "{version}");
    }
    let features = &said["unstable_features"];
    for there in
        ["org.matrix.msc3814", "org.matrix.msc4284", "org.matrix.msc4293", "org.matrix.msc3916.stable"]
    {
        assert_eq!(features[there], true, "{there}");
    }
    for not_there in ["org.matrix.msc4028", "org.matrix.msc4143", "org.matrix.msc4306"] {
        assert_eq!(features[not_there], false, "{not_there}");
    }
    let mutual = format!("/_matrix/client/v1/mutual_rooms?user_id={}", alice.id);
    assert_ne!(alice.get(&mutual).await.json["errcode"], "M_UNRECOGNIZED");
    let versions = &alice.get("/capabilities").await.ok()["capabilities"]["m.room_versions"]["available"];
    assert_eq!((&versions["11"], &versions["org.matrix.msc3757.11"]), (&json!("stable"), &json!("unstable")));
}

#[tokio::test]
async fn calls_are_told_where_to_go() {
    let path = "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports";
    let none = Home::new().await;
    let alice = none.user("alice").await;
    assert_eq!(alice.get(path).await.ok(), json!({ "rtc_transports": [] }));
    let well_known = "/.well-known/matrix/client";
    assert!(
        none.call("", "GET", well_known, Value::Null).await.ok().get("org.matrix.msc4143.rtc_foci").is_none()
    );
    drop(alice);
    let home = Home::with_client("livekit_services = [\"https://calls.example/jwt\"]").await;
    home.call("", "GET", path, Value::Null).await.refused(401, "M_MISSING_TOKEN");
    let alice = home.user("alice").await;
    let told = json!([{ "type": "livekit", "livekit_service_url": "https://calls.example/jwt" }]);
    assert_eq!(alice.get(path).await.ok(), json!({ "rtc_transports": told }));
    let guest = home.call("", "POST", "/register?kind=guest", json!({})).await.ok();
    home.call(guest["access_token"].as_str().unwrap(), "GET", path, Value::Null).await.ok();
    let found = home.call("", "GET", well_known, Value::Null).await.ok();
    assert_eq!(found["org.matrix.msc4143.rtc_foci"], told);
    let versions = home.call("", "GET", "/_matrix/client/versions", Value::Null).await.ok();
    assert_eq!(versions["unstable_features"]["org.matrix.msc4143"], true);
}

#[tokio::test]
async fn a_ban_may_redact_what_was_said() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room(json!({ "preset": "public_chat" })).await;
    bob.post(&format!("/join/{room}"), json!({})).await.ok();
    let said = bob.say(&room, "1", "spam").await;
    let flag = "org.matrix.msc4293.redact_events";
    let ban = format!("/rooms/{room}/ban");
    alice.post(&ban, json!({ "user_id": bob.id, flag: "yes" })).await.refused(400, "M_BAD_JSON");
    bob.post(&ban, json!({ "user_id": alice.id, flag: true })).await.refused(403, "M_FORBIDDEN");
    alice.post(&ban, json!({ "user_id": bob.id, "reason": "spam", flag: true })).await.ok();
    let event = alice.get(&format!("/rooms/{room}/event/{said}")).await.ok();
    assert_eq!(event["content"], json!({}));
    let because = &event["unsigned"]["redacted_because"];
    assert_eq!((&because["type"], &because["content"]["reason"]), (&json!("m.room.member"), &json!("spam")));
}

#[tokio::test]
async fn state_may_belong_to_users() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let version = "org.matrix.msc3757.11";
    let levels = json!({ "users": { alice.id.clone(): 100 }, "events": { "x.state": 0 } });
    let body = json!({ "preset": "public_chat", "room_version": version,
        "power_level_content_override": levels });
    let room = alice.room(body).await;
    bob.post(&format!("/join/{room}"), json!({})).await.ok();
    let path = |owner: &str, rest: &str| format!("/rooms/{room}/state/x.state/{owner}{rest}");
    bob.put(&path(&bob.id, "_phone"), json!({ "n": 1 })).await.ok();
    bob.put(&path(&bob.id, &format!("_{}", "x".repeat(255))), json!({})).await.ok();
    bob.put(&path(&bob.id, &format!("_{}", "x".repeat(256))), json!({})).await.refused(400, "M_BAD_JSON");
    alice.put(&path("@nobody", ""), json!({})).await.refused(400, "M_BAD_JSON");
    bob.put(&path(&alice.id, "_phone"), json!({})).await.refused(403, "M_FORBIDDEN");
    alice.put(&path(&bob.id, "_phone"), json!({ "n": 2 })).await.ok();
    assert_eq!(alice.get(&path(&bob.id, "_phone")).await.ok()["n"], 2);
    let usual = alice.room(json!({ "room_version": "11" })).await;
    let path = format!("/rooms/{usual}/state/x.state/{}_phone", alice.id);
    alice.put(&path, json!({})).await.refused(403, "M_FORBIDDEN");
}
