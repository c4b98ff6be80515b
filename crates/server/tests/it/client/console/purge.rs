//! Deleting rooms and purging history: in the background, and what everybody sees of it.

use serde_json::{Value, json};

use super::{Home, at, ended};

#[tokio::test]
async fn a_deleted_room_is_gone_for_everybody_and_its_users_hear_of_it() {
    let home = Home::new().await;
    let (admin, bob, carol) =
        (home.administrator("admin1").await, home.user("bob").await, home.user("carol").await);
    let room = bob.room(json!({ "preset": "public_chat", "room_alias_name": "den" })).await;
    carol.post(&format!("/join/{room}"), json!({})).await.ok();
    let said = bob.say(&room, "1", "to be gone").await;
    // Carol's device is away while it happens.
    let (_, since) = carol.sync("").await;
    let path = at(&format!("/v2/rooms/{room}"));
    let id = admin.call("DELETE", &path, json!({ "block": true })).await.ok()["delete_id"].clone();
    let by_id = at(&format!("/v2/rooms/delete_status/{}", id.as_str().unwrap()));
    let done = ended(&admin, &by_id).await;
    assert_eq!(done["status"], "complete", "{done}");
    assert_eq!(done["shutdown_room"]["kicked_users"], json!([bob.id, carol.id]));
    assert_eq!(done["shutdown_room"]["local_aliases"], json!(["#den:a.test"]));
    let by_room = admin.get(&format!("{path}/delete_status")).await.ok();
    assert_eq!(by_room["results"][0]["delete_id"], id);

    let (news, _) = carol.sync(&since).await;
    assert!(news["rooms"]["leave"][&room].is_object(), "{news}");
    carol.sync("").await;
    bob.get(&format!("/rooms/{room}/event/{said}")).await.refused(404, "M_NOT_FOUND");
    bob.get(&format!("/rooms/{room}/messages?dir=b")).await.refused(403, "M_FORBIDDEN");
    bob.get("/directory/room/%23den:a.test").await.refused(404, "M_NOT_FOUND");
    bob.post(&format!("/join/{room}"), json!({})).await.refused(403, "M_FORBIDDEN");
    admin.get(&at(&format!("/v1/rooms/{room}"))).await.refused(404, "M_NOT_FOUND");
    admin.get(&at(&format!("/v1/fetch_event/{said}"))).await.refused(404, "M_NOT_FOUND");
    assert_eq!(admin.get(&at("/v1/rooms")).await.ok()["total_rooms"], 0);
    admin.delete(&path).await.refused(404, "M_NOT_FOUND");
    // Its number is not given to another.
    let next = bob.room(json!({ "name": "next" })).await;
    bob.say(&next, "2", "hello").await;
    assert_eq!(admin.get(&at("/v1/rooms")).await.ok()["total_rooms"], 1);
    assert_eq!(
        admin.get(&at("/v1/scheduled_tasks?job_status=complete")).await.ok()["scheduled_tasks"][0]["id"],
        id
    );
}

#[tokio::test]
async fn users_can_be_moved_to_a_new_room() {
    let home = Home::new().await;
    let (admin, bob, carol) =
        (home.administrator("admin1").await, home.user("bob").await, home.user("carol").await);
    let room = bob.room(json!({ "preset": "public_chat", "room_alias_name": "den" })).await;
    carol.post(&format!("/join/{room}"), json!({})).await.ok();
    let wanted = json!({ "new_room_user_id": admin.id, "room_name": "Moved", "message": "Read the rules" });
    let done = admin.call("DELETE", &at(&format!("/v1/rooms/{room}")), wanted).await.ok();
    let new = done["new_room_id"].as_str().unwrap().to_owned();
    assert_eq!(done["kicked_users"], json!([bob.id, carol.id]));
    assert_eq!(carol.get("/joined_rooms").await.ok()["joined_rooms"], json!([new]));
    assert_eq!(bob.get("/directory/room/%23den:a.test").await.ok()["room_id"], json!(new));
    let messages = carol.get(&format!("/rooms/{new}/messages?dir=b")).await.ok();
    assert!(messages.to_string().contains("Read the rules"));
    carol
        .put(&format!("/rooms/{new}/send/m.room.message/1"), json!({ "body": "x" }))
        .await
        .refused(403, "M_FORBIDDEN");
    admin.call("DELETE", &at("/v1/rooms/!unknown:b.test"), json!({})).await.refused(400, "M_UNKNOWN");
    let only_blocked =
        admin.call("DELETE", &at("/v1/rooms/!unknown:b.test"), json!({ "block": true })).await.ok();
    assert_eq!((&only_blocked["kicked_users"], &only_blocked["new_room_id"]), (&json!([]), &Value::Null));
    assert_eq!(admin.get(&at("/v1/rooms/!unknown:b.test/block")).await.ok()["block"], true);
    let elsewhere = json!({ "new_room_user_id": "@x:b.test" });
    admin.call("DELETE", &at(&format!("/v1/rooms/{new}")), elsewhere).await.refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn purged_history_is_gone_and_the_room_goes_on() {
    let home = Home::new().await;
    let (admin, bob, carol) =
        (home.administrator("admin1").await, home.user("bob").await, home.user("carol").await);
    let room = bob.room(json!({ "name": "Den", "preset": "public_chat" })).await;
    carol.post(&format!("/join/{room}"), json!({})).await.ok();
    let old = bob.say(&room, "1", "old").await;
    // More than is looked at in one go.
    for number in 0..70 {
        bob.say(&room, &format!("m{number}"), "old as well").await;
        carol.say(&room, &format!("m{number}"), "old as well").await;
    }
    let new = bob.say(&room, "2", "new").await;
    let found = async |term: &str| {
        let criteria = json!({ "search_categories": { "room_events": { "search_term": term } } });
        let said = bob.post("/search", criteria).await.ok();
        said["search_categories"]["room_events"]["count"].clone()
    };
    assert_eq!((found("old").await, found("new").await), (json!(141), json!(1)));
    let purge = at(&format!("/v1/purge_history/{room}"));
    admin.post(&purge, json!({})).await.refused(400, "M_BAD_JSON");
    let started = admin.post(&format!("{purge}/{new}"), json!({ "delete_local_events": true })).await.ok();
    let status = at(&format!("/v1/purge_history_status/{}", started["purge_id"].as_str().unwrap()));
    assert_eq!(ended(&admin, &status).await, json!({ "status": "complete" }));
    bob.get(&format!("/rooms/{room}/event/{old}")).await.refused(404, "M_NOT_FOUND");
    let left = bob.get(&format!("/rooms/{room}/messages?dir=b&limit=500")).await.ok();
    let bodies: Vec<&Value> =
        left["chunk"].as_array().unwrap().iter().filter_map(|event| event["content"].get("body")).collect();
    assert_eq!(bodies, [&json!("new")]);
    assert!(left.to_string().contains("m.room.name"));
    assert_eq!((found("old").await, found("new").await), (json!(0), json!(1)));
    bob.say(&room, "3", "later").await;
    let (all, _) = bob.sync("").await;
    assert!(all["rooms"]["join"][&room]["timeline"].to_string().contains("later"));
    admin.get(&at("/v1/purge_history_status/none")).await.refused(404, "M_NOT_FOUND");
    admin
        .post(&at("/v1/purge_history/!unknown:a.test"), json!({ "purge_up_to_ts": 1 }))
        .await
        .refused(404, "M_NOT_FOUND");
}
