//! Rooms: lists, reading, blocking, power, joining.

use serde_json::{Value, json};

use super::{Home, at};

#[tokio::test]
async fn rooms_are_listed_found_and_sorted() {
    let home = Home::new().await;
    let (admin, bob, carol) =
        (home.administrator("admin1").await, home.user("bob").await, home.user("carol").await);
    let den = bob.room(json!({ "name": "Den", "preset": "public_chat", "visibility": "public" })).await;
    let attic = bob.room(json!({ "name": "attic", "room_alias_name": "roof" })).await;
    carol.post(&format!("/join/{den}"), json!({})).await.ok();
    let ids = |said: &Value| -> Vec<String> {
        said["rooms"]
            .as_array()
            .unwrap()
            .iter()
            .map(|room| room["room_id"].as_str().unwrap().to_owned())
            .collect()
    };
    let ask = async |query: &str| admin.get(&at(&format!("/v1/rooms{query}"))).await.ok();
    let all = ask("").await;
    assert_eq!(
        (ids(&all), &all["total_rooms"], &all["offset"]),
        (vec![den.clone(), attic.clone()], &json!(2), &json!(0))
    );
    let first = &all["rooms"][0];
    assert_eq!((&first["joined_members"], &first["joined_local_members"]), (&json!(2), &json!(2)));
    assert_eq!(
        (&first["public"], &first["join_rules"], &first["creator"]),
        (&json!(true), &json!("public"), &json!(bob.id))
    );
    assert_eq!(ids(&ask("?order_by=joined_members&dir=b").await), [attic.clone(), den.clone()]);
    let page = ask("?limit=1&from=1").await;
    assert_eq!(
        (ids(&page), &page["prev_batch"], page.get("next_batch")),
        (vec![attic.clone()], &json!(0), None)
    );
    assert_eq!(ids(&ask("?search_term=ROO").await), std::slice::from_ref(&attic));
    assert_eq!(ids(&ask("?search_term=den").await), std::slice::from_ref(&den));
    assert_eq!(ids(&ask("?public_rooms=false").await), std::slice::from_ref(&attic));
    assert_eq!(ids(&ask("?empty_rooms=true").await), Vec::<String>::new());
    admin.get(&at("/v1/rooms?order_by=colour")).await.refused(400, "M_INVALID_PARAM");

    let shown = admin.get(&at(&format!("/v1/rooms/{den}"))).await.ok();
    assert_eq!((&shown["joined_local_devices"], &shown["forgotten"]), (&json!(2), &json!(false)));
    let members = admin.get(&at(&format!("/v1/rooms/{den}/members"))).await.ok();
    assert_eq!(members, json!({ "members": [bob.id, carol.id], "total": 2 }));
    admin.get(&at("/v1/rooms/!unknown:a.test")).await.refused(404, "M_NOT_FOUND");
    admin.get(&at("/v1/rooms/nonsense")).await.refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn an_administrator_reads_a_room_without_being_in_it_and_only_there() {
    let home = Home::new().await;
    let (admin, bob) = (home.administrator("admin1").await, home.user("bob").await);
    let hidden = json!({ "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "joined" } });
    let room = bob.room(json!({ "initial_state": [hidden] })).await;
    let other = bob.room(json!({})).await;
    let said = bob.say(&room, "1", "in private").await;
    let of_room = |what: &str| at(&format!("/v1/rooms/{room}/{what}"));
    let state = admin.get(&of_room("state?type=m.room.create")).await.ok();
    assert_eq!(state["state"].as_array().unwrap().len(), 1);
    let messages = admin.get(&of_room("messages?dir=b&limit=1")).await.ok();
    assert_eq!(messages["chunk"][0]["content"]["body"], "in private");
    let more = format!("messages?dir=b&limit=100&from={}", messages["end"].as_str().unwrap());
    let more = admin.get(&of_room(&more)).await.ok();
    assert!(more["chunk"].as_array().unwrap().iter().any(|event| event["type"] == "m.room.create"));
    let context = admin.get(&of_room(&format!("context/{said}?limit=4"))).await.ok();
    assert_eq!(context["event"]["event_id"], json!(said));
    assert_eq!(context["events_before"].as_array().unwrap().len(), 2);
    let nearest = admin.get(&of_room("timestamp_to_event?ts=0&dir=f")).await.ok();
    assert!(nearest["event_id"].is_string());
    let event = admin.get(&at(&format!("/v1/fetch_event/{said}"))).await.ok();
    assert_eq!(event["event"]["content"]["body"], "in private");
    admin.get(&at(&format!("/v1/rooms/{other}/context/{said}"))).await.refused(404, "M_NOT_FOUND");
    admin.get(&at("/v1/rooms/!unknown:a.test/messages")).await.refused(404, "M_NOT_FOUND");
    // The client API does not know administrators from others.
    admin.get(&format!("/rooms/{room}/messages?dir=b")).await.refused(403, "M_FORBIDDEN");
    admin.get(&format!("/rooms/{room}/event/{said}")).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn nobody_enters_a_blocked_room() {
    let home = Home::new().await;
    let (admin, bob, carol) =
        (home.administrator("admin1").await, home.user("bob").await, home.user("carol").await);
    let room = bob.room(json!({ "preset": "public_chat" })).await;
    let block = at(&format!("/v1/rooms/{room}/block"));
    assert_eq!(admin.get(&block).await.ok(), json!({ "block": false }));
    admin.put(&block, json!({ "block": true })).await.ok();
    assert_eq!(admin.get(&block).await.ok(), json!({ "block": true, "user_id": admin.id }));
    carol.post(&format!("/join/{room}"), json!({})).await.refused(403, "M_FORBIDDEN");
    let membership = format!("/rooms/{room}/state/m.room.member/{}", carol.id);
    carol.put(&membership, json!({ "membership": "join" })).await.refused(403, "M_FORBIDDEN");
    admin.put(&block, json!({ "block": false })).await.ok();
    carol.post(&format!("/join/{room}"), json!({})).await.ok();
    admin.put(&at("/v1/rooms/!unknown:b.test/block"), json!({ "block": true })).await.ok();
    admin.put(&block, json!({})).await.refused(400, "M_MISSING_PARAM");
}

#[tokio::test]
async fn power_is_given_and_users_are_joined() {
    let home = Home::new().await;
    let (admin, bob, carol) =
        (home.administrator("admin1").await, home.user("bob").await, home.user("carol").await);
    let room = bob.room(json!({ "room_alias_name": "den" })).await;
    let make = at(&format!("/v1/rooms/{room}/make_room_admin"));
    admin.post(&make, json!({})).await.ok();
    let levels = bob.get(&format!("/rooms/{room}/state/m.room.power_levels")).await.ok();
    assert_eq!(levels["users"][&admin.id], 100);
    // The room was closed: the administrator is invited, joins, and can bring others.
    admin.post(&format!("/join/{room}"), json!({})).await.ok();
    let join = admin.post(&at("/v1/join/%23den:a.test"), json!({ "user_id": carol.id })).await.ok();
    assert_eq!(join["room_id"], json!(room));
    assert_eq!(carol.get("/joined_rooms").await.ok()["joined_rooms"], json!([room]));
    let heads = admin.get(&at(&format!("/v1/rooms/{room}/forward_extremities"))).await.ok();
    assert_eq!((&heads["count"], heads["results"][0]["event_id"].is_string()), (&json!(1), true));
    let merged = admin.delete(&at(&format!("/v1/rooms/{room}/forward_extremities"))).await.ok();
    assert_eq!(merged, json!({ "deleted": 0 }));
    let closed = carol.room(json!({})).await;
    let refused = admin.post(&at(&format!("/v1/join/{closed}")), json!({ "user_id": bob.id })).await;
    refused.refused(403, "M_FORBIDDEN");
    admin.post(&make, json!({ "user_id": "nonsense" })).await.refused(400, "M_BAD_JSON");
}
