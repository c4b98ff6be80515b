//! Signing up, logging in and out, devices, account data, profiles.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::home::{Home, PASSWORD};
use crate::host::PATIENCE;

/// Whether something that is under way comes true.
async fn soon(check: impl AsyncFn() -> bool) -> bool {
    let coming = async {
        while !check().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, coming).await.is_ok()
}

#[tokio::test]
async fn an_account_from_sign_up_to_its_end() {
    let home = Home::new().await;
    let asked = home.call("", "POST", "/register", json!({})).await;
    assert_eq!(asked.status.as_u16(), 401);
    assert_eq!(asked.json["flows"], json!([{ "stages": ["m.login.dummy"] }]));

    let alice = home.user("alice").await;
    assert_eq!(alice.id, "@alice:a.test");
    let again = json!({ "username": "alice", "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    home.call("", "POST", "/register", again).await.refused(400, "M_USER_IN_USE");
    home.call("", "GET", "/register/available?username=alice", Value::Null)
        .await
        .refused(400, "M_USER_IN_USE");
    home.call("", "GET", "/register/available?username=alicia", Value::Null).await.ok();
    let who = alice.get("/account/whoami").await.ok();
    assert_eq!((&who["user_id"], &who["device_id"]), (&json!(alice.id), &json!(alice.device)));

    let log_in = |password: &str| {
        json!({ "type": "m.login.password", "password": password,
            "identifier": { "type": "m.id.user", "user": "ALICE" } })
    };
    home.call("", "POST", "/login", json!({})).await.refused(400, "M_BAD_JSON");
    home.call("", "POST", "/login", json!({ "type": "org.example" })).await.refused(400, "M_UNKNOWN");
    home.call("", "POST", "/login", log_in("wrong")).await.refused(403, "M_FORBIDDEN");
    let second = home.call("", "POST", "/login", log_in(PASSWORD)).await.ok();
    assert_eq!(second["well_known"]["m.homeserver"]["base_url"], "http://a.test");
    let second = second["access_token"].as_str().unwrap();
    assert_eq!(alice.get("/devices").await.ok()["devices"].as_array().unwrap().len(), 2);
    home.call(second, "POST", "/logout", json!({})).await.ok();
    home.call(second, "GET", "/account/whoami", Value::Null).await.refused(401, "M_UNKNOWN_TOKEN");

    let changed = json!({ "new_password": "another long one" });
    alice.confirmed("POST", "/account/password", changed).await.ok();
    home.call("", "POST", "/login", log_in(PASSWORD)).await.refused(403, "M_FORBIDDEN");
    home.call("", "POST", "/login", log_in("another long one")).await.ok();
}

#[tokio::test]
async fn a_closed_account_is_gone_from_its_rooms() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room(json!({ "preset": "public_chat" })).await;
    bob.post(&format!("/rooms/{room}/join"), json!({})).await.ok();
    let closed = bob.confirmed("POST", "/account/deactivate", json!({})).await.ok();
    assert_eq!(closed, json!({ "id_server_unbind_result": "success" }));
    bob.get("/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    let path = format!("/rooms/{room}/joined_members");
    assert!(soon(async || alice.get(&path).await.ok()["joined"].as_object().unwrap().len() == 1).await);
}

#[tokio::test]
async fn refreshing_and_logging_in_with_a_token() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let log_in = json!({ "type": "m.login.password", "password": PASSWORD, "refresh_token": true,
        "identifier": { "type": "m.id.user", "user": alice.id } });
    let tokens = home.call("", "POST", "/login", log_in).await.ok();
    assert!(tokens["expires_in_ms"].as_u64().unwrap() > 0);
    let refresh = json!({ "refresh_token": tokens["refresh_token"] });
    let fresh = home.call("", "POST", "/refresh", refresh).await.ok();
    home.call(fresh["access_token"].as_str().unwrap(), "GET", "/account/whoami", Value::Null).await.ok();
    home.call("", "POST", "/refresh", json!({ "refresh_token": "nonsense" }))
        .await
        .refused(401, "M_UNKNOWN_TOKEN");

    let path = "/_matrix/client/v1/login/get_token";
    let token = alice.confirmed("POST", path, json!({})).await.ok();
    let log_in = json!({ "type": "m.login.token", "token": token["login_token"] });
    home.call("", "POST", "/login", log_in.clone()).await.ok();
    home.call("", "POST", "/login", log_in).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn devices_are_ended_with_the_password_alone() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let path = format!("/devices/{}", alice.device);
    alice.put(&path, json!({ "display_name": "phone" })).await.ok();
    assert_eq!(alice.get(&path).await.ok()["display_name"], "phone");
    bob.get(&path).await.refused(404, "M_NOT_FOUND");
    let anothers = json!({ "auth": { "type": "m.login.password", "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": bob.id } } });
    alice.call("DELETE", &path, anothers).await.refused(403, "M_FORBIDDEN");
    alice.confirmed("DELETE", "/devices/REMOVED", json!({})).await.ok();
    alice.confirmed("DELETE", &path, json!({})).await.ok();
    alice.get(&path).await.refused(401, "M_UNKNOWN_TOKEN");
    let body = json!({ "devices": [bob.device] });
    bob.confirmed("POST", "/delete_devices", body).await.ok();
    bob.get("/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn older_clients_name_the_user_of_a_password_in_their_own_way() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let log_in = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });
    for (named, is_she) in [(alice.id.as_str(), true), ("alice", true), (bob.id.as_str(), false)] {
        let second = home.call("", "POST", "/login", log_in.clone()).await.ok();
        let mut body = json!({ "devices": [second["device_id"]] });
        let asked = alice.post("/delete_devices", body.clone()).await;
        assert_eq!(asked.status.as_u16(), 401, "{}", asked.json);
        body["auth"] = json!({ "type": "m.login.password", "session": asked.json["session"],
            "user": named, "password": PASSWORD });
        let answer = alice.post("/delete_devices", body).await;
        let who = home.call(second["access_token"].as_str().unwrap(), "GET", "/account/whoami", Value::Null);
        if is_she {
            answer.ok();
            who.await.refused(401, "M_UNKNOWN_TOKEN");
        } else {
            answer.refused(403, "M_FORBIDDEN");
            who.await.ok();
        }
    }
}

#[tokio::test]
async fn a_sync_that_waits_ends_with_its_device() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let room = alice.room(json!({})).await;
    let log_in = json!({ "type": "m.login.password", "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": alice.id } });
    let stolen = home.call("", "POST", "/login", log_in).await.ok();
    let (token, device) = (stolen["access_token"].as_str().unwrap(), stolen["device_id"].as_str().unwrap());
    let (_, since) = alice.sync("").await;
    let no_presence = "filter=%7B%22presence%22:%7B%22types%22:%5B%5D%7D%7D";
    let path = format!("/sync?timeout=20000&{no_presence}&since={since}");
    let waiting = home.call(token, "GET", &path, Value::Null);
    let meanwhile = async {
        alice.confirmed("DELETE", &format!("/devices/{device}"), json!({})).await.ok();
        alice.say(&room, "1", "not for the thief").await;
    };
    let (waited, ()) = tokio::join!(waiting, meanwhile);
    waited.refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn what_an_account_keeps_is_its_own() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let path = format!("/user/{}/account_data/org.example.x", alice.id);
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
    alice.put(&path, json!({ "a": 1 })).await.ok();
    assert_eq!(alice.get(&path).await.ok(), json!({ "a": 1 }));
    bob.get(&path).await.refused(403, "M_FORBIDDEN");
    bob.put(&path, json!({})).await.refused(403, "M_FORBIDDEN");
    let (synced, _) = alice.sync("").await;
    let events = synced["account_data"]["events"].as_array().unwrap();
    assert!(
        events.iter().any(|event| event["type"] == "org.example.x" && event["content"] == json!({ "a": 1 }))
    );

    let room = alice.room(json!({})).await;
    let tags = format!("/user/{}/rooms/{room}/tags", alice.id);
    alice.put(&format!("{tags}/m.favourite"), json!({ "order": 0.5 })).await.ok();
    assert_eq!(alice.get(&tags).await.ok(), json!({ "tags": { "m.favourite": { "order": 0.5 } } }));
    alice.call("DELETE", &format!("{tags}/m.favourite"), Value::Null).await.ok();
    assert_eq!(alice.get(&tags).await.ok(), json!({ "tags": {} }));

    let filters = format!("/user/{}/filter", alice.id);
    let filter = json!({ "room": { "timeline": { "limit": 3 } } });
    let id = alice.post(&filters, filter.clone()).await.ok();
    let stored = alice.get(&format!("{filters}/{}", id["filter_id"].as_str().unwrap())).await.ok();
    assert_eq!(stored["room"]["timeline"]["limit"], 3);
}

#[tokio::test]
async fn profiles_are_shown_and_reach_rooms() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room(json!({})).await;
    let path = format!("/profile/{}", alice.id);
    alice.put(&format!("{path}/displayname"), json!({ "displayname": "Alice" })).await.ok();
    alice.put(&format!("{path}/org.example.shoe"), json!({ "org.example.shoe": 42 })).await.ok();
    bob.put(&format!("{path}/displayname"), json!({ "displayname": "Mallory" }))
        .await
        .refused(403, "M_FORBIDDEN");
    let profile = home.call("", "GET", &path, Value::Null).await.ok();
    assert_eq!((&profile["displayname"], &profile["org.example.shoe"]), (&json!("Alice"), &json!(42)));
    assert_eq!(bob.get(&format!("{path}/displayname")).await.ok(), json!({ "displayname": "Alice" }));
    alice.call("DELETE", &format!("{path}/org.example.shoe"), Value::Null).await.ok();
    bob.get(&format!("{path}/org.example.shoe")).await.refused(404, "M_NOT_FOUND");
    let nothing = json!({ "org.example.shoe": null });
    alice.put(&format!("{path}/org.example.shoe"), nothing.clone()).await.ok();
    assert_eq!(bob.get(&format!("{path}/org.example.shoe")).await.ok(), nothing, "null is a value");
    let member = format!("/rooms/{room}/state/m.room.member/{}", alice.id);
    assert!(soon(async || alice.get(&member).await.ok()["displayname"] == "Alice").await);
}

#[tokio::test]
async fn family_36_a_profile_has_a_size_and_its_changes_a_number() {
    let home = Home::with("client.rates.profile = { per_second = 0.001, burst = 3 }").await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let set = async |field: &str, value: Value| {
        alice.put(&format!("/profile/{}/{field}", alice.id), json!({ field: value })).await
    };
    let longest = "k".repeat(255);
    set(&longest, json!("x")).await.ok();
    set(&"k".repeat(256), json!("x")).await.refused(400, "M_KEY_TOO_LARGE");
    set("org.example.half", json!("x".repeat(32_000))).await.ok();
    set("org.example.rest", json!("x".repeat(34_000))).await.refused(400, "M_PROFILE_TOO_LARGE");
    let path = format!("/profile/{}/org.example.half", alice.id);
    bob.put(&path, json!({ "org.example.half": "mine" })).await.refused(403, "M_FORBIDDEN");
    // All rooms are told of a name and of a picture.
    for n in 0..3 {
        let field = if n == 1 { "avatar_url" } else { "displayname" };
        set(field, json!(format!("mxc://a.test/{n}"))).await.ok();
    }
    for field in ["displayname", "avatar_url"] {
        set(field, json!("mxc://a.test/4")).await.refused(429, "M_LIMIT_EXCEEDED");
        let path = format!("/profile/{}/{field}", alice.id);
        alice.delete(&path).await.refused(429, "M_LIMIT_EXCEEDED");
    }
    set("org.example.half", json!("nobody is told")).await.ok();
    let shown = bob.get(&format!("/profile/{}", alice.id)).await.ok();
    assert_eq!(shown["displayname"], "mxc://a.test/2");
}

#[tokio::test]
async fn push_rules_can_be_changed() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let rules = alice.get("/pushrules/").await.ok();
    assert!(rules["global"]["underride"].as_array().unwrap().len() > 3);
    let rule = "/pushrules/global/content/cake";
    alice.put(rule, json!({ "pattern": "cake*lie", "actions": ["notify"] })).await.ok();
    assert_eq!(alice.get(rule).await.ok()["pattern"], "cake*lie");
    alice.put(&format!("{rule}/enabled"), json!({ "enabled": false })).await.ok();
    assert_eq!(alice.get(&format!("{rule}/enabled")).await.ok(), json!({ "enabled": false }));
    alice.put(&format!("{rule}/actions"), json!({ "actions": [] })).await.ok();
    assert_eq!(alice.get(&format!("{rule}/actions")).await.ok(), json!({ "actions": [] }));
    alice.call("DELETE", rule, Value::Null).await.ok();
    alice.get(rule).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_body_that_is_not_utf_8_is_refused_wherever_it_is_wrong() {
    let home = Home::new().await;
    let body = axum::body::Body::from(&b"{\"test\":\"a\x81\"}"[..]);
    let request = http::Request::post("/_matrix/client/v3/register").body(body);
    home.send(request.unwrap()).await.refused(400, "M_NOT_JSON");
}

#[tokio::test]
async fn tokens_are_taken_from_the_header_alone() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let path = format!("/account/whoami?access_token={}", alice.token);
    home.call("", "GET", &path, Value::Null).await.refused(401, "M_MISSING_TOKEN");
    home.call("nonsense", "GET", "/account/whoami", Value::Null).await.refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn guests_reach_only_what_is_theirs() {
    let home = Home::new().await;
    let guest = home.call("", "POST", "/register?kind=guest", json!({})).await.ok();
    let token = guest["access_token"].as_str().unwrap();
    let who = home.call(token, "GET", "/account/whoami", Value::Null).await.ok();
    assert_eq!(who["is_guest"], true);
    home.call(token, "POST", "/createRoom", json!({})).await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    home.call(token, "GET", "/sync?timeout=0", Value::Null).await.ok();
}
