//! Accounts, devices, tokens, reports.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Home, at, ended};

#[tokio::test]
async fn an_account_is_made_changed_closed_and_opened_again() {
    let home = Home::new().await;
    let admin = home.administrator("admin1").await;
    let carol = at("/v2/users/@carol:a.test");
    admin.get(&carol).await.refused(404, "M_NOT_FOUND");
    let wanted = json!({
        "password": "correct horse battery", "displayname": "Carol", "user_type": "bot",
        "threepids": [{ "medium": "email", "address": "Carol@Example.org" }],
    });
    let made = admin.put(&carol, wanted).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.json);
    assert_eq!(made.json["displayname"], "Carol");
    assert_eq!(made.json["user_type"], "bot");
    let address = made.json["threepids"][0]["address"].as_str().unwrap().to_owned();
    let found = admin.get(&at(&format!("/v1/threepid/email/users/{address}"))).await.ok();
    assert_eq!(found["user_id"], "@carol:a.test");
    let log_in = json!({
        "type": "m.login.password", "password": "correct horse battery",
        "identifier": { "type": "m.id.user", "user": "carol" },
    });
    home.call("", "POST", "/login", log_in.clone()).await.ok();

    let changed = json!({ "displayname": "", "admin": true, "threepids": [], "user_type": null });
    let changed = admin.put(&carol, changed).await.ok();
    assert_eq!((&changed["displayname"], &changed["admin"]), (&Value::Null, &json!(true)));
    assert_eq!((&changed["user_type"], &changed["threepids"]), (&Value::Null, &json!([])));
    for wrong in [
        json!({ "threepids": [{ "medium": "email", "address": "a@b@c" }] }),
        json!({ "user_type": "robot" }),
        json!({ "external_ids": [{ "auth_provider": "x", "external_id": "y" }] }),
        json!({ "deactivated": true, "password": "correct horse battery" }),
    ] {
        admin.put(&carol, wrong).await.refused(400, "M_INVALID_PARAM");
    }
    admin.put(&carol, json!({ "admin": "yes" })).await.refused(400, "M_BAD_JSON");
    admin.put(&at("/v2/users/@x:elsewhere.test"), json!({})).await.refused(400, "M_INVALID_PARAM");
    let own = at(&format!("/v2/users/{}", admin.id));
    admin.put(&own, json!({ "admin": false })).await.refused(403, "M_FORBIDDEN");

    let closed = admin.put(&carol, json!({ "deactivated": true })).await.ok();
    assert_eq!((&closed["deactivated"], &closed["admin"]), (&json!(true), &json!(false)));
    home.call("", "POST", "/login", log_in.clone()).await.refused(403, "M_FORBIDDEN");
    let again = json!({ "deactivated": false, "password": "correct horse battery" });
    assert_eq!(admin.put(&carol, again).await.ok()["deactivated"], false);
    home.call("", "POST", "/login", log_in).await.ok();
}

#[tokio::test]
async fn accounts_are_listed_filtered_sorted_and_counted() {
    let home = Home::new().await;
    let admin = home.administrator("admin1").await;
    for name in ["bob", "carol", "dave"] {
        home.user(name).await;
    }
    admin.put("/profile/@admin1:a.test/displayname", json!({ "displayname": "Zoe" })).await.ok();
    admin.post(&at("/v1/deactivate/@dave:a.test"), json!({})).await.ok();
    let names = |said: &Value| -> Vec<String> {
        let name = |user: &Value| user["name"].as_str().unwrap().replace(":a.test", "");
        said["users"].as_array().unwrap().iter().map(name).collect()
    };
    let ask = async |query: &str| admin.get(&at(query)).await.ok();
    let all = ask("/v2/users?from=0&limit=10&guests=false").await;
    assert_eq!(
        (names(&all), &all["total"]),
        (vec!["@admin1".into(), "@bob".into(), "@carol".into()], &json!(3))
    );
    let page = ask("/v2/users?limit=2&order_by=name&dir=b").await;
    assert_eq!((names(&page), &page["next_token"]), (vec!["@carol".into(), "@bob".into()], &json!("2")));
    assert_eq!(names(&ask("/v2/users?limit=2&from=2&order_by=name&dir=b").await), ["@admin1"]);
    assert_eq!(names(&ask("/v2/users?name=ZO").await), ["@admin1"]);
    assert_eq!(names(&ask("/v2/users?user_id=aro").await), ["@carol"]);
    assert_eq!(names(&ask("/v2/users?admins=true").await), ["@admin1"]);
    assert_eq!(names(&ask("/v2/users?deactivated=true").await).len(), 4);
    assert_eq!(names(&ask("/v3/users?deactivated=true").await), ["@dave"]);
    assert_eq!(names(&ask("/v3/users").await).len(), 4);
    assert_eq!(names(&ask("/v2/users?order_by=displayname&dir=b").await)[0], "@admin1");
    assert!(names(&ask("/v2/users?not_user_type=").await).is_empty());
    admin.get(&at("/v2/users?order_by=shoe_size")).await.refused(400, "M_INVALID_PARAM");
    admin.get(&at("/v2/users?limit=many")).await.refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn devices_are_shown_named_made_and_ended() {
    let home = Home::new().await;
    let (admin, bob) = (home.administrator("admin1").await, home.user("bob").await);
    let devices = at(&format!("/v2/users/{}/devices", bob.id));
    let listed = admin.get(&devices).await.ok();
    assert_eq!((&listed["total"], &listed["devices"][0]["device_id"]), (&json!(1), &json!(bob.device)));
    let one = format!("{devices}/{}", bob.device);
    admin.put(&one, json!({ "display_name": "Seen to" })).await.ok();
    assert_eq!(admin.get(&one).await.ok()["display_name"], "Seen to");
    assert_eq!(admin.post(&devices, json!({ "device_id": "MADE" })).await.status, StatusCode::CREATED);
    admin.post(&devices, json!({})).await.refused(400, "M_MISSING_PARAM");
    let both = json!({ "devices": ["MADE", bob.device] });
    admin.post(&at(&format!("/v2/users/{}/delete_devices", bob.id)), both).await.ok();
    bob.get("/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    admin.get(&one).await.refused(404, "M_NOT_FOUND");
    admin.get(&at("/v2/users/@x:elsewhere.test/devices")).await.refused(400, "M_UNKNOWN");
    admin.get(&at("/v2/users/@nobody:a.test/devices")).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn acting_as_a_user_is_seen_by_the_user_and_ends() {
    let home = Home::new().await;
    let (admin, bob) = (home.administrator("admin1").await, home.user("bob").await);
    let path = at(&format!("/v1/users/{}/login", bob.id));
    let token = admin.post(&path, json!({})).await.ok()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(home.call(&token, "GET", "/account/whoami", Value::Null).await.ok()["user_id"], json!(bob.id));
    let devices = bob.get("/devices").await.ok();
    assert!(devices.to_string().contains("Session of the administrator @admin1:a.test"), "{devices}");
    home.call(&token, "POST", "/logout", json!({})).await.ok();
    home.call(&token, "GET", "/account/whoami", Value::Null).await.refused(401, "M_UNKNOWN_TOKEN");
    let past = admin.post(&path, json!({ "valid_until_ms": 1 })).await.ok();
    let past = past["access_token"].as_str().unwrap();
    home.call(past, "GET", "/account/whoami", Value::Null).await.refused(401, "M_UNKNOWN_TOKEN");
    admin.post(&at(&format!("/v1/users/{}/login", admin.id)), json!({})).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn passwords_rights_and_what_is_known_of_a_user() {
    let home = Home::new().await;
    let (admin, bob) = (home.administrator("admin1").await, home.user("bob").await);
    let room = bob.room(json!({})).await;
    let data = format!("/user/{}/account_data/org.example", bob.id);
    bob.put(&data, json!({ "a": 1 })).await.ok();
    let of_bob = |what: &str| at(&format!("/v1/users/{}/{what}", bob.id));
    let kept = admin.get(&of_bob("accountdata")).await.ok();
    assert_eq!(kept["account_data"]["global"]["org.example"], json!({ "a": 1 }));
    assert_eq!(admin.get(&of_bob("joined_rooms")).await.ok(), json!({ "joined_rooms": [room], "total": 1 }));
    assert_eq!(admin.get(&of_bob("memberships")).await.ok()["memberships"][&room], "join");
    assert_eq!(admin.get(&of_bob("pushers")).await.ok(), json!({ "pushers": [], "total": 0 }));
    assert!(admin.get(&at(&format!("/v1/whois/{}", bob.id))).await.ok()["devices"][&bob.device].is_object());
    admin.put(&of_bob("admin"), json!({ "admin": true })).await.ok();
    assert_eq!(admin.get(&of_bob("admin")).await.ok(), json!({ "admin": true }));
    bob.put(&at(&format!("/v1/users/{}/admin", bob.id)), json!({ "admin": false }))
        .await
        .refused(403, "M_FORBIDDEN");

    let reset = at(&format!("/v1/reset_password/{}", bob.id));
    admin.post(&reset, json!({ "new_password": "x" })).await.refused(400, "M_PASSWORD_TOO_SHORT");
    admin
        .post(&reset, json!({ "new_password": "another horse battery", "logout_devices": false }))
        .await
        .ok();
    bob.get("/account/whoami").await.ok();
    admin.post(&reset, json!({ "new_password": "a third horse battery" })).await.ok();
    bob.get("/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    assert_eq!(
        admin.get(&at("/v1/username_available?username=free")).await.ok(),
        json!({ "available": true })
    );
    admin.get(&at("/v1/username_available?username=bob")).await.refused(400, "M_USER_IN_USE");
    admin.get(&at("/v1/auth_providers/oidc/users/x")).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn registration_tokens_have_a_life() {
    let home = Home::new().await;
    let admin = home.administrator("admin1").await;
    let tokens = at("/v1/registration_tokens");
    let new = format!("{tokens}/new");
    let made = admin.post(&new, json!({ "token": "wxyz", "uses_allowed": 1 })).await.ok();
    assert_eq!(
        made,
        json!({ "token": "wxyz", "uses_allowed": 1, "pending": 0, "completed": 0, "expiry_time": null })
    );
    assert_eq!(admin.post(&new, json!({ "length": 20 })).await.ok()["token"].as_str().unwrap().len(), 20);
    admin.post(&new, json!({ "token": "wxyz" })).await.refused(400, "M_INVALID_PARAM");
    admin.post(&new, json!({ "expiry_time": 1 })).await.refused(400, "M_INVALID_PARAM");
    let one = format!("{tokens}/wxyz");
    let changed = admin.put(&one, json!({ "uses_allowed": 0 })).await.ok();
    assert_eq!((&changed["uses_allowed"], &changed["expiry_time"]), (&json!(0), &Value::Null));
    let list = async |query: &str| {
        let said = admin.get(&format!("{tokens}{query}")).await.ok();
        said["registration_tokens"].as_array().unwrap().len()
    };
    assert_eq!((list("").await, list("?valid=true").await, list("?valid=false").await), (2, 1, 1));
    admin.delete(&one).await.ok();
    admin.get(&one).await.refused(404, "M_NOT_FOUND");
    admin.put(&one, json!({})).await.refused(404, "M_NOT_FOUND");
    // Whoever reads the audit log does not learn them.
    let written = admin.get("/_chappe/admin/v1/audit?limit=100").await.ok().to_string();
    assert!(written.contains("DELETE /_synapse/admin/v1/registration_tokens/{token}"), "{written}");
    assert!(!written.contains("wxyz"), "{written}");
}

#[tokio::test]
async fn row_109_reports_are_shown_with_the_event_and_dealt_with() {
    let home = Home::new().await;
    let (admin, bob) = (home.administrator("admin1").await, home.user("bob").await);
    let room = bob.room(json!({ "name": "Den" })).await;
    let said = bob.say(&room, "1", "very bad").await;
    bob.post(&format!("/rooms/{room}/report/{said}"), json!({ "reason": "bad" })).await.ok();
    bob.post(&format!("/users/{}/report", admin.id), json!({ "reason": "rude" })).await.ok();
    let listed = admin.get(&at("/v1/event_reports")).await.ok();
    assert_eq!(listed["total"], 1);
    let report = &listed["event_reports"][0];
    assert_eq!(
        (&report["name"], &report["sender"], &report["reason"]),
        (&json!("Den"), &json!(bob.id), &json!("bad"))
    );
    let one = at(&format!("/v1/event_reports/{}", report["id"]));
    assert_eq!(admin.get(&one).await.ok()["event_json"]["content"]["body"], "very bad");
    let of_bob = at(&format!("/v1/event_reports?event_sender_user_id={}&user_id={}", bob.id, bob.id));
    assert_eq!(admin.get(&of_bob).await.ok()["total"], 1);
    let of_others = at(&format!("/v1/event_reports?event_sender_user_id={}", admin.id));
    assert_eq!(admin.get(&of_others).await.ok()["total"], 0);
    admin.delete(&one).await.ok();
    admin.get(&one).await.refused(404, "M_NOT_FOUND");
    let users = admin.get(&at("/v1/user_reports")).await.ok();
    assert_eq!(users["user_reports"][0]["target_user_id"], json!(admin.id));
    admin.delete(&at(&format!("/v1/user_reports/{}", users["user_reports"][0]["id"]))).await.ok();
    assert_eq!(admin.get(&at("/v1/user_reports")).await.ok()["total"], 0);
}

#[tokio::test]
async fn what_somebody_said_is_redacted_everywhere() {
    let home = Home::new().await;
    let (admin, bob) = (home.administrator("admin1").await, home.user("bob").await);
    let room = bob.room(json!({})).await;
    let (first, second) = (bob.say(&room, "1", "one").await, bob.say(&room, "2", "two").await);
    let started = admin.post(&at(&format!("/v1/user/{}/redact", bob.id)), json!({ "rooms": [] })).await.ok();
    let status = at(&format!("/v1/user/redact_status/{}", started["redact_id"].as_str().unwrap()));
    let said = ended(&admin, &status).await;
    assert_eq!((&said["status"], &said["failed_redactions"]), (&json!("complete"), &json!({})));
    for event in [first, second] {
        let event = bob.get(&format!("/rooms/{room}/event/{event}")).await.ok();
        assert_eq!(event["content"], json!({}), "{event}");
    }
    admin.get(&at("/v1/user/redact_status/none")).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn the_server_tells_of_itself_and_of_others() {
    let home = Home::new().await;
    let admin = home.administrator("admin1").await;
    let version = admin.get(&at("/v1/server_version")).await.ok();
    assert!(version["server_version"].as_str().unwrap().starts_with("Chappe "));
    let updates = admin.get(&at("/v1/background_updates/status")).await.ok();
    assert_eq!(updates, json!({ "enabled": true, "current_updates": {} }));
    let destinations = at("/v1/federation/destinations");
    assert_eq!(admin.get(&destinations).await.ok(), json!({ "destinations": [], "total": 0 }));
    for path in ["/b.test", "/b.test/rooms"] {
        admin.get(&format!("{destinations}{path}")).await.refused(404, "M_NOT_FOUND");
    }
    admin
        .post(&format!("{destinations}/b.test/reset_connection"), json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
    assert_eq!(admin.get(&at("/v1/scheduled_tasks")).await.ok(), json!({ "scheduled_tasks": [] }));
}

#[tokio::test]
async fn an_administrator_says_how_often_somebody_may_ask() {
    let home = Home::with("client.rates.message = { per_second = 0.0001, burst = 1 }").await;
    let (admin, bot) = (home.administrator("admin1").await, home.user("bot").await);
    let path = at(&format!("/v1/users/{}/override_ratelimit", bot.id));
    assert_eq!(admin.get(&path).await.ok(), json!({}));
    bot.post(&path, json!({})).await.refused(403, "M_FORBIDDEN");
    admin
        .post(&at("/v1/users/@nobody:a.test/override_ratelimit"), json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
    admin.post(&path, json!({ "messages_per_second": -1 })).await.refused(400, "M_BAD_JSON");
    let room = bot.room(json!({})).await;
    let say = async |n: u32| {
        let path = format!("/rooms/{room}/send/m.room.message/{n}");
        bot.put(&path, json!({ "msgtype": "m.text", "body": "x" })).await.status.as_u16()
    };
    assert_eq!((say(1).await, say(2).await), (200, 429));
    let own = json!({ "messages_per_second": 1_000_000, "burst_count": 3 });
    assert_eq!(admin.post(&path, own.clone()).await.ok(), own);
    assert_eq!(admin.get(&path).await.ok(), own);
    assert_eq!((say(10).await, say(11).await, say(12).await), (200, 200, 200));
    admin.post(&path, json!({})).await.ok();
    for n in 20..30 {
        assert_eq!(say(n).await, 200);
    }
    assert_eq!(admin.delete(&path).await.ok(), json!({}));
    say(40).await;
    assert_eq!(say(41).await, 429, "as the configuration says");
}
