//! Sliding sync, thread subscriptions and sticky events over HTTP.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use super::home::Home;

const SYNC: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
const THREADS: &str = "/_matrix/client/unstable/io.element.msc4306";

/// What a mobile client asks for its room list, all extensions on.
fn room_list() -> Value {
    let on = json!({ "enabled": true });
    json!({
        "conn_id": "room-list",
        "lists": { "all_rooms": {
            "ranges": [[0, 19]],
            "timeline_limit": 1,
            "required_state": [["m.room.name", ""], ["m.room.member", "$LAZY"], ["m.room.member", "$ME"], ["m.room.create", ""]],
            "filters": { "not_room_types": ["m.space"] },
        } },
        "extensions": {
            "to_device": on, "e2ee": on, "account_data": on, "receipts": on, "typing": on,
            "io.element.msc4308.thread_subscriptions": on, "org.matrix.msc4354.sticky_events": on,
        },
    })
}

#[tokio::test]
async fn a_room_list_is_filled_and_goes_on() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let first = alice.post(&format!("{SYNC}?timeout=0"), room_list()).await.ok();
    assert_eq!(first["lists"]["all_rooms"]["count"], 0);
    assert!(first["extensions"]["to_device"]["next_batch"].is_string());
    assert!(first["extensions"]["e2ee"]["device_one_time_keys_count"].is_object());
    assert!(first["extensions"]["account_data"]["global"].is_array());
    let room = alice.room(json!({ "name": "Bureau", "preset": "public_chat" })).await;
    bob.post(&format!("/join/{room}"), json!({})).await.ok();
    let go_on = async |pos: &Value, body: Value| {
        alice.post(&format!("{SYNC}?timeout=0&pos={}", pos.as_str().unwrap()), body).await
    };
    let second = go_on(&first["pos"], room_list()).await.ok();
    let told = &second["rooms"][&room];
    assert_eq!((&told["initial"], &told["name"]), (&json!(true), &json!("Bureau")));
    assert_eq!((&told["joined_count"], &told["membership"]), (&json!(2), &json!("join")));
    assert_eq!(told["timeline"][0]["state_key"], json!(bob.id));
    assert!(told["bump_stamp"].is_u64() && told["prev_batch"].is_string() && told["limited"] == true);
    assert!(told.get("heroes").is_none() && told.get("invite_state").is_none());
    let state: Vec<_> = told["required_state"].as_array().unwrap().iter().collect();
    assert!(state.iter().any(|event| event["type"] == "m.room.create"));
    assert!(state.iter().any(|event| event["state_key"] == json!(alice.id)));
    let third = go_on(&second["pos"], room_list()).await.ok();
    assert_eq!((&third["rooms"], &third["lists"]["all_rooms"]["count"]), (&json!({}), &json!(1)));
    let path = format!("/rooms/{room}/messages?dir=b&from={}", third["pos"].as_str().unwrap());
    assert!(
        !alice.get(&path).await.ok()["chunk"].as_array().unwrap().is_empty(),
        "a pos is a place in a room too"
    );
    go_on(&json!("s1_0_0_c1_1_0-0"), room_list()).await.refused(400, "M_UNKNOWN_POS");
    go_on(&first["pos"], room_list()).await.refused(400, "M_UNKNOWN_POS");
    let body = json!({ "pos": third["pos"], "conn_id": "room-list", "txn_id": "t" });
    assert_eq!(alice.post(SYNC, body).await.ok()["txn_id"], "t", "the last proposal has it in the body");
}

#[tokio::test]
async fn row_100_an_account_of_a_thousand_rooms_has_its_list_at_once() {
    const ROOMS: usize = 1_000;
    // Answers with all of them take a while.
    const PATIENCE: Duration = Duration::from_mins(1);
    let home = Home::with("client.rates.join = { per_second = 0.0, burst = 0 }").await;
    let alice = home.user("alice").await;
    let mut rooms = Vec::new();
    for n in 0..ROOMS {
        rooms.push(alice.room(json!({ "name": format!("Room {n}") })).await);
    }
    let ask = async |pos: &Value, last: usize| {
        let mut body = room_list();
        body["lists"]["all_rooms"]["ranges"] = json!([[0, last]]);
        let pos = pos.as_str().map_or_else(String::new, |pos| format!("&pos={pos}"));
        alice.post_within(PATIENCE, &format!("{SYNC}?timeout=0{pos}"), body).await.ok()
    };
    let first = ask(&Value::Null, 19).await;
    assert_eq!(first["lists"]["all_rooms"]["count"], ROOMS);
    let mut told: BTreeSet<String> = first["rooms"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(told, rooms[ROOMS - 20..].iter().cloned().collect(), "the newest come first");
    // The window grows until all of them are there, each told once.
    let mut pos = first["pos"].clone();
    while told.len() < ROOMS {
        let more = ask(&pos, ROOMS - 1).await;
        let fresh: Vec<String> = more["rooms"].as_object().unwrap().keys().cloned().collect();
        assert!(!fresh.is_empty(), "{} rooms are there and no more come", told.len());
        for room in fresh {
            assert_eq!(more["rooms"][&room]["initial"], true);
            assert!(told.insert(room), "told twice");
        }
        pos = more["pos"].clone();
    }
    alice.say(&rooms[0], "1", "the oldest one").await;
    let next = ask(&pos, 19).await;
    let moved: Vec<&String> = next["rooms"].as_object().unwrap().keys().collect();
    assert_eq!(moved, [&rooms[0]], "what moved, and nothing else");
}

#[tokio::test]
async fn what_is_malformed_or_too_much_is_refused() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    home.call("", "POST", SYNC, room_list()).await.refused(401, "M_MISSING_TOKEN");
    alice.post(SYNC, json!({ "lists": [] })).await.refused(400, "M_BAD_JSON");
    alice
        .post(SYNC, json!({ "lists": { "a": { "ranges": [[3, 2]] } } }))
        .await
        .refused(400, "M_INVALID_PARAM");
    let lists: serde_json::Map<_, _> = (0..10_000).map(|n| (n.to_string(), json!({}))).collect();
    alice.post(SYNC, json!({ "lists": lists })).await.refused(400, "M_INVALID_PARAM");
    let huge = json!({ "lists": { "a": { "ranges": [[0, 9_007_199_254_740_991_u64]], "timeline_limit": 9_007_199_254_740_991_u64 } } });
    alice.post(SYNC, huge).await.ok();
    let room = bob.room(json!({ "name": "secret" })).await;
    let subscription = json!({ "required_state": [["*", "*"]], "timeline_limit": 9 });
    let body = json!({ "room_subscriptions": { room.clone(): subscription }, "extensions": room_list()["extensions"] });
    let answer = alice.post(SYNC, body).await.ok();
    assert_eq!(answer["rooms"], json!({}), "a stranger's room is not there");
}

#[tokio::test]
async fn threads_are_followed_and_left() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room(json!({})).await;
    let said = async |n: u8, content: Value| {
        let path = format!("/rooms/{room}/send/m.room.message/{n}");
        alice.put(&path, content).await.ok()["event_id"].as_str().unwrap().to_owned()
    };
    let root = said(1, json!({ "body": "root", "msgtype": "m.text" })).await;
    let relation = json!({ "rel_type": "m.thread", "event_id": root });
    let reply = said(2, json!({ "body": "reply", "msgtype": "m.text", "m.relates_to": relation })).await;
    let path = format!("{THREADS}/rooms/{room}/thread/{root}/subscription");
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
    home.call("", "PUT", &path, json!({})).await.refused(401, "M_MISSING_TOKEN");
    for answer in [bob.put(&path, json!({})).await, bob.get(&path).await] {
        answer.refused(404, "M_NOT_FOUND");
    }
    bob.call("DELETE", &path, Value::Null).await.refused(404, "M_NOT_FOUND");
    alice.put(&path, json!({ "automatic": 3 })).await.refused(400, "M_BAD_JSON");
    alice.put(&path, json!({ "automatic": root })).await.refused(400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD");
    alice
        .put(&path, json!({ "automatic": "$unheard" }))
        .await
        .refused(400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD");
    alice.put(&path, json!({ "automatic": reply })).await.ok();
    assert_eq!(alice.get(&path).await.ok()["automatic"], true);
    alice.put(&path, json!({})).await.ok();
    alice.put(&path, json!({ "automatic": reply })).await.ok();
    assert_eq!(alice.get(&path).await.ok()["automatic"], false, "what was said by hand stays");
    alice.call("DELETE", &path, Value::Null).await.ok();
    alice.call("DELETE", &path, Value::Null).await.ok();
    alice
        .put(&path, json!({ "automatic": reply }))
        .await
        .refused(409, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION");
    let all = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions";
    let page = alice.get(&format!("{all}?dir=b")).await.ok();
    assert!(page["unsubscribed"][&room][&root]["bump_stamp"].is_u64() && page.get("end").is_none());
    assert_eq!(bob.get(&format!("{all}?dir=b")).await.ok(), json!({}));
    for bad in ["?dir=f", "?dir=b&limit=0", "?dir=b&from=x", "?dir=b&to=x"] {
        alice.get(&format!("{all}{bad}")).await.refused(400, "M_INVALID_PARAM");
    }
    alice.get(all).await.refused(400, "M_MISSING_PARAM");
    home.call("", "GET", all, Value::Null).await.refused(401, "M_MISSING_TOKEN");
}

#[tokio::test]
async fn the_state_after_the_timeline_goes_by_the_name_it_is_asked_for() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let room = alice.room(json!({ "name": "Bureau" })).await;
    for (parameter, field) in [
        ("use_state_after", "state_after"),
        ("org.matrix.msc4222.use_state_after", "org.matrix.msc4222.state_after"),
    ] {
        let answer = alice.get(&format!("/sync?{parameter}=true")).await.ok();
        let part = &answer["rooms"]["join"][&room];
        let told = part[field]["events"].as_array().unwrap();
        assert!(told.iter().any(|event| event["type"] == "m.room.name") && part.get("state").is_none());
    }
}

#[tokio::test]
async fn events_stick() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room(json!({ "preset": "public_chat" })).await;
    let stick = async |n: u8, ms: u64| {
        let path = format!("/rooms/{room}/send/x.call/{n}?org.matrix.msc4354.sticky_duration_ms={ms}");
        alice.put(&path, json!({ "msc4354_sticky_key": "k" })).await
    };
    stick(1, 3_600_001).await.refused(400, "M_INVALID_PARAM");
    let event = stick(2, 60_000).await.ok()["event_id"].clone();
    bob.post(&format!("/join/{room}"), json!({})).await.ok();
    let filter = "filter=%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A1%7D%7D%7D";
    let answer = bob.get(&format!("/sync?{filter}")).await.ok();
    let sticky = &answer["rooms"]["join"][&room]["msc4354_sticky"]["events"][0];
    assert_eq!((&sticky["event_id"], &sticky["msc4354_sticky"]["duration_ms"]), (&event, &json!(60_000)));
    assert!(sticky["unsigned"]["msc4354_sticky_duration_ttl_ms"].is_u64());
    let answer = bob.post(SYNC, room_list()).await.ok();
    let page = &answer["extensions"]["org.matrix.msc4354.sticky_events"];
    assert_eq!(page["rooms"][&room]["events"][0]["event_id"], event);
    assert!(page["next_batch"].is_string());
}
