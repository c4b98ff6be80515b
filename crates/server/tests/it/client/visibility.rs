//! History visibility at the event: whatever way one reads a room, it shows the same.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::home::{Home, User};

const SLIDING: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";

/// What is said under each visibility, in this order; too long to occur in a random id.
const SAID: [(&str, &str); 4] = [
    ("world_readable", "WORLDwide1"),
    ("shared", "SHAREDall2"),
    ("invited", "INVITEDto3"),
    ("joined", "JOINEDin44"),
];

/// A room whose history is visible in turn to everybody, members, those invited, those who were there; then to everybody.
struct Stage<'a> {
    room: String,
    root: String,
    events: Vec<String>,
    /// Each with what they may know.
    readers: Vec<(User<'a>, &'static [&'static str])>,
}

async fn visible(alice: &User<'_>, room: &str, visibility: &str) {
    let path = format!("/rooms/{room}/state/m.room.history_visibility");
    alice.put(&path, json!({ "history_visibility": visibility })).await.ok();
}

impl<'a> Stage<'a> {
    async fn new(home: &'a Home) -> Self {
        let (alice, early) = (home.user("alice").await, home.user("early").await);
        let (late, guest) = (home.user("late").await, home.user("guest").await);
        let (gone, stranger) = (home.user("gone").await, home.user("stranger").await);
        let room = alice.room(json!({ "preset": "public_chat" })).await;
        let join = format!("/join/{room}");
        for user in [&early, &gone] {
            user.post(&join, json!({})).await.ok();
        }
        gone.post(&format!("/rooms/{room}/leave"), json!({})).await.ok();
        alice.post(&format!("/rooms/{room}/invite"), json!({ "user_id": guest.id })).await.ok();
        visible(&alice, &room, "world_readable").await;
        let root = alice.say(&room, "root", "mot").await;
        let mut events = Vec::new();
        for (visibility, word) in SAID {
            visible(&alice, &room, visibility).await;
            let content = json!({
                "msgtype": "m.text", "body": format!("mot {word}"),
                "m.relates_to": { "rel_type": "m.thread", "event_id": root },
            });
            let said = alice.put(&format!("/rooms/{room}/send/m.room.message/{word}"), content).await.ok();
            events.push(said["event_id"].as_str().unwrap().to_owned());
        }
        visible(&alice, &room, "world_readable").await;
        for user in [&late, &guest] {
            user.post(&join, json!({})).await.ok();
        }
        let readers: Vec<(User<'_>, &[&str])> = vec![
            (early, &["WORLDwide1", "SHAREDall2", "INVITEDto3", "JOINEDin44"]),
            (guest, &["WORLDwide1", "SHAREDall2", "INVITEDto3"]),
            (late, &["WORLDwide1", "SHAREDall2"]),
            (gone, &["WORLDwide1"]),
            (stranger, &["WORLDwide1"]),
        ];
        Self { room, root, events, readers }
    }

    /// Every way to read what was said, as method, path and body; whether it shows all that one may know to members.
    fn ways(&self) -> Vec<(&'static str, String, Value, bool)> {
        let Self { room, root, .. } = self;
        let (get, none) = ("GET", Value::Null);
        let v1 = format!("/_matrix/client/v1/rooms/{room}");
        let everything = "%7B%22room%22:%7B%22timeline%22:%7B%22limit%22:100%7D%7D%7D";
        let criteria = json!({ "search_term": "mot", "filter": { "rooms": [room] } });
        let window = json!({ "timeline_limit": 50, "required_state": [["*", "*"]] });
        let list = json!({ "ranges": [[0, 9]], "timeline_limit": 50, "required_state": [["*", "*"]] });
        vec![
            (get, format!("/rooms/{room}/messages?dir=b&limit=100"), none.clone(), true),
            (get, format!("/rooms/{room}/messages?dir=f&limit=100"), none.clone(), true),
            (get, format!("/rooms/{room}/context/{root}?limit=100"), none.clone(), true),
            (get, format!("{v1}/relations/{root}?limit=100"), none.clone(), true),
            (get, format!("{v1}/relations/{root}/m.thread?recurse=true&limit=100"), none.clone(), true),
            (get, format!("{v1}/threads?limit=100"), none.clone(), false),
            (get, format!("/rooms/{room}/initialSync?limit=100"), none.clone(), true),
            (get, "/initialSync?limit=100".to_owned(), none.clone(), true),
            (get, format!("/sync?timeout=0&filter={everything}"), none.clone(), true),
            (get, "/notifications?limit=100".to_owned(), none.clone(), false),
            (get, format!("/rooms/{room}/event/{root}"), none.clone(), false),
            (get, format!("/rooms/{room}/state"), none.clone(), false),
            (get, format!("{v1}/hierarchy"), none.clone(), false),
            (get, format!("/_matrix/client/v1/room_summary/{room}"), none.clone(), false),
            (get, format!("/events?room_id={room}&timeout=0"), none, false),
            ("POST", "/search".to_owned(), json!({ "search_categories": { "room_events": criteria } }), true),
            ("POST", format!("{SLIDING}?timeout=0"), json!({ "lists": { "all": list } }), true),
            (
                "POST",
                format!("{SLIDING}?timeout=0"),
                json!({ "conn_id": "one", "room_subscriptions": { room.clone(): window } }),
                true,
            ),
        ]
    }
}

fn words(answer: &Value) -> BTreeSet<&'static str> {
    let text = answer.to_string();
    SAID.into_iter().map(|(_, word)| word).filter(|word| text.contains(word)).collect()
}

#[tokio::test]
async fn every_way_to_read_shows_what_was_visible_to_whoever_asks() {
    let home = Home::new().await;
    let stage = Stage::new(&home).await;
    let mut wrong = Vec::new();
    for (index, (reader, known)) in stage.readers.iter().enumerate() {
        let may: BTreeSet<&str> = known.iter().copied().collect();
        let is_member = index < 3;
        for (method, path, body, whole) in stage.ways() {
            let answer = reader.call(method, &path, body).await;
            let seen = words(&answer.json);
            let enough = !(whole && is_member) || seen == may;
            if !seen.is_subset(&may) || !enough {
                wrong.push(format!("{method} {path} shows {seen:?} to {}: {}", reader.id, answer.status));
            }
        }
        for (event, (_, word)) in stage.events.iter().zip(SAID) {
            for path in [
                format!("/rooms/{}/event/{event}", stage.room),
                format!("/rooms/{}/context/{event}?limit=0", stage.room),
                format!("/events/{event}"),
            ] {
                let answer = reader.get(&path).await;
                let right = if may.contains(word) {
                    answer.status == 200 && words(&answer.json).contains(word)
                } else {
                    answer.status.is_client_error() && words(&answer.json).is_empty()
                };
                if !right {
                    let said = format!("{} {}", answer.status, answer.json);
                    wrong.push(format!("{path} ({word}) to {}: {said:.200}", reader.id));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn state_and_members_at_a_place_are_for_those_who_may_see_it() {
    let home = Home::new().await;
    let (alice, gone, late) = (home.user("alice").await, home.user("gone").await, home.user("late").await);
    let room = alice.room(json!({ "preset": "public_chat" })).await;
    visible(&alice, &room, "joined").await;
    gone.post(&format!("/join/{room}"), json!({})).await.ok();
    let topic = format!("/rooms/{room}/state/m.room.topic");
    alice.put(&topic, json!({ "topic": "WORLDwide1" })).await.ok();
    gone.post(&format!("/rooms/{room}/leave"), json!({})).await.ok();
    let (_, before) = alice.sync("").await;
    alice.put(&topic, json!({ "topic": "SHAREDall2" })).await.ok();
    late.post(&format!("/join/{room}"), json!({})).await.ok();
    assert_eq!(words(&gone.get(&format!("/rooms/{room}/state")).await.ok()), BTreeSet::from(["WORLDwide1"]));
    assert_eq!(gone.get(&topic).await.ok()["topic"], "WORLDwide1");
    for path in [format!("/rooms/{room}/members"), format!("/rooms/{room}/initialSync")] {
        let said = gone.get(&path).await.ok().to_string();
        assert!(!said.contains("@late:"), "{path}: {said}");
    }
    assert!(late.get(&format!("/rooms/{room}/state")).await.ok().to_string().contains("SHAREDall2"));
    let then = alice.get(&format!("/rooms/{room}/members?at={before}")).await.ok().to_string();
    assert!(!then.contains("@late:"), "{then}");
    home.user("stranger")
        .await
        .get(&format!("/rooms/{room}/members?at={before}"))
        .await
        .refused(403, "M_FORBIDDEN");
}
