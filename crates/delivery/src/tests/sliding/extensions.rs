//! Extensions: receipts, messages for the device, threads.

use std::time::Duration;

use chappe_store::{
    LogEntry, Tx,
    receipts::{ReceiptKey, ReceiptKind},
};
use ruma::{UserId, events::receipt::ReceiptThread};
use serde_json::{Value, json};

use super::{LONG, ask, next, two, window};
use crate::{
    Error, ExtensionsAsk, Scope, SlidingAnswer, ToDeviceAsk,
    tests::{
        house::{House, gist, values},
        rooms::{assert_told, read_by_many},
    },
};

#[tokio::test]
async fn receipts_are_told_whatever_the_follower_knows_already() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    bob.read(&room, &alice.say(&room, "one").await).await;
    let nid = house.store.read().room_nid(&room).await.unwrap().unwrap();
    let signal = house.delivery.0.wake.attach(&alice.id).await.unwrap();
    // The follower is ahead of the snapshot: the user's membership has changed since.
    let ahead = (true, chappe_store::Position(u64::MAX));
    signal.rooms.lock().insert(nid, ahead);
    let mut request = window(&alice, 9, ask(1, &[]));
    request.extensions.receipts = Some(Scope::default());
    assert!(next(&house, &mut request).await.extensions.receipts.contains_key(&room));
    let two = alice.say(&room, "two").await;
    bob.read(&room, &two).await;
    signal.rooms.lock().insert(nid, ahead);
    assert!(next(&house, &mut request).await.extensions.receipts[&room].get().contains(two.as_str()));
}

#[tokio::test]
async fn of_receipts_for_what_is_shown_the_latest_and_the_own_are_told() {
    let house = House::new();
    let alice = house.user("alice").await;
    let room = alice.room(&[]).await;
    let event = read_by_many(&house, &alice, &room).await;
    let mut request = window(&alice, 9, ask(1, &[]));
    request.extensions.receipts = Some(Scope::default());
    let receipts = next(&house, &mut request).await.extensions.receipts;
    assert_told(std::slice::from_ref(&receipts[&room]), &event, &alice);
    let reader = house.store.read();
    let nid = reader.room_nid(&room).await.unwrap().unwrap();
    let last = reader.last_receipt(nid).await.unwrap().unwrap();
    for (after, found) in [(0, 3), (last.0 - 1, 3), (last.0, 0)] {
        let after = chappe_store::Position(after);
        assert_eq!(reader.latest_receipts(nid, after, 3).await.unwrap().len(), found);
    }
}

#[tokio::test]
async fn receipts_for_what_is_shown_later_come_with_it() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let carol = house.user("carol").await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    carol.join(&room).await;
    let first = alice.say(&room, "1").await;
    bob.read(&room, &first).await;
    carol.read(&room, &first).await;
    let mut last = first.clone();
    for n in 2..=20 {
        last = alice.say(&room, &n.to_string()).await;
    }
    let mut request = window(&alice, 9, ask(1, &[]));
    request.extensions.receipts = Some(Scope::default());
    let begun = next(&house, &mut request).await.extensions.receipts;
    assert!(begun.get(&room).is_none_or(|told| !told.get().contains(first.as_str())));
    carol.read(&room, &last).await;
    request.subscriptions.insert(room.clone(), ask(20, &[]));
    let answer = next(&house, &mut request).await;
    assert!(answer.rooms[&room].expanded);
    let told = values(std::slice::from_ref(&answer.extensions.receipts[&room])).remove(0);
    for (event, reader) in [(&first, &bob), (&last, &carol)] {
        assert!(told["content"][event.as_str()]["m.read"].get(reader.id.as_str()).is_some(), "{told}");
    }
    assert!(next(&house, &mut request).await.extensions.receipts.is_empty(), "told once");
}

#[tokio::test]
async fn of_receipts_in_two_threads_for_one_event_none_is_lost() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let (room, other) = (alice.room(&[]).await, alice.room(&[]).await);
    bob.join(&room).await;
    bob.join(&other).await;
    let (event, elsewhere) = (alice.say(&room, "root").await, alice.say(&other, "other").await);
    let mut request = window(&alice, 9, ask(1, &[]));
    request.extensions.receipts = Some(Scope::default());
    next(&house, &mut request).await;
    bob.read_thread(&room, &event, ReceiptThread::Thread(event.clone())).await;
    bob.read_thread(&room, &event, ReceiptThread::Main).await;
    bob.read(&other, &elsewhere).await;
    let thread = |answer: &SlidingAnswer| {
        let told = values(std::slice::from_ref(&answer.extensions.receipts[&room])).remove(0);
        told["content"][event.as_str()]["m.read"][bob.id.as_str()]["thread_id"].clone()
    };
    request.timeout = LONG;
    let first = next(&house, &mut request).await;
    let second = next(&house, &mut request).await;
    assert_eq!((thread(&first), thread(&second)), (json!(event), json!("main")));
    let told = |answer: &SlidingAnswer| answer.extensions.receipts.contains_key(&other);
    assert_eq!((told(&first), told(&second)), (false, true), "what is not told yet comes with it");
    request.timeout = Duration::ZERO;
    assert!(next(&house, &mut request).await.extensions.receipts.is_empty());
    request.pos = None;
    assert_eq!(thread(&next(&house, &mut request).await), json!("main"), "where one has to do");
}

#[tokio::test]
async fn receipts_for_one_event_in_many_threads_are_told_at_once_and_hold_up_no_others() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let (room, other) = (alice.room(&[]).await, alice.room(&[]).await);
    bob.join(&room).await;
    bob.join(&other).await;
    let (event, elsewhere) = (alice.say(&room, "one").await, alice.say(&other, "other").await);
    let mut request = window(&alice, 9, ask(1, &[]));
    request.extensions.receipts = Some(Scope::default());
    next(&house, &mut request).await;
    let nid = house.store.read().room_nid(&room).await.unwrap().unwrap();
    // As another server may send them, which nobody asks whether there are such threads.
    for number in 10..60 {
        let (user, thread) = (bob.id.clone(), format!("${number}"));
        let mut tx = Tx::new();
        tx.log(LogEntry::Receipt { room: nid.0, user: user.clone(), private: false, local: false });
        tx.put_receipt(nid, &ReceiptKey { user, kind: ReceiptKind::Public, thread }, None, (&event, 1));
        house.store.commit(tx).await.unwrap();
    }
    bob.read(&other, &elsewhere).await;
    request.timeout = LONG;
    let receipts = next(&house, &mut request).await.extensions.receipts;
    let told = values(std::slice::from_ref(&receipts[&room])).remove(0);
    assert_eq!(told["content"][event.as_str()]["m.read"][bob.id.as_str()]["thread_id"], "$59");
    assert!(receipts.contains_key(&other));
    request.timeout = Duration::ZERO;
    assert!(next(&house, &mut request).await.extensions.receipts.is_empty());
}

#[tokio::test]
async fn receipts_in_two_threads_take_two_answers_however_many_there_are() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let event = alice.say(&room, "root").await;
    let mut request = window(&alice, 9, ask(1, &[]));
    request.extensions.receipts = Some(Scope::default());
    next(&house, &mut request).await;
    let nid = house.store.read().room_nid(&room).await.unwrap().unwrap();
    let user = |number: usize| UserId::parse(format!("@{number}:b.example")).unwrap();
    for (number, thread) in (0..20).flat_map(|number| [(number, "main"), (number, event.as_str())]) {
        let mut tx = Tx::new();
        tx.log(LogEntry::Receipt { room: nid.0, user: user(number), private: false, local: false });
        let (kind, thread) = (ReceiptKind::Public, thread.to_owned());
        tx.put_receipt(nid, &ReceiptKey { user: user(number), kind, thread }, None, (&event, 1));
        house.store.commit(tx).await.unwrap();
    }
    let told = |answer: &SlidingAnswer| {
        let told = values(std::slice::from_ref(&answer.extensions.receipts[&room])).remove(0);
        let readers = told["content"][event.as_str()]["m.read"].as_object().unwrap().clone();
        let thread = readers[user(0).as_str()]["thread_id"].clone();
        (readers.len(), thread)
    };
    request.timeout = LONG;
    assert_eq!(told(&next(&house, &mut request).await), (1, json!("main")));
    assert_eq!(told(&next(&house, &mut request).await), (20, json!(event)));
    request.timeout = Duration::ZERO;
    assert!(next(&house, &mut request).await.extensions.receipts.is_empty());
}

/// The messages for the device in an answer.
fn bodies(answer: &SlidingAnswer) -> Vec<Value> {
    let events = values(&answer.extensions.to_device.as_ref().unwrap().events);
    events.iter().map(|event| event["content"]["text"].clone()).collect()
}

#[tokio::test]
async fn messages_for_the_device_are_told_until_it_has_them() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let mut request = window(&bob, 9, ask(1, &[]));
    request.extensions.to_device = Some(ToDeviceAsk { since: None, limit: Some(2) });
    next(&house, &mut request).await;
    for n in 0..3 {
        crate::tests::devices::message(&alice, &bob, &n.to_string()).await;
    }
    let first = next(&house, &mut request).await;
    assert_eq!(bodies(&first), ["0", "1"]);
    let again = next(&house, &mut request).await;
    assert_eq!(bodies(&again), ["0", "1"], "not acknowledged yet");
    let since = again.extensions.to_device.map(|to_device| to_device.next_batch);
    request.extensions.to_device = Some(ToDeviceAsk { since, limit: Some(2) });
    request.timeout = LONG;
    let rest = next(&house, &mut request).await;
    assert_eq!(bodies(&rest), ["2"], "what lags behind does not wait");
    request.timeout = Duration::ZERO;
    let since = rest.extensions.to_device.map(|to_device| to_device.next_batch);
    request.extensions.to_device = Some(ToDeviceAsk { since, limit: None });
    assert_eq!(bodies(&next(&house, &mut request).await), [""; 0]);
    request.pos = None;
    request.extensions.to_device = Some(ToDeviceAsk::default());
    assert_eq!(bodies(&next(&house, &mut request).await), [""; 0], "what was acknowledged is gone");
    let future = Some(crate::Received::up_to(chappe_store::Position(u64::MAX)));
    request.extensions.to_device = Some(ToDeviceAsk { since: future, limit: None });
    assert!(matches!(house.delivery.sliding_sync(&request).await, Err(Error::BadToken)));
}

#[tokio::test]
async fn a_request_that_asks_for_no_messages_takes_none_away() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let after = |answer: &SlidingAnswer, limit| {
        let since = answer.extensions.to_device.as_ref().map(|to_device| to_device.next_batch);
        Some(ToDeviceAsk { since, limit })
    };
    let mut request = window(&bob, 9, ask(1, &[]));
    request.extensions.to_device = Some(ToDeviceAsk::default());
    let first = next(&house, &mut request).await;
    request.extensions.to_device = None;
    for n in 0..3 {
        crate::tests::devices::message(&alice, &bob, &n.to_string()).await;
    }
    next(&house, &mut request).await;
    request.extensions.to_device = after(&first, Some(2));
    let page = next(&house, &mut request).await;
    assert_eq!(bodies(&page), ["0", "1"], "what came before the answer without messages");
    request.extensions.to_device = None;
    next(&house, &mut request).await;
    request.extensions.to_device = after(&page, Some(2));
    let rest = next(&house, &mut request).await;
    assert_eq!(bodies(&rest), ["2"], "what did not fit the page");
    request.extensions.to_device = after(&rest, Some(2));
    assert_eq!(bodies(&next(&house, &mut request).await), [""; 0]);
}

#[tokio::test]
async fn extensions_tell_of_the_rooms_of_the_window() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let (near, far) = (alice.room(&[]).await, alice.room(&[]).await);
    bob.join(&far).await;
    bob.join(&near).await;
    let said = alice.say(&near, "hello").await;
    bob.read(&near, &said).await;
    for room in [&near, &far] {
        let set = |tags: &mut serde_json::Map<_, _>| drop(tags.insert("u.t".to_owned(), json!({})));
        house.accounts.update_tags(&alice.id, room, set).await.unwrap();
        house.delivery.typing().set_local(room, &bob.id, Some(LONG)).await.unwrap();
    }
    let mut request = window(&alice, 0, ask(1, &[]));
    let scope = Some(Scope::default());
    request.extensions = ExtensionsAsk {
        account_data: scope.clone(),
        receipts: scope.clone(),
        typing: scope,
        e2ee: true,
        ..ExtensionsAsk::default()
    };
    let first = next(&house, &mut request).await.extensions;
    let rooms = [&near];
    assert_eq!(first.typing.keys().collect::<Vec<_>>(), rooms);
    assert_eq!(first.receipts.keys().collect::<Vec<_>>(), rooms);
    assert_eq!(first.room_account_data.keys().collect::<Vec<_>>(), rooms);
    assert!(gist(&first.account_data).contains(&"m.push_rules".to_owned()));
    let quiet = next(&house, &mut request).await.extensions;
    assert!(quiet.typing.is_empty() && quiet.receipts.is_empty() && quiet.room_account_data.is_empty());
    let later = alice.say(&near, "more").await;
    bob.read(&near, &later).await;
    house.delivery.typing().set_local(&near, &bob.id, None).await.unwrap();
    let carol = house.user("carol").await;
    carol.join(&far).await;
    let second = next(&house, &mut request).await;
    assert!(second.extensions.receipts[&near].get().contains(later.as_str()));
    assert_eq!(
        values(std::slice::from_ref(&second.extensions.typing[&near]))[0]["content"]["user_ids"],
        json!([])
    );
    let lists = second.extensions.e2ee.unwrap().lists;
    assert_eq!(lists.changed, std::slice::from_ref(&carol.id), "also of rooms beyond the window");
    carol.leave(&far).await;
    let lists = next(&house, &mut request).await.extensions.e2ee.unwrap().lists;
    assert_eq!(lists.left, [carol.id]);
}

#[tokio::test]
async fn followed_threads_are_told() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    let mut request = window(&alice, 0, ask(1, &[]));
    request.extensions.threads = Some(2);
    next(&house, &mut request).await;
    let mut roots = Vec::new();
    for n in 0..3 {
        let root = alice.say(&room, &n.to_string()).await;
        house.rooms.subscribe_to_thread(&alice.id, &room, &root, None).await.unwrap();
        roots.push(root);
    }
    house.rooms.unsubscribe_from_thread(&alice.id, &room, &roots[1]).await.unwrap();
    let page = next(&house, &mut request).await.extensions.threads;
    let told: Vec<_> = page.changes.iter().map(|change| (change.root.clone(), change.automatic)).collect();
    assert_eq!(told, [(roots[1].clone(), None), (roots[2].clone(), Some(false))]);
    let rest = house
        .rooms
        .thread_subscriptions(&alice.id, chappe_store::Position::default(), page.more, 9)
        .await
        .unwrap();
    assert_eq!((rest.changes.len(), &rest.changes[0].root, rest.more), (1, &roots[0], None));
    assert!(next(&house, &mut request).await.extensions.threads.changes.is_empty());
    request.timeout = LONG;
    let unsubscribing = house.rooms.unsubscribe_from_thread(&alice.id, &room, &roots[0]);
    let (answer, _) = tokio::join!(house.delivery.sliding_sync(&request), unsubscribing);
    assert_eq!(answer.unwrap().extensions.threads.changes.len(), 1, "a waiting device is woken");
    let stranger = house.rooms.subscribe_to_thread(&bob.id, &room, &roots[0], None).await;
    assert!(matches!(stranger, Err(chappe_rooms::Error::NotFound(_))));
}
