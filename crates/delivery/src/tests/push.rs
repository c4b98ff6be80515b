//! Pushing: the gateway hears what the rules say and nothing more.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use chappe_accounts::OtherUsers;
use chappe_store::{Cursors, Tx};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use ruma::{
    EventId, OwnedRoomId,
    api::client::push::Pusher,
    push::{NewConditionalPushRule, NewPushRule},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    house::{House, Person, back_filled, by_fork, memberships},
    unread::rename,
};

/// What a gateway is told.
type Heard = mpsc::UnboundedReceiver<Value>;

/// A gateway that rejects what it is told to.
fn gateway(house: &House) -> (Heard, Arc<Mutex<Vec<String>>>) {
    let (heard, hear) = mpsc::unbounded_channel();
    let rejected: Arc<Mutex<Vec<String>>> = Arc::default();
    let answers = rejected.clone();
    let service = tower::service_fn(move |request: http::Request<Full<Bytes>>| {
        let (heard, answers) = (heard.clone(), answers.clone());
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let _ = heard.send(serde_json::from_slice(&body).unwrap());
            let answer = json!({ "rejected": *answers.lock() }).to_string();
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(answer))))
        }
    });
    house.net.route("push.example", &house.world, service);
    (hear, rejected)
}

async fn set_pusher(person: &Person<'_>, format: Option<&str>) {
    let mut data = json!({"url": "https://push.example/_matrix/push/v1/notify"});
    if let Some(format) = format {
        data["format"] = format.into();
    }
    let pusher: Pusher = serde_json::from_value(json!({
        "app_id": "app", "pushkey": "key", "kind": "http", "app_display_name": "App", "device_display_name": "D",
        "lang": "fr", "data": data,
    }))
    .unwrap();
    let accounts = &person.house.accounts;
    accounts.set_pusher(&person.id, Some("D".into()), &pusher, OtherUsers::Keep).await.unwrap();
}

/// Alice, Bob, and what is pushed to Bob.
async fn pushed(house: &House) -> (Person<'_>, Person<'_>, Heard) {
    let (hear, _) = gateway(house);
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    set_pusher(&bob, None).await;
    (alice, bob, hear)
}

/// Rooms of Alice's that Bob is in.
async fn shared<const N: usize>(alice: &Person<'_>, bob: &Person<'_>) -> [OwnedRoomId; N] {
    let mut rooms = Vec::new();
    for _ in 0..N {
        let room = alice.room(&[]).await;
        bob.join(&room).await;
        rooms.push(room);
    }
    rooms.try_into().unwrap()
}

/// How many rooms are unread by what is pushed next.
async fn badge(hear: &mut Heard) -> Value {
    hear.recv().await.unwrap()["notification"]["counts"]["unread"].clone()
}

/// What is said in a thread.
fn in_thread(root: &EventId) -> Value {
    let thread = json!({"rel_type": "m.thread", "event_id": root});
    json!({"msgtype": "m.text", "body": "in a thread", "m.relates_to": thread})
}

#[tokio::test]
async fn messages_reads_and_rejections() {
    let house = House::new();
    let (mut hear, rejected) = gateway(&house);
    let (alice, bob, room) = house.couple().await;
    set_pusher(&bob, None).await;
    bob.say(&room, "my own words are not pushed").await;
    let said = alice.say(&room, "hello").await;
    let heard = hear.recv().await.unwrap();
    let told = &heard["notification"];
    assert_eq!((&told["event_id"], &told["content"]["body"]), (&json!(said), &json!("hello")));
    assert_eq!((&told["counts"]["unread"], &told["devices"][0]["pushkey"]), (&json!(1), &json!("key")));
    assert!(told["devices"][0]["data"].get("url").is_none());
    bob.read(&room, &said).await;
    let heard = hear.recv().await.unwrap();
    assert_eq!(heard["notification"]["counts"]["unread"], 0);
    assert!(heard["notification"].get("event_id").is_none());
    rejected.lock().push("key".to_owned());
    alice.say(&room, "the last one").await;
    assert_eq!(hear.recv().await.unwrap()["notification"]["content"]["body"], "the last one");
    let mut visible = house.store.visible();
    while !house.accounts.pushers(&house.store.read(), &bob.id).await.unwrap().is_empty() {
        visible.changed().await.unwrap();
    }
}

#[tokio::test]
async fn what_was_said_before_the_room_begins_here_is_unread_to_nobody() {
    let house = House::new();
    let (mut hear, _) = gateway(&house);
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let [old, new] = shared(&alice, &bob).await;
    let joined = memberships(&bob, &old).await[0].1;
    let said = alice.say(&old, "long ago").await;
    let view = house.rooms.view(&old).await.unwrap();
    let said = view.reader.event_num(view.nid, &said).await.unwrap().unwrap();
    back_filled(&house, &old, &[joined, said]).await;
    set_pusher(&bob, None).await;
    alice.say(&new, "hello").await;
    assert_eq!(badge(&mut hear).await, 1);
}

#[tokio::test]
async fn invites_are_pushed_and_ids_alone_where_asked() {
    let house = House::new();
    let (mut hear, _) = gateway(&house);
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    set_pusher(&bob, Some("event_id_only")).await;
    let room = alice.room(&[&bob]).await;
    let heard = hear.recv().await.unwrap();
    assert_eq!(heard["notification"]["room_id"], json!(room));
    assert!(heard["notification"].get("content").is_none() && heard["notification"].get("sender").is_none());
}

#[tokio::test]
async fn badges_are_right_after_a_restart_and_not_counted_anew() {
    const ROOMS: u64 = 40;
    let house = House::new();
    let (alice, bob, mut hear) = pushed(&house).await;
    let mut rooms = Vec::new();
    for unread in 1..=ROOMS {
        let room = alice.room(&[]).await;
        bob.join(&room).await;
        alice.say(&room, "unread").await;
        assert_eq!(badge(&mut hear).await, unread);
        rooms.push(room);
    }
    let id = alice.id.clone();
    let house = house.restarted().await;
    let (mut hear, _) = gateway(&house);
    let alice = Person { house: &house, id, device: "D" };
    let _ = house.trips.take();
    alice.say(&rooms[0], "and more").await;
    assert_eq!(badge(&mut hear).await, ROOMS);
    let (_, followed) = house.trips.take_apart();
    assert!(followed.reads() < ROOMS, "{followed:?}");
}

#[tokio::test]
async fn badges_do_not_count_what_was_taken_back_or_left_behind() {
    let house = House::new();
    let (alice, bob, mut hear) = pushed(&house).await;
    let [first, second, third] = shared(&alice, &bob).await;
    let said = alice.say(&first, "taken back").await;
    assert_eq!(badge(&mut hear).await, 1);
    let redaction = chappe_rooms::Draft::redaction(&said, None);
    house.rooms.send(&alice.actor(), &first, redaction, None).await.unwrap();
    alice.say(&second, "left behind").await;
    assert_eq!(badge(&mut hear).await, 1);
    bob.leave(&second).await;
    assert_eq!(badge(&mut hear).await, 0);
    alice.say(&third, "new").await;
    assert_eq!(badge(&mut hear).await, 1);
}

#[tokio::test]
async fn what_is_said_in_an_unread_room_costs_each_listener_one_look() {
    const LISTENERS: usize = 40;
    let house = House::new();
    let (mut hear, _) = gateway(&house);
    let alice = house.user("alice").await;
    let room = alice.room(&[]).await;
    for number in 0..LISTENERS {
        let listener = house.user(&format!("listener{number}")).await;
        listener.join(&room).await;
        set_pusher(&listener, None).await;
    }
    let mut say = async |text: &str| {
        alice.say(&room, text).await;
        for _ in 0..LISTENERS {
            assert_eq!(badge(&mut hear).await, 1);
        }
    };
    say("unread").await;
    let _ = house.trips.take();
    say("and more").await;
    let (_, followed) = house.trips.take_apart();
    assert!(followed.reads() < 2 * LISTENERS as u64, "{followed:?}");
}

#[tokio::test]
async fn a_room_is_unread_however_much_that_notifies_nobody_was_said_since() {
    let house = House::new();
    let (alice, bob, mut hear) = pushed(&house).await;
    let [talk, other] = shared(&alice, &bob).await;
    let first = alice.say(&talk, "read").await;
    assert_eq!(badge(&mut hear).await, 1);
    let second = alice.say(&talk, "unread").await;
    assert_eq!(badge(&mut hear).await, 1);
    for number in 0..250 {
        let notice = json!({"msgtype": "m.notice", "body": number.to_string()});
        alice.send(&talk, "m.room.message", notice).await;
    }
    bob.read(&talk, &first).await;
    alice.say(&other, "unread too").await;
    assert_eq!(badge(&mut hear).await, 2);
    bob.read(&talk, &second).await;
    assert_eq!(badge(&mut hear).await, 1);
}

#[tokio::test]
async fn whoever_answers_has_read_what_was_said_before() {
    let house = House::new();
    let (alice, bob, mut hear) = pushed(&house).await;
    let [talk, other] = shared(&alice, &bob).await;
    let root = alice.say(&talk, "unread").await;
    assert_eq!(badge(&mut hear).await, 1);
    bob.say(&talk, "an answer").await;
    assert_eq!(badge(&mut hear).await, 0);
    alice.send(&talk, "m.room.message", in_thread(&root)).await;
    assert_eq!(badge(&mut hear).await, 1);
    bob.say(&talk, "no answer to that").await;
    alice.say(&other, "unread").await;
    assert_eq!(badge(&mut hear).await, 2);
    bob.send(&talk, "m.room.message", in_thread(&root)).await;
    assert_eq!(badge(&mut hear).await, 1);
}

#[tokio::test]
async fn a_new_name_is_no_answer_and_rooms_are_known_after_a_restart() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let [talk, other] = shared(&alice, &bob).await;
    alice.say(&talk, "unread").await;
    rename(&bob, &talk, "Bob").await;
    set_pusher(&bob, None).await;
    let (alice, bob) = (alice.id.clone(), bob.id.clone());
    let house = house.restarted().await;
    let (mut hear, _) = gateway(&house);
    let person = |id| Person { house: &house, id, device: "D" };
    person(alice).say(&other, "unread too").await;
    assert_eq!(badge(&mut hear).await, 2);
    person(bob).leave(&other).await;
    assert_eq!(badge(&mut hear).await, 1);
}

/// What is pushed first to a user who between two messages comes in, or has another name if in already, where push deals with
/// all of it at once.
async fn pushed_first(bob_is_in: bool) -> Value {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let room = alice.room(&[]).await;
    if bob_is_in {
        bob.join(&room).await;
    }
    set_pusher(&bob, None).await;
    let cursor = house.store.read().position();
    alice.say(&room, "before").await;
    if bob_is_in {
        rename(&bob, &room, "Bob").await;
    } else {
        bob.join(&room).await;
    }
    alice.say(&room, "after").await;
    assert!(house.world.shut_down(Duration::from_secs(10)).await.is_empty());
    let mut tx = Tx::new();
    tx.put::<Cursors>(&"push".to_owned(), &cursor.0);
    house.store.commit(tx).await.unwrap();
    let house = house.restarted().await;
    let (mut hear, _) = gateway(&house);
    hear.recv().await.unwrap()["notification"]["content"]["body"].clone()
}

#[tokio::test]
async fn whoever_comes_in_is_not_told_what_was_said_before() {
    assert_eq!(pushed_first(false).await, "after");
    assert_eq!(pushed_first(true).await, "before", "a new name brings nobody in");
}

#[tokio::test]
async fn what_was_said_before_somebody_came_in_is_not_pushed_where_only_members_may_know() {
    let house = House::new();
    let (mut hear, _) = gateway(&house);
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    set_pusher(&bob, None).await;
    let room = alice.room(&[]).await;
    alice.set(&room, "m.room.history_visibility", json!({"history_visibility": "joined"})).await;
    bob.join(&room).await;
    let joined = memberships(&bob, &room).await[0];
    let said = alice.say(&room, "once").await;
    assert_eq!(hear.recv().await.unwrap()["notification"]["content"]["body"], "once");
    // As if it had come by a fork, and is heard of again.
    by_fork(&house, &room, (&said, joined.1), None).await;
    alice.say(&room, "after it").await;
    assert_eq!(hear.recv().await.unwrap()["notification"]["content"]["body"], "after it");
}

#[tokio::test]
async fn a_room_whose_thread_is_no_longer_followed_is_not_unread() {
    let house = House::new();
    let (mut hear, _) = gateway(&house);
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let other_threads = json!({"kind": "io.element.msc4306.thread_subscription", "subscribed": false});
    let conditions = vec![serde_json::from_value(other_threads).unwrap()];
    let hush = NewConditionalPushRule::new("hush".to_owned(), conditions, Vec::new());
    house.accounts.set_push_rule(&bob.id, NewPushRule::Override(hush), None, None).await.unwrap();
    set_pusher(&bob, None).await;
    let [talk, other] = shared(&alice, &bob).await;
    let root = alice.say(&talk, "root").await;
    assert_eq!(badge(&mut hear).await, 1);
    bob.read(&talk, &root).await;
    assert_eq!(badge(&mut hear).await, 0);
    house.rooms.subscribe_to_thread(&bob.id, &talk, &root, None).await.unwrap();
    alice.send(&talk, "m.room.message", in_thread(&root)).await;
    assert_eq!(badge(&mut hear).await, 1);
    house.rooms.unsubscribe_from_thread(&bob.id, &talk, &root).await.unwrap();
    alice.say(&other, "unread").await;
    assert_eq!(badge(&mut hear).await, 1);
}

#[tokio::test]
async fn whoever_has_changed_nothing_has_the_settings_of_all() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let reader = house.store.read();
    let settings = async |who: &Person<'_>| house.delivery.settings(&reader, &who.id).await.unwrap();
    assert!(Arc::ptr_eq(&settings(&alice).await, &settings(&bob).await));
}
