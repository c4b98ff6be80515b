//! Rooms as two or three people of one server use them.

use serde_json::{Value, json};

use super::home::Home;

#[tokio::test]
async fn two_people_talk() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room(json!({ "name": "Tea", "preset": "private_chat", "invite": [bob.id] })).await;
    let (synced, start) = bob.sync("").await;
    let invite = synced["rooms"]["invite"][&room]["invite_state"]["events"].as_array().unwrap();
    assert!(invite.iter().any(|event| event["content"]["name"] == "Tea"));
    bob.post(&format!("/rooms/{room}/join"), json!({})).await.ok();
    let said = alice.say(&room, "1", "hello").await;
    assert_eq!(alice.say(&room, "1", "hello").await, said, "the same transaction is the same event");

    let (synced, _) = bob.sync(&start).await;
    let joined = &synced["rooms"]["join"][&room];
    let last = joined["timeline"]["events"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["event_id"], &last["content"]["body"]), (&json!(said), &json!("hello")));
    assert_eq!(joined["unread_notifications"]["notification_count"], 1);
    bob.post(&format!("/rooms/{room}/receipt/m.read/{said}"), json!({})).await.ok();
    let (synced, _) = bob.sync("").await;
    let joined = &synced["rooms"]["join"][&room];
    assert_eq!(joined["unread_notifications"]["notification_count"], 0);
    let receipts = joined["ephemeral"]["events"].as_array().unwrap();
    assert!(receipts.iter().any(|event| event["content"][&said]["m.read"][&bob.id]["ts"].is_u64()));

    let page = bob.get(&format!("/rooms/{room}/messages?dir=b&limit=1")).await.ok();
    assert_eq!(page["chunk"][0]["event_id"], json!(said));
    let context = bob.get(&format!("/rooms/{room}/context/{said}?limit=2")).await.ok();
    assert_eq!(context["event"]["event_id"], json!(said));
    assert_eq!(bob.get(&format!("/rooms/{room}/event/{said}")).await.ok()["content"]["body"], "hello");
    let reply = json!({ "msgtype": "m.text", "body": "hi", "m.relates_to": { "rel_type": "m.thread", "event_id": said } });
    bob.put(&format!("/rooms/{room}/send/m.room.message/2"), reply).await.ok();
    let relations =
        alice.get(&format!("/_matrix/client/v1/rooms/{room}/relations/{said}/m.thread")).await.ok();
    assert_eq!(relations["chunk"].as_array().unwrap().len(), 1);
    let threads = alice.get(&format!("/_matrix/client/v1/rooms/{room}/threads")).await.ok();
    assert_eq!(threads["chunk"][0]["event_id"], json!(said));

    alice.put(&format!("/rooms/{room}/redact/{said}/3"), json!({ "reason": "oops" })).await.ok();
    let gone = bob.get(&format!("/rooms/{room}/event/{said}")).await.ok();
    assert_eq!(gone["content"], json!({}));
}

#[tokio::test]
async fn what_one_may_not_see_is_not_there() {
    let home = Home::new().await;
    let (alice, eve) = (home.user("alice").await, home.user("eve").await);
    let (room, eves) = (alice.room(json!({})).await, eve.room(json!({})).await);
    let secret = alice.say(&room, "1", "secret").await;
    eve.get(&format!("/rooms/{room}/event/{secret}")).await.refused(404, "M_NOT_FOUND");
    eve.get(&format!("/rooms/{eves}/event/{secret}")).await.refused(404, "M_NOT_FOUND");
    eve.get(&format!("/rooms/{eves}/context/{secret}")).await.refused(404, "M_NOT_FOUND");
    for path in ["messages?dir=b", "state", "members", "joined_members", "state/m.room.create/"] {
        eve.get(&format!("/rooms/{room}/{path}")).await.refused(403, "M_FORBIDDEN");
    }
    eve.put(&format!("/rooms/{room}/send/m.room.message/1"), json!({})).await.refused(403, "M_FORBIDDEN");
    eve.put(&format!("/rooms/{room}/typing/{}", alice.id), json!({ "typing": true }))
        .await
        .refused(403, "M_FORBIDDEN");
    eve.post(&format!("/rooms/{room}/report/{secret}"), json!({ "reason": "x" }))
        .await
        .refused(404, "M_NOT_FOUND");
    alice.post(&format!("/rooms/{room}/report/{secret}"), json!({ "reason": "x" })).await.ok();
}

#[tokio::test]
async fn members_come_and_go() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room(json!({ "preset": "public_chat" })).await;
    let at = |what: &str| format!("/rooms/{room}/{what}");
    bob.post(&at("join"), json!({})).await.ok();
    assert_eq!(bob.get("/joined_rooms").await.ok(), json!({ "joined_rooms": [room] }));
    bob.post(&at("kick"), json!({ "user_id": alice.id })).await.refused(403, "M_FORBIDDEN");
    alice.post(&at("kick"), json!({ "user_id": bob.id, "reason": "rude" })).await.ok();
    bob.post(&at("join"), json!({})).await.ok();
    alice.post(&at("ban"), json!({ "user_id": bob.id })).await.ok();
    bob.post(&at("join"), json!({})).await.refused(403, "M_FORBIDDEN");
    bob.post(&at("forget"), json!({})).await.ok();
    alice.post(&at("unban"), json!({ "user_id": bob.id })).await.ok();
    alice.post(&at("invite"), json!({ "user_id": bob.id })).await.ok();
    bob.post(&at("leave"), json!({})).await.ok();
    let members = alice.get(&at("members?not_membership=leave")).await.ok();
    assert_eq!(members["chunk"].as_array().unwrap().len(), 1);
    alice.post(&at("forget"), json!({})).await.refused(400, "M_UNKNOWN");
}

#[tokio::test]
async fn state_is_set_and_read() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let room = alice.room(json!({})).await;
    let path = format!("/rooms/{room}/state/m.room.topic");
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
    let first = alice.put(&path, json!({ "topic": "Tea" })).await.ok();
    assert_eq!(
        alice.put(&path, json!({ "topic": "Tea" })).await.ok(),
        first,
        "nothing changes, nothing is sent"
    );
    assert_eq!(alice.get(&format!("{path}/")).await.ok()["topic"], "Tea");
    let event = alice.get(&format!("{path}?format=event")).await.ok();
    assert_eq!((&event["sender"], &event["state_key"]), (&json!(alice.id), &json!("")));
    let keyed = format!("/rooms/{room}/state/org.example.x/a%2Fb");
    alice.put(&keyed, json!({ "n": 1 })).await.ok();
    assert_eq!(alice.get(&keyed).await.ok(), json!({ "n": 1 }));
    alice.put(&keyed, json!({ "n": 1.5 })).await.refused(400, "M_BAD_JSON");
}

#[tokio::test]
async fn names_and_the_directory() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let request =
        json!({ "room_alias_name": "tea", "name": "Tea", "preset": "public_chat", "visibility": "public" });
    let room = alice.room(request).await;
    let found = home.call("", "GET", "/directory/room/%23tea:a.test", Value::Null).await.ok();
    assert_eq!(found["room_id"], json!(room));
    assert_eq!(bob.post("/join/%23tea:a.test", json!({})).await.ok()["room_id"], json!(room));
    let public = home.call("", "GET", "/publicRooms", Value::Null).await.ok();
    assert_eq!(
        (&public["chunk"][0]["room_id"], &public["chunk"][0]["num_joined_members"]),
        (&json!(room), &json!(2))
    );
    let filtered =
        bob.post("/publicRooms", json!({ "filter": { "generic_search_term": "coffee" } })).await.ok();
    assert_eq!(filtered["chunk"], json!([]));
    bob.call("DELETE", "/directory/room/%23tea:a.test", Value::Null).await.refused(403, "M_FORBIDDEN");
    alice.put("/directory/room/%23chai:a.test", json!({ "room_id": room })).await.ok();
    alice.put("/directory/room/%23chai:a.test", json!({ "room_id": room })).await.refused(409, "M_UNKNOWN");
    let aliases = bob.get(&format!("/rooms/{room}/aliases")).await.ok();
    assert_eq!(aliases["aliases"].as_array().unwrap().len(), 2);
    alice.call("DELETE", "/directory/room/%23tea:a.test", Value::Null).await.ok();
    home.call("", "GET", "/directory/room/%23tea:a.test", Value::Null).await.refused(404, "M_NOT_FOUND");
    alice.put(&format!("/directory/list/room/{room}"), json!({ "visibility": "private" })).await.ok();
    let visibility = home.call("", "GET", &format!("/directory/list/room/{room}"), Value::Null).await.ok();
    assert_eq!(visibility, json!({ "visibility": "private" }));
    let summary = bob.get(&format!("/_matrix/client/v1/room_summary/{room}")).await.ok();
    assert_eq!((&summary["name"], &summary["membership"]), (&json!("Tea"), &json!("join")));
}

#[tokio::test]
async fn a_space_shows_its_rooms() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let space = alice.room(json!({ "creation_content": { "type": "m.space" }, "name": "House" })).await;
    let room = alice.room(json!({ "name": "Kitchen" })).await;
    let child = format!("/rooms/{space}/state/m.space.child/{room}");
    alice.put(&child, json!({ "via": ["a.test"] })).await.ok();
    let tree = alice.get(&format!("/_matrix/client/v1/rooms/{space}/hierarchy")).await.ok();
    let names: Vec<&Value> = tree["rooms"].as_array().unwrap().iter().map(|room| &room["name"]).collect();
    assert_eq!(names, ["House", "Kitchen"]);
    assert_eq!(tree["rooms"][0]["children_state"][0]["state_key"], json!(room));
}

#[tokio::test]
async fn a_room_is_upgraded() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let room = alice.room(json!({ "name": "Old", "room_version": "10" })).await;
    alice.put(&format!("/pushrules/global/room/{room}"), json!({ "actions": ["notify"] })).await.ok();
    alice.put(&format!("/user/{}/rooms/{room}/tags/m.favourite", alice.id), json!({})).await.ok();
    let new = alice.post(&format!("/rooms/{room}/upgrade"), json!({ "new_version": "11" })).await.ok();
    let new = new["replacement_room"].as_str().unwrap();
    let tombstone = alice.get(&format!("/rooms/{room}/state/m.room.tombstone")).await.ok();
    assert_eq!(tombstone["replacement_room"], json!(new));
    assert_eq!(alice.get(&format!("/rooms/{new}/state/m.room.name")).await.ok()["name"], "Old");
    alice.get(&format!("/pushrules/global/room/{new}")).await.ok();
    let tags = alice.get(&format!("/user/{}/rooms/{new}/tags", alice.id)).await.ok();
    assert!(tags["tags"]["m.favourite"].is_object(), "{tags}");
}

#[tokio::test]
async fn typing_is_seen_and_people_are_found() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room(json!({ "preset": "public_chat" })).await;
    bob.post(&format!("/rooms/{room}/join"), json!({})).await.ok();
    let (_, start) = bob.sync("").await;
    let typing = format!("/rooms/{room}/typing/{}", alice.id);
    alice.put(&typing, json!({ "typing": true, "timeout": 10_000 })).await.ok();
    let (synced, _) = bob.sync(&start).await;
    let events = synced["rooms"]["join"][&room]["ephemeral"]["events"].as_array().unwrap();
    assert!(events.iter().any(|event| event["content"]["user_ids"] == json!([alice.id])));
    let member = format!("/rooms/{room}/state/m.room.member/{}", bob.id);
    bob.put(&member, json!({ "membership": "join", "displayname": "Hidden" })).await.ok();
    let found = async |term: &str| {
        let found = alice.post("/user_directory/search", json!({ "search_term": term })).await.ok();
        found["results"].as_array().unwrap().iter().map(|user| user["user_id"].clone()).collect::<Vec<_>>()
    };
    let eve = home.user("eve-bo").await;
    assert_eq!(found("BO").await, [json!(bob.id)], "nobody but those one meets");
    assert!(found("hidden").await.is_empty(), "names of one room are not for all");
    eve.room(json!({ "visibility": "public" })).await;
    assert_eq!(found("eve").await, [json!(eve.id)]);
}

#[tokio::test]
async fn without_a_transaction_what_is_sent_again_is_said_twice() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let room = alice.room(json!({})).await;
    let send = format!("/rooms/{room}/send/m.room.message");
    let mut sent = Vec::new();
    for path in [send.clone(), format!("/_matrix/client/r0{send}")] {
        let said = alice.post(&path, json!({ "msgtype": "m.text", "body": "twice" })).await.ok();
        sent.push(said["event_id"].as_str().unwrap().to_owned());
    }
    assert_ne!(sent[0], sent[1]);
    alice
        .post(&format!("/rooms/{room}/redact/{}", sent[0]), json!({ "reason": "once is enough" }))
        .await
        .ok();
    for (event, body) in [(&sent[0], Value::Null), (&sent[1], json!("twice"))] {
        let found = alice.get(&format!("/rooms/{room}/event/{event}")).await.ok();
        assert_eq!(found["content"].get("body").cloned().unwrap_or_default(), body);
    }
    alice.post(&send, json!([])).await.refused(400, "M_BAD_JSON");
}

#[tokio::test]
async fn whoever_is_ignored_does_not_come_back_with_the_history() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room(json!({ "preset": "public_chat" })).await;
    bob.post(&format!("/join/{room}"), json!({})).await.ok();
    alice.say(&room, "1", "words").await;
    let noise = bob.say(&room, "2", "noise").await;
    let ignored = json!({ "ignored_users": { &bob.id: {} } });
    alice.put(&format!("/user/{}/account_data/m.ignored_user_list", alice.id), ignored).await.ok();
    let page = alice.get(&format!("/rooms/{room}/messages?dir=b&limit=100")).await.ok();
    let (text, chunk) = (page["chunk"].to_string(), page["chunk"].as_array().unwrap());
    assert!(text.contains("words") && !text.contains("noise"), "{text}");
    assert!(chunk.iter().any(|event| event["state_key"] == json!(bob.id)), "state is told");
    alice.get(&format!("/rooms/{room}/event/{noise}")).await.refused(404, "M_NOT_FOUND");
    alice.get(&format!("/rooms/{room}/context/{noise}")).await.refused(404, "M_NOT_FOUND");
    bob.get(&format!("/rooms/{room}/event/{noise}")).await.ok();
}

#[tokio::test]
async fn threads_do_not_nest_and_a_transaction_redacts_each_event_once() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let room = alice.room(json!({})).await;
    let root = alice.say(&room, "1", "root").await;
    let answer = async |txn: &str, to: &str| {
        let relation = json!({ "rel_type": "m.thread", "event_id": to });
        let content = json!({ "msgtype": "m.text", "body": "x", "m.relates_to": relation });
        alice.put(&format!("/rooms/{room}/send/m.room.message/{txn}"), content).await
    };
    let reply = answer("2", &root).await.ok()["event_id"].as_str().unwrap().to_owned();
    answer("3", &reply).await.refused(400, "M_INVALID_PARAM");
    let redact = async |event: &str| {
        let gone = alice.put(&format!("/rooms/{room}/redact/{event}/1"), json!({})).await.ok();
        gone["event_id"].as_str().unwrap().to_owned()
    };
    let (first, second) = (redact(&root).await, redact(&reply).await);
    assert_ne!(first, second);
    assert_eq!((redact(&root).await, redact(&reply).await), (first, second));
}

#[tokio::test]
async fn a_type_is_sent_as_it_is_written() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let room = alice.room(json!({})).await;
    let kind = "org.matrix.call.sdp_stream_metadata_changed";
    let path = format!("/rooms/{room}/send/{kind}");
    for said in
        [alice.put(&format!("{path}/1"), json!({})).await.ok(), alice.post(&path, json!({})).await.ok()]
    {
        let event = said["event_id"].as_str().unwrap();
        let found = alice.get(&format!("/rooms/{room}/event/{event}")).await.ok();
        assert_eq!(found["type"], kind);
    }
}
