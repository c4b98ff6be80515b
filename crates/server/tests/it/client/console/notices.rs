//! What the server itself says.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{Home, at};
use crate::host::PATIENCE;

const NOTICES: &str = "rooms = { notices = { user = \"_server\", room_name = \"Annonces\" } }";

#[tokio::test]
async fn the_server_speaks_in_one_room_that_cannot_be_turned_down() {
    let home = Home::with(NOTICES).await;
    let (admin, bob) = (home.administrator("admin1").await, home.user("bob").await);
    let send = at("/v1/send_server_notice");
    let notice =
        json!({ "user_id": bob.id, "content": { "msgtype": "m.text", "body": "Maintenance at noon" } });
    let event = admin.post(&send, notice.clone()).await.ok()["event_id"].clone();
    let (all, _) = bob.sync("").await;
    let (room, invite) = all["rooms"]["invite"].as_object().unwrap().iter().next().unwrap();
    assert!(invite.to_string().contains("@_server:a.test"), "{invite}");
    bob.post(&format!("/rooms/{room}/leave"), json!({}))
        .await
        .refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
    let membership = format!("/rooms/{room}/state/m.room.member/{}", bob.id);
    bob.put(&membership, json!({ "membership": "leave" }))
        .await
        .refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
    bob.post(&format!("/join/{room}"), json!({})).await.ok();
    let said = bob.get(&format!("/rooms/{room}/event/{}", event.as_str().unwrap())).await.ok();
    assert_eq!(said["content"]["body"], "Maintenance at noon");
    let tags = bob.get(&format!("/user/{}/rooms/{room}/tags", bob.id)).await.ok();
    assert!(tags["tags"]["m.server_notice"].is_object(), "{tags}");
    bob.put(&format!("/rooms/{room}/send/m.room.message/1"), json!({ "body": "x" }))
        .await
        .refused(403, "M_FORBIDDEN");
    // Whoever has heard it may leave; the next notice is in the same room.
    bob.post(&format!("/rooms/{room}/leave"), json!({})).await.ok();
    admin.post(&send, notice.clone()).await.ok();
    let (all, _) = bob.sync("").await;
    assert!(all["rooms"]["invite"][room].is_object(), "{all}");
    // Once per transaction of an administrator.
    let once = format!("{send}/txn1");
    let first = admin.put(&once, notice.clone()).await.ok();
    assert_eq!(admin.put(&once, notice.clone()).await.ok(), first);
    let other = home.administrator("admin2").await;
    assert_ne!(other.put(&once, notice).await.ok(), first);
}

#[tokio::test]
async fn notices_need_a_user_and_a_configuration() {
    let home = Home::new().await;
    let (admin, bob) = (home.administrator("admin1").await, home.user("bob").await);
    let send = at("/v1/send_server_notice");
    let to = |user: &str| json!({ "user_id": user, "content": { "body": "x" } });
    admin.post(&send, to(&bob.id)).await.refused(400, "M_UNKNOWN");
    let home = Home::with(NOTICES).await;
    let admin = home.administrator("admin1").await;
    admin.post(&send, to("@nobody:a.test")).await.refused(404, "M_NOT_FOUND");
    admin.post(&send, to("@x:b.test")).await.refused(400, "M_UNKNOWN");
    admin.post(&send, json!({ "user_id": "@admin1:a.test" })).await.refused(400, "M_MISSING_PARAM");
    admin.post(&send, Value::from("x")).await.refused(400, "M_BAD_JSON");
    assert_eq!(admin.get(&at("/v1/rooms")).await.ok()["total_rooms"], 0, "nothing is made for nothing");
}

#[tokio::test]
async fn a_closed_account_leaves_the_room_of_notices_too() {
    let home = Home::with(NOTICES).await;
    let (admin, bob) = (home.administrator("admin1").await, home.user("bob").await);
    let notice = json!({ "user_id": bob.id, "content": { "msgtype": "m.text", "body": "hello" } });
    admin.post(&at("/v1/send_server_notice"), notice).await.ok();
    admin.post(&at(&format!("/v1/deactivate/{}", bob.id)), json!({})).await.ok();
    let memberships = at(&format!("/v1/users/{}/memberships", bob.id));
    let has_left = async || {
        let said = admin.get(&memberships).await.ok();
        said["memberships"].as_object().unwrap().values().all(|membership| membership == "leave")
    };
    let leaving = async {
        while !has_left().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, leaving).await.expect("the invite goes");
}
