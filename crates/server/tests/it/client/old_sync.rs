//! `/events`, `/initialSync`, `/rooms/{roomId}/initialSync`, `/events/{eventId}`: the old ways, also for previews.

use serde_json::{Value, json};

use super::home::{Home, User};

async fn events(user: &User<'_>, query: &str) -> (Value, String) {
    let said = user.get(&format!("/events?{query}")).await.ok();
    let end = said["end"].as_str().unwrap().to_owned();
    (said, end)
}

fn bodies(events: &Value) -> Vec<&str> {
    let bodies = events.as_array().unwrap().iter().filter_map(|event| event["content"]["body"].as_str());
    bodies.collect()
}

#[tokio::test]
async fn what_happens_comes_down_the_stream() {
    let home = Home::with("client.rates.message = { per_second = 0, burst = 0 }").await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = bob.room(json!({ "preset": "public_chat" })).await;
    alice.post(&format!("/join/{room}"), json!({})).await.ok();
    let begin = alice.get("/initialSync?limit=5").await.ok();
    let from = begin["end"].as_str().unwrap().to_owned();
    let (nothing, from) = events(&alice, &format!("from={from}&timeout=0")).await;
    assert_eq!(bodies(&nothing["chunk"]), Vec::<&str>::new());
    let event = bob.say(&room, "1", "hello").await;
    let (said, from) = events(&alice, &format!("from={from}&timeout=0")).await;
    assert_eq!(bodies(&said["chunk"]), ["hello"]);
    let shown = said["chunk"].as_array().unwrap().iter().find(|shown| shown["event_id"] == event).unwrap();
    assert_eq!(shown["room_id"], room);
    bob.post(&format!("/rooms/{room}/receipt/m.read/{event}"), json!({})).await.ok();
    bob.put(&format!("/rooms/{room}/typing/{}", bob.id), json!({ "typing": true, "timeout": 30_000 }))
        .await
        .ok();
    let (said, from) = events(&alice, &format!("from={from}&timeout=0")).await;
    for kind in ["m.receipt", "m.typing"] {
        let chunk = said["chunk"].as_array().unwrap();
        assert!(
            chunk.iter().any(|event| event["type"] == kind && event["room_id"] == room),
            "{kind}: {said}"
        );
    }
    // More than a timeline holds: nothing is left out.
    for number in 0..130 {
        bob.say(&room, &format!("m{number}"), &number.to_string()).await;
    }
    let (said, from) = events(&alice, &format!("from={from}&timeout=0")).await;
    let expected: Vec<String> = (0..130).map(|number: i32| number.to_string()).collect();
    assert_eq!(bodies(&said["chunk"]), expected);
    let other = bob.room(json!({ "preset": "private_chat", "invite": [alice.id] })).await;
    let (said, _) = events(&alice, &format!("from={from}&timeout=0")).await;
    let chunk = said["chunk"].as_array().unwrap();
    let invite = chunk.iter().find(|event| event["content"]["membership"] == "invite").unwrap();
    assert_eq!((&invite["room_id"], &invite["state_key"]), (&json!(other), &json!(alice.id)));
}

#[tokio::test]
async fn the_stream_waits_and_takes_no_messages_away_from_the_device() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = bob.room(json!({ "preset": "public_chat" })).await;
    alice.post(&format!("/join/{room}"), json!({})).await.ok();
    let (_, since) = alice.sync("").await;
    let messages = json!({ "messages": { &alice.id: { &alice.device: { "a": 1 } } } });
    bob.put("/sendToDevice/x.test/1", messages).await.ok();
    let (_, from) = events(&alice, "timeout=0").await;
    let waiting = async {
        let mut from = from;
        loop {
            // Who is there is told as well.
            let (said, next) = events(&alice, &format!("from={from}&timeout=10000")).await;
            if let Some(body) = bodies(&said["chunk"]).first() {
                return (*body).to_owned();
            }
            from = next;
        }
    };
    let talking = async { bob.say(&room, "1", "hello").await };
    let (said, _) = tokio::join!(waiting, talking);
    assert_eq!(said, "hello");
    let (synced, _) = alice.sync(&since).await;
    assert_eq!(synced["to_device"]["events"][0]["content"], json!({ "a": 1 }));
}

#[tokio::test]
async fn a_room_that_anybody_may_read_can_be_looked_into() {
    let home = Home::new().await;
    let (alice, eve) = (home.user("alice").await, home.user("eve").await);
    let guest = home.call("", "POST", "/register?kind=guest", json!({})).await.ok();
    let guest = User {
        home: &home,
        id: guest["user_id"].as_str().unwrap().to_owned(),
        device: guest["device_id"].as_str().unwrap().to_owned(),
        token: guest["access_token"].as_str().unwrap().to_owned(),
    };
    let room = alice.room(json!({ "preset": "public_chat", "name": "Forum" })).await;
    alice.say(&room, "1", "before").await;
    let (initial, stream) = (format!("/rooms/{room}/initialSync"), format!("room_id={room}&timeout=0"));
    eve.get(&initial).await.refused(403, "M_FORBIDDEN");
    eve.get(&format!("/events?{stream}")).await.refused(403, "M_FORBIDDEN");
    let seen = format!("/rooms/{room}/state/m.room.history_visibility");
    alice.put(&seen, json!({ "history_visibility": "world_readable" })).await.ok();
    alice.say(&room, "2", "open").await;
    let said = ["open", "eve"];
    for (known, txn, who) in [(1, "eve", &eve), (2, "guest", &guest)] {
        let shown = who.get(&format!("{initial}?limit=3")).await.ok();
        assert_eq!(bodies(&shown["messages"]["chunk"]), said[..known], "not what was said before");
        assert!(shown["state"].as_array().unwrap().iter().any(|event| event["content"]["name"] == "Forum"));
        assert!(shown.get("membership").is_none());
        assert_eq!((&shown["room_id"], &shown["visibility"]), (&json!(room), &json!("private")));
        let from = shown["messages"]["end"].as_str().unwrap().to_owned();
        let waiting = async {
            let query = format!("room_id={room}&from={from}&timeout=10000");
            events(who, &query).await
        };
        let talking = async { alice.say(&room, txn, txn).await };
        let ((peeked, end), _) = tokio::join!(waiting, talking);
        assert_eq!(bodies(&peeked["chunk"]), [txn]);
        assert_eq!(peeked["chunk"][0]["room_id"], room);
        let (again, _) = events(who, &format!("{stream}&from={end}")).await;
        assert_eq!(again["chunk"], json!([]));
    }
    guest.get("/events?timeout=0").await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    alice.put(&seen, json!({ "history_visibility": "shared" })).await.ok();
    alice.say(&room, "3", "closed").await;
    eve.get(&format!("/events?{stream}")).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn all_rooms_at_once_or_one_of_them() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = bob.room(json!({ "preset": "public_chat", "visibility": "public" })).await;
    alice.post(&format!("/join/{room}"), json!({})).await.ok();
    let event = bob.say(&room, "1", "hello").await;
    bob.post(&format!("/rooms/{room}/receipt/m.read/{event}"), json!({})).await.ok();
    let tag = format!("/user/{}/rooms/{room}/tags/u.x", alice.id);
    alice.put(&tag, json!({})).await.ok();
    let invited = bob.room(json!({ "preset": "private_chat", "invite": [alice.id] })).await;
    let left = bob.room(json!({ "preset": "public_chat" })).await;
    alice.post(&format!("/join/{left}"), json!({})).await.ok();
    alice.post(&format!("/rooms/{left}/leave"), json!({})).await.ok();
    bob.say(&left, "2", "afterwards").await;

    let all = alice.get("/initialSync?limit=2&archived=true").await.ok();
    let of =
        |room: &str| all["rooms"].as_array().unwrap().iter().find(|shown| shown["room_id"] == room).unwrap();
    let shown = of(&room);
    assert_eq!(bodies(&shown["messages"]["chunk"]), ["hello"]);
    assert_eq!(shown["messages"]["chunk"].as_array().unwrap().len(), 2);
    assert_eq!((&shown["membership"], &shown["visibility"]), (&json!("join"), &json!("public")));
    assert!(
        shown["state"]
            .as_array()
            .unwrap()
            .iter()
            .any(|event| event["type"] == "m.room.create" && event["room_id"] == room)
    );
    assert_eq!(shown["account_data"][0]["type"], "m.tag");
    assert_eq!(all["receipts"][0]["room_id"], room);
    assert_eq!((&of(&invited)["inviter"], &of(&invited)["membership"]), (&json!(bob.id), &json!("invite")));
    assert_eq!(of(&left)["membership"], "leave");
    assert_eq!(bodies(&of(&left)["messages"]["chunk"]), Vec::<&str>::new(), "nothing after leaving");
    assert_eq!(alice.get("/initialSync").await.ok()["rooms"].as_array().unwrap().len(), 2, "without archive");

    let one = alice.get(&format!("/rooms/{room}/initialSync?limit=1")).await.ok();
    assert_eq!(bodies(&one["messages"]["chunk"]), ["hello"]);
    assert_eq!((&one["membership"], &one["receipts"][0]["type"]), (&json!("join"), &json!("m.receipt")));
    assert_eq!(one["account_data"][0]["content"]["tags"], json!({ "u.x": {} }));
    let gone = alice.get(&format!("/rooms/{left}/initialSync")).await.ok();
    assert_eq!(gone["membership"], "leave");
    assert!(!gone.to_string().contains("afterwards"));
    bob.post(&format!("/rooms/{left}/ban"), json!({ "user_id": alice.id })).await.ok();
    assert_eq!(alice.get(&format!("/rooms/{left}/initialSync")).await.ok()["membership"], "ban");
}

#[tokio::test]
async fn one_event_is_found_without_its_room_by_those_who_may_see_it() {
    let home = Home::new().await;
    let (alice, eve) = (home.user("alice").await, home.user("eve").await);
    let room = alice.room(json!({ "preset": "private_chat" })).await;
    let event = alice.say(&room, "1", "hello").await;
    let shown = alice.get(&format!("/events/{event}")).await.ok();
    assert_eq!((&shown["room_id"], &shown["content"]["body"]), (&json!(room), &json!("hello")));
    eve.get(&format!("/events/{event}")).await.refused(404, "M_NOT_FOUND");
    eve.get("/events/$nothing").await.refused(404, "M_NOT_FOUND");
    eve.get("/events/nonsense").await.refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn the_old_ways_need_a_token_and_good_arguments() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    for path in [
        "/events",
        "/initialSync",
        "/rooms/!r:a.test/initialSync",
        "/events/$e",
        "/_matrix/client/r0/events",
        "/_matrix/client/r0/initialSync",
    ] {
        home.call("", "GET", path, Value::Null).await.refused(401, "M_MISSING_TOKEN");
    }
    alice.get("/events?from=nonsense&timeout=0").await.refused(400, "M_UNKNOWN_POS");
    alice.get("/events?from=c1_99999999_a-1&timeout=0").await.refused(400, "M_UNKNOWN_POS");
    alice.get("/events?timeout=x").await.refused(400, "M_INVALID_PARAM");
    alice.get("/events?room_id=nonsense&timeout=0").await.refused(400, "M_INVALID_PARAM");
    alice.get("/initialSync?limit=x").await.refused(400, "M_INVALID_PARAM");
    alice.get("/rooms/!r:a.test/initialSync").await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn one_answer_of_the_stream_has_so_many_pages() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let (_, from) = events(&alice, "timeout=0").await;
    let entries: Vec<Value> =
        (0..120).map(|n| json!({ "type": "x.entry", "state_key": n.to_string(), "content": {} })).collect();
    for _ in 0..12 {
        alice.room(json!({ "preset": "private_chat", "initial_state": entries })).await;
    }
    let (said, _) = events(&alice, &format!("from={from}&timeout=0")).await;
    let chunk = said["chunk"].as_array().unwrap();
    let begun = chunk.iter().filter(|event| event["type"] == "m.room.create").count();
    assert!((1..=10).contains(&begun), "{begun} rooms back to their beginning");
}

#[tokio::test]
async fn the_old_ways_are_counted() {
    for path in ["/events?timeout=0", "/initialSync", "/rooms/!r:a.test/initialSync"] {
        let home = Home::with("client.rates.search = { per_second = 0.001, burst = 1 }").await;
        let alice = home.user("alice").await;
        alice.get(path).await;
        alice.get(path).await.refused(429, "M_LIMIT_EXCEEDED");
    }
}
