//! Kicks and bans that redact (MSC4293).

use chappe_store::Status;
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::{Map, Value, json};

use super::net::{ALICE, BOB, Net, actor, join, say, state, status, user};
use crate::{Change, REDACT_EVENTS, Rooms};

async fn two(net: &Net) -> (Rooms, Rooms, OwnedRoomId) {
    net.couple(json!({ "preset": "public_chat", "room_version": "11" })).await
}

fn wiping(redact: Value) -> Map<String, Value> {
    Map::from_iter([("reason".to_owned(), json!("flooding")), (REDACT_EVENTS.to_owned(), redact)])
}

async fn redacted_because(rooms: &Rooms, room: &OwnedRoomId, event: &OwnedEventId) -> Option<String> {
    let view = rooms.view(room).await.unwrap();
    let num = view.reader.event_num(view.nid, event).await.unwrap().unwrap();
    let event = view.load_one(num).await.unwrap();
    let by = event.meta.redacted_by.some()?;
    assert_eq!(event.pdu.content().get(), "{}");
    Some(view.load_one(by).await.unwrap().pdu.event_id().to_string())
}

async fn member(rooms: &Rooms, room: &OwnedRoomId, who: &str) -> String {
    let view = rooms.view(room).await.unwrap();
    let event = view.current("m.room.member".into(), who).await.unwrap().unwrap();
    event.pdu.event_id().to_string()
}

#[tokio::test]
async fn a_ban_redacts_what_was_said_since_coming_in() {
    let net = Net::default();
    let (a, b, room) = two(&net).await;
    let before = say(&b, BOB, &room, "A").await;
    b.leave(&actor(BOB), &room, None).await.unwrap();
    net.deliver().await;
    join(&b, BOB, &room).await;
    let first = say(&b, BOB, &room, "D").await;
    let named = json!({ "membership": "join", "displayname": "Bobby" });
    b.send(&actor(BOB), &room, state("m.room.member", BOB, &named), None).await.unwrap();
    let last = say(&b, BOB, &room, "E").await;
    net.deliver().await;
    let others = say(&a, ALICE, &room, "hello").await;
    // Bob says something that comes late.
    let late = say(&b, BOB, &room, "F").await;
    a.change_saying(&actor(ALICE), &room, &user(BOB), Change::Ban, wiping(json!(true))).await.unwrap();
    net.deliver().await;
    let ban = member(&a, &room, BOB).await;
    for rooms in [&a, &b] {
        for event in [&first, &last] {
            assert_eq!(redacted_because(rooms, &room, event).await.as_ref(), Some(&ban));
        }
        for event in [&before, &others] {
            assert_eq!(redacted_because(rooms, &room, event).await, None);
        }
    }
    assert_eq!(redacted_because(&a, &room, &late).await.as_ref(), Some(&ban), "late and soft-failed");
    assert_eq!(status(&a, &room, &late).await, Status::SoftFailed);
}

/// Most of them take no ban for a redaction.
#[tokio::test]
async fn a_ban_leaves_what_other_servers_judge_by() {
    let net = Net::default();
    let (a, b, room) = net.couple(json!({ "preset": "public_chat", "room_version": "10" })).await;
    let levels = |invite: u32| json!({ "users": { ALICE: 100, BOB: 99 }, "invite": invite });
    a.send(&actor(ALICE), &room, state("m.room.power_levels", "", &levels(50)), None).await.unwrap();
    net.deliver().await;
    let set = async |kind: &str, content: Value| {
        b.send(&actor(BOB), &room, state(kind, "", &content), None).await.unwrap()
    };
    let topic = set("m.room.topic", json!({ "topic": "spam" })).await;
    let list = set("m.room.server_acl", json!({ "allow": ["*"] })).await;
    let levels = set("m.room.power_levels", levels(60)).await;
    net.deliver().await;
    a.change_saying(&actor(ALICE), &room, &user(BOB), Change::Ban, wiping(json!(true))).await.unwrap();
    assert_eq!(redacted_because(&a, &room, &topic).await, Some(member(&a, &room, BOB).await));
    for event in [&list, &levels] {
        assert_eq!(redacted_because(&a, &room, event).await, None);
    }
}

#[tokio::test]
async fn only_kicks_and_bans_by_who_may_redact_count() {
    let net = Net::default();
    let (a, b, room) = two(&net).await;
    let said = say(&b, BOB, &room, "A").await;
    net.deliver().await;
    let levels = json!({ "users": { ALICE: 50 }, "redact": 60, "ban": 50, "kick": 50 });
    let by_alice = async |change, redact: Value| {
        a.change_saying(&actor(ALICE), &room, &user(BOB), change, wiping(redact)).await.unwrap();
        net.deliver().await;
    };
    by_alice(Change::Kick, json!(false)).await;
    assert_eq!(redacted_because(&a, &room, &said).await, None, "not asked for");
    join(&b, BOB, &room).await;
    let said = say(&b, BOB, &room, "B").await;
    net.deliver().await;
    let leave = json!({ "membership": "leave", REDACT_EVENTS: true });
    b.send(&actor(BOB), &room, state("m.room.member", BOB, &leave), None).await.unwrap();
    net.deliver().await;
    assert_eq!(redacted_because(&a, &room, &said).await, None, "went by himself");
    by_alice(Change::Ban, json!(true)).await;
    assert_eq!(redacted_because(&a, &room, &said).await, None, "was out already");
    a.change(&actor(ALICE), &room, &user(BOB), Change::Unban, None).await.unwrap();
    join(&b, BOB, &room).await;
    let said = say(&b, BOB, &room, "C").await;
    net.deliver().await;
    a.send(&actor(ALICE), &room, state("m.room.power_levels", "", &levels), None).await.unwrap();
    by_alice(Change::Kick, json!(true)).await;
    assert_eq!(redacted_because(&a, &room, &said).await, None, "may kick and not redact");
}
