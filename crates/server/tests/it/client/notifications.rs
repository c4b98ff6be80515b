//! `/notifications`: what one was told, newest first, read or not, and what one is not told.

use serde_json::{Value, json};

use super::home::{Home, User};

async fn page(user: &User<'_>, query: &str) -> Value {
    user.get(&format!("/notifications{query}")).await.ok()
}

fn bodies(page: &Value) -> Vec<&str> {
    let list = page["notifications"].as_array().unwrap().iter();
    list.map(|one| one["event"]["content"]["body"].as_str().or(one["event"]["type"].as_str()).unwrap())
        .collect()
}

#[tokio::test]
async fn rooms_are_merged_backwards_page_by_page() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let mut rooms = Vec::new();
    for _ in 0..3 {
        let room = bob.room(json!({ "preset": "public_chat" })).await;
        alice.post(&format!("/join/{room}"), json!({})).await.ok();
        rooms.push(room);
    }
    let quiet = bob.room(json!({ "preset": "public_chat" })).await;
    alice.post(&format!("/join/{quiet}"), json!({})).await.ok();
    // In one room so many that they are not looked at all at once.
    let mut said = Vec::new();
    for number in 0..90_usize {
        let room = if number % 10 < 8 { 0 } else { 1 + number % 2 };
        bob.say(&rooms[room], &number.to_string(), &format!("n{number}")).await;
        said.push(format!("n{number}"));
    }
    said.reverse();
    alice.say(&rooms[0], "own", "mine").await;
    let (mut listed, mut from) = (Vec::new(), String::new());
    loop {
        let found = page(&alice, &format!("?limit=7{from}")).await;
        assert!(found["notifications"].as_array().unwrap().len() <= 7);
        listed.extend(bodies(&found).into_iter().map(str::to_owned));
        let Some(next) = found["next_token"].as_str() else { break };
        from = format!("&from={next}");
    }
    assert_eq!(listed, said);
    let first = &page(&alice, "?limit=1").await["notifications"][0];
    assert_eq!(first["room_id"], rooms[2]);
    assert_eq!((&first["read"], &first["actions"][0]), (&json!(false), &json!("notify")));
    assert!(
        first["ts"].is_u64()
            && first["event"].get("room_id").is_none()
            && first["event"]["event_id"].is_string()
    );
}

#[tokio::test]
async fn what_was_read_stands_out_or_is_muted_is_told_as_such() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = bob.room(json!({ "preset": "public_chat" })).await;
    alice.post(&format!("/join/{room}"), json!({})).await.ok();
    let first = bob.say(&room, "1", "first").await;
    bob.put(
        &format!("/rooms/{room}/send/m.room.message/2"),
        json!({
        "msgtype": "m.text", "body": "you", "m.mentions": { "user_ids": [alice.id] } }),
    )
    .await
    .ok();
    alice.post(&format!("/rooms/{room}/receipt/m.read/{first}"), json!({})).await.ok();
    let found = page(&alice, "").await;
    assert_eq!(bodies(&found), ["you", "first"]);
    let read: Vec<&Value> =
        found["notifications"].as_array().unwrap().iter().map(|one| &one["read"]).collect();
    assert_eq!(read, [&json!(false), &json!(true)]);
    let loud = page(&alice, "?only=highlight").await;
    assert_eq!(bodies(&loud), ["you"]);
    assert!(
        loud["notifications"][0]["actions"]
            .as_array()
            .unwrap()
            .contains(&json!({ "set_tweak": "highlight" }))
    );
    let redact = format!("/rooms/{room}/redact/{first}/3");
    bob.put(&redact, json!({})).await.ok();
    assert_eq!(bodies(&page(&alice, "").await), ["you"], "what was taken back");
    let rule = format!("/pushrules/global/room/{room}");
    alice.put(&rule, json!({ "actions": [] })).await.ok();
    bob.say(&room, "4", "muted").await;
    assert_eq!(bodies(&page(&alice, "").await), ["you"], "a mention is louder than a muted room");
    let ignored = json!({ "ignored_users": { &bob.id: {} } });
    alice.put(&format!("/user/{}/account_data/m.ignored_user_list", alice.id), ignored).await.ok();
    assert_eq!(bodies(&page(&alice, "").await), Vec::<&str>::new());
}

#[tokio::test]
async fn nobody_is_told_what_they_may_not_see() {
    let home = Home::new().await;
    let (alice, bob, eve) = (home.user("alice").await, home.user("bob").await, home.user("eve").await);
    let room = bob.room(json!({ "preset": "private_chat" })).await;
    bob.say(&room, "1", "before").await;
    bob.post(&format!("/rooms/{room}/invite"), json!({ "user_id": alice.id })).await.ok();
    assert_eq!(bodies(&page(&alice, "").await), ["m.room.member"], "the invite itself");
    bob.say(&room, "2", "while invited").await;
    alice.post(&format!("/join/{room}"), json!({})).await.ok();
    bob.say(&room, "3", "inside").await;
    alice.post(&format!("/rooms/{room}/leave"), json!({})).await.ok();
    bob.say(&room, "4", "after").await;
    assert_eq!(bodies(&page(&alice, "").await), ["inside", "m.room.member"]);
    let last = page(&alice, "?limit=1").await;
    let stolen = page(&eve, &format!("?from={}", last["next_token"].as_str().unwrap())).await;
    assert_eq!(bodies(&stolen), Vec::<&str>::new(), "a token of somebody else opens nothing");
    alice.post(&format!("/rooms/{room}/forget"), json!({})).await.ok();
    assert_eq!(bodies(&page(&alice, "").await), Vec::<&str>::new());
}

#[tokio::test]
async fn bad_questions_about_notifications_are_refused() {
    let home = Home::with("client.rates.search = { per_second = 0.0001, burst = 6 }").await;
    let alice = home.user("alice").await;
    home.call("", "GET", "/notifications", Value::Null).await.refused(401, "M_MISSING_TOKEN");
    for query in ["?from=c1_1_a-1", "?from=n1_1", "?only=quiet", "?limit=x"] {
        alice.get(&format!("/notifications{query}")).await.refused(400, "M_INVALID_PARAM");
    }
    let mut last = 200;
    assert_eq!(page(&alice, "?limit=99999999").await, json!({ "notifications": [] }));
    for _ in 0..6 {
        last = alice.get("/notifications").await.status.as_u16();
    }
    assert_eq!(last, 429);
}
