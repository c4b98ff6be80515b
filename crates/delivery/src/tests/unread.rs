//! What counts as unread: receipts, answers, coming in.

use chappe_rooms::Draft;
use ruma::{OwnedEventId, RoomId, events::receipt::ReceiptThread};
use serde_json::{Value, json};

use super::house::{House, Person};
use crate::Unread;

/// Changes what a person is called in a room.
pub(super) async fn rename(person: &Person<'_>, room: &RoomId, name: &str) {
    let content = json!({"membership": "join", "displayname": name}).as_object().unwrap().clone();
    let renamed = Draft::state("m.room.member".to_owned(), person.id.as_str(), content);
    person.house.rooms.send(&person.actor(), room, renamed, None).await.unwrap();
}

/// What a new device counts.
async fn counted(person: &Person<'_>, room: &RoomId) -> Unread {
    person.sync(None).await.joined[room].unread.clone()
}

async fn in_thread(person: &Person<'_>, room: &RoomId, kind: &str, relation: Value) -> OwnedEventId {
    person.send(room, kind, json!({"body": "there", "m.relates_to": relation})).await
}

#[tokio::test]
async fn whoever_answers_has_read_what_was_said_before_in_the_same_thread() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let start = bob.sync(None).await;
    let root = alice.say(&room, "root").await;
    let thread = json!({"rel_type": "m.thread", "event_id": root});
    let reply = in_thread(&alice, &room, "m.room.message", thread.clone()).await;
    let counts = |unread: &Unread| {
        let thread = unread.threads.get(&root).map_or(0, |counts| counts.notifications);
        (unread.main.notifications, thread)
    };
    let delta = bob.sync(Some(start.next)).await;
    assert_eq!(counts(&delta.joined[&room].unread), (1, 1));
    bob.say(&room, "an answer").await;
    let delta = bob.sync(Some(delta.next)).await;
    assert_eq!(counts(&delta.joined[&room].unread), (0, 1), "what was counted before is counted on");
    alice.say(&room, "again").await;
    assert_eq!(counts(&counted(&bob, &room).await), (1, 1));
    let liked = json!({"rel_type": "m.annotation", "event_id": reply, "key": "+1"});
    let like = in_thread(&bob, &room, "m.reaction", liked).await;
    let delta = bob.sync(Some(delta.next)).await;
    assert_eq!(counts(&delta.joined[&room].unread), (1, 0));
    let like = Draft::redaction(&like, None);
    house.rooms.send(&bob.actor(), &room, like, None).await.unwrap();
    assert_eq!(counts(&counted(&bob, &room).await), (1, 1), "what was taken back answers nothing");
    in_thread(&alice, &room, "m.room.message", thread).await;
    assert_eq!(counts(&counted(&bob, &room).await), (1, 2));
    assert_eq!(counts(&counted(&alice, &room).await), (0, 0));
}

#[tokio::test]
async fn a_new_name_leaves_unread_what_is() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let room = alice.room(&[]).await;
    alice.say(&room, "before bob came").await;
    bob.join(&room).await;
    let root = alice.say(&room, "one").await;
    let thread = json!({"rel_type": "m.thread", "event_id": root});
    in_thread(&alice, &room, "m.room.message", thread).await;
    for name in ["Bob", "Robert"] {
        rename(&bob, &room, name).await;
    }
    alice.say(&room, "two").await;
    assert_eq!(counted(&bob, &room).await.total.notifications, 3);
    bob.read_thread(&room, &root, ReceiptThread::Main).await;
    assert_eq!(counted(&bob, &room).await.total.notifications, 2, "only the main timeline up to there");
    bob.leave(&room).await;
    alice.say(&room, "while bob is away").await;
    bob.join(&room).await;
    alice.say(&room, "three").await;
    assert_eq!(counted(&bob, &room).await.total.notifications, 1, "one comes in by joining");
}

#[tokio::test]
async fn what_was_said_while_one_was_away_is_read_also_after_a_receipt() {
    let house = House::new();
    let (alice, bob, room) = house.couple().await;
    let first = alice.say(&room, "one").await;
    bob.read(&room, &first).await;
    alice.say(&room, "two").await;
    rename(&bob, &room, "Bob").await;
    assert_eq!(counted(&bob, &room).await.total.notifications, 1, "a new name brings nobody in");
    bob.leave(&room).await;
    alice.say(&room, "while bob is away").await;
    bob.join(&room).await;
    assert_eq!(counted(&bob, &room).await.total.notifications, 0);
    alice.say(&room, "three").await;
    assert_eq!(counted(&bob, &room).await.total.notifications, 1);
}
