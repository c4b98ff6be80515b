//! Locking and suspending, and what those it happens to can still do.

use serde_json::{Value, json};

use super::home::{Home, User};

#[tokio::test]
async fn a_locked_account_is_refused_until_it_is_unlocked() {
    let home = Home::new().await;
    let (admin, bob) = (home.user("admin1").await, home.user("bob").await);
    let lock = format!("/_matrix/client/v1/admin/lock/{}", bob.id);
    bob.put(&lock, json!({ "locked": true })).await.refused(403, "M_FORBIDDEN");
    home.promote(&admin).await;
    assert_eq!(admin.put(&lock, json!({ "locked": true })).await.ok(), json!({ "locked": true }));
    let refused = bob.get("/account/whoami").await;
    assert_eq!(refused.json["soft_logout"], true);
    refused.refused(401, "M_USER_LOCKED");
    assert_eq!(admin.get(&lock).await.ok(), json!({ "locked": true }));
    admin.put(&lock, json!({ "locked": false })).await.ok();
    bob.get("/account/whoami").await.ok();
    let own = format!("/_matrix/client/v1/admin/lock/{}", admin.id);
    admin.put(&own, json!({ "locked": true })).await.refused(403, "M_FORBIDDEN");
    assert_eq!(admin.get(&own).await.ok(), json!({ "locked": false }));
    admin.get("/_matrix/client/v1/admin/lock/@nobody:a.test").await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn administrators_do_not_shut_each_other_out() {
    let home = Home::new().await;
    let (one, two, bob) =
        (home.administrator("admin1").await, home.administrator("admin2").await, home.user("bob").await);
    for (what, field) in [("lock", "locked"), ("suspend", "suspended")] {
        let path = format!("/_matrix/client/v1/admin/{what}/{}", two.id);
        one.get(&path).await.refused(403, "M_FORBIDDEN");
        one.put(&path, json!({ field: true })).await.refused(403, "M_FORBIDDEN");
    }
    two.get("/account/whoami").await.ok();
    let moderation = async |user: &User<'_>| {
        user.get("/capabilities").await.ok()["capabilities"]["m.account_moderation"].clone()
    };
    assert_eq!(moderation(&one).await, json!({ "suspend": true, "lock": true }));
    assert_eq!(moderation(&bob).await, Value::Null);
}

#[tokio::test]
async fn a_suspended_user_reads_and_takes_back_but_says_nothing() {
    let home = Home::new().await;
    let (admin, bob) = (home.user("admin1").await, home.user("bob").await);
    home.promote(&admin).await;
    let room = bob.room(json!({})).await;
    let said = bob.say(&room, "1", "oops").await;
    let suspend = format!("/_matrix/client/v1/admin/suspend/{}", bob.id);
    admin.put(&suspend, json!({ "suspended": true })).await.ok();
    bob.put(&format!("/rooms/{room}/send/m.room.message/2"), json!({ "body": "x" }))
        .await
        .refused(403, "M_USER_SUSPENDED");
    bob.post("/createRoom", json!({})).await.refused(403, "M_USER_SUSPENDED");
    bob.put(&format!("/profile/{}/displayname", bob.id), json!({ "displayname": "x" }))
        .await
        .refused(403, "M_USER_SUSPENDED");
    bob.get(&format!("/rooms/{room}/event/{said}")).await.ok();
    bob.put(&format!("/rooms/{room}/redact/{said}/3"), json!({})).await.ok();
    bob.post(&format!("/rooms/{room}/leave"), json!({})).await.ok();
    bob.post("/logout", json!({})).await.ok();
}

#[tokio::test]
async fn whois_is_for_oneself_and_administrators() {
    let home = Home::new().await;
    let (admin, bob) = (home.user("admin1").await, home.user("bob").await);
    let path = |id: &str| format!("/admin/whois/{id}");
    bob.get(&path(&admin.id)).await.refused(403, "M_FORBIDDEN");
    assert!(bob.get(&path(&bob.id)).await.ok()["devices"][&bob.device]["sessions"].is_array());
    home.promote(&admin).await;
    admin.get(&path(&bob.id)).await.ok();
}

#[tokio::test]
async fn shared_rooms_are_listed() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room(json!({ "preset": "public_chat" })).await;
    alice.room(json!({})).await;
    bob.post(&format!("/rooms/{room}/join"), json!({})).await.ok();
    let shared = alice.get(&format!("/_matrix/client/v1/mutual_rooms?user_id={}", bob.id)).await.ok();
    assert_eq!(shared, json!({ "joined": [room], "count": 1 }));
}
