//! Rooms with many attached users: who is told at once, and who when it is the room's turn.

use std::{collections::BTreeSet, time::Duration};

use chappe_rooms::Change;
use chappe_store::{LogEntry, Position, Tx};
use futures_util::future::join_all;
use ruma::{OwnedRoomId, RoomId};
use serde_json::json;

use super::{
    house::{House, Person, values},
    rooms::timeline,
    sliding::{ask, next, window},
};
use crate::{Delta, Scope, SyncRequest, SyncToken, wake::FEW};

const MANY: usize = FEW + 5;
const TURN: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(10);

/// A room with many in it, all of whom have synced.
async fn crowd(house: &House) -> (OwnedRoomId, Vec<Person<'_>>) {
    let mut people = Vec::new();
    for nth in 0..MANY {
        people.push(house.user(&format!("user{nth}")).await);
    }
    let room = people[0].room(&[]).await;
    for person in &people[1..] {
        person.join(&room).await;
    }
    for person in &people {
        person.sync(None).await;
    }
    (room, people)
}

async fn seen(person: &Person<'_>) -> SyncToken {
    person.sync(None).await.next
}

fn waiting(person: &Person<'_>, since: SyncToken, timeout: Duration) -> SyncRequest {
    let request = person.request(Some(since), json!({"presence": {"types": []}}));
    SyncRequest { timeout, ..request }
}

/// The next answer to somebody who waits, and after how long it comes.
async fn wait(person: &Person<'_>, since: SyncToken) -> (Delta, Duration) {
    let begun = person.house.world.instant();
    let delta = person.house.delivery.sync(&waiting(person, since, LONG)).await.unwrap();
    (delta, person.house.world.instant() - begun)
}

fn is_turn(took: Duration) -> bool {
    took > Duration::ZERO && took < 2 * TURN
}

/// Whose receipts are told.
fn readers(delta: &Delta, room: &RoomId) -> BTreeSet<String> {
    let events = delta.joined.get(room).map(|room| values(&room.ephemeral)).unwrap_or_default();
    let receipts = events.into_iter().filter(|event| event["type"] == "m.receipt");
    let of_events = receipts.flat_map(|event| event["content"].as_object().unwrap().clone());
    of_events
        .flat_map(|(_, kinds)| kinds["m.read"].as_object().unwrap().clone())
        .map(|(user, _)| user)
        .collect()
}

/// Who is told to type.
fn typists(delta: &Delta, room: &RoomId) -> serde_json::Value {
    let events = values(&delta.joined[room].ephemeral);
    let typing = events.into_iter().find(|event| event["type"] == "m.typing");
    typing.unwrap()["content"]["user_ids"].clone()
}

/// What somebody is told who waits again and again until so much time is over.
async fn answers(person: &Person<'_>, mut since: SyncToken, time: Duration) -> Vec<Delta> {
    let end = person.house.world.instant() + time;
    let mut answers = Vec::new();
    loop {
        let left = end.saturating_duration_since(person.house.world.instant());
        if left.is_zero() {
            return answers;
        }
        let delta = person.house.delivery.sync(&waiting(person, since, left)).await.unwrap();
        assert!(delta.next.position >= since.position);
        since = delta.next;
        if !delta.is_empty() {
            answers.push(delta);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn many_who_read_a_message_wake_those_who_wait_once_a_turn() {
    let house = House::new();
    let (room, people) = crowd(&house).await;
    let event = people[0].say(&room, "read this").await;
    let mut waits = Vec::new();
    for person in &people {
        waits.push(answers(person, seen(person).await, 5 * TURN));
    }
    let reads = async {
        for person in &people {
            person.read(&room, &event).await;
        }
    };
    let (all, ()) = tokio::join!(join_all(waits), reads);
    let count: usize = all.iter().map(Vec::len).sum();
    // Each for the own receipt, and in a turn for those of the others.
    assert!(count <= 3 * MANY, "{count} answers");
    for answers in all {
        let told: BTreeSet<String> = answers.iter().flat_map(|delta| readers(delta, &room)).collect();
        assert_eq!(told.len(), MANY, "each hears of everybody in the end");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_turn_goes_with_a_message_and_to_whoever_does_not_wait() {
    let house = House::new();
    let (room, people) = crowd(&house).await;
    let (alice, bob, carol) = (&people[0], &people[1], &people[2]);
    let one = alice.say(&room, "one").await;
    let since = seen(carol).await;
    let of_bob = BTreeSet::from([bob.id.to_string()]);
    bob.read(&room, &one).await;
    assert_eq!(readers(&carol.sync(Some(since)).await, &room), of_bob);
    let ((delta, took), two) = tokio::join!(wait(carol, since), alice.say(&room, "two"));
    assert_eq!((timeline(&delta, &room), took), (vec!["two".to_owned()], Duration::ZERO));
    assert_eq!(readers(&delta, &room), of_bob);
    let (delta, took) = wait(carol, delta.next).await;
    assert!(delta.is_empty() && took >= LONG, "the turn has nothing to tell any more");
    bob.read(&room, &two).await;
    let (delta, took) = wait(carol, delta.next).await;
    assert!(is_turn(took), "{took:?}");
    assert_eq!(readers(&delta, &room), of_bob);
}

#[tokio::test(start_paused = true)]
async fn who_comes_or_goes_hears_of_it_at_once_and_so_does_who_made_them() {
    let house = House::new();
    let (room, people) = crowd(&house).await;
    let (alice, carol, dave, erin) = (&people[0], &people[2], &people[3], &people[4]);
    let (for_carol, for_dave) = (seen(carol).await, seen(dave).await);
    let ((told, late), (left, soon), ()) =
        tokio::join!(wait(carol, for_carol), wait(dave, for_dave), dave.leave(&room));
    assert!(left.left.contains_key(&room) && soon.is_zero(), "{soon:?}");
    assert_eq!(timeline(&told, &room), ["m.room.member"]);
    assert!(is_turn(late), "{late:?}");
    let (for_alice, for_erin) = (seen(alice).await, seen(erin).await);
    let ((told, late), (left, soon), (made, sooner), ()) = tokio::join!(
        wait(carol, told.next),
        wait(erin, for_erin),
        wait(alice, for_alice),
        alice.change(&room, erin, Change::Ban),
    );
    assert!(left.left.contains_key(&room) && soon.is_zero(), "{soon:?}");
    assert_eq!((timeline(&made, &room), sooner), (vec!["m.room.member".to_owned()], Duration::ZERO));
    assert_eq!(timeline(&told, &room), ["m.room.member"]);
    assert!(is_turn(late), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn who_types_is_told_in_the_turn_and_lost_to_nobody_who_is_woken_before() {
    let house = House::new();
    let (room, people) = crowd(&house).await;
    let (alice, bob, carol) = (&people[0], &people[1], &people[2]);
    let typing = house.delivery.typing();
    let since = seen(carol).await;
    let begins = async {
        for person in [alice, bob] {
            assert!(typing.set_local(&room, &person.id, Some(TURN * 60)).await.unwrap());
        }
    };
    let ((delta, took), ()) = tokio::join!(wait(carol, since), begins);
    assert!(is_turn(took), "{took:?}");
    assert_eq!(typists(&delta, &room), json!([alice.id, bob.id]));
    let ends = async {
        typing.set_local(&room, &alice.id, None).await.unwrap();
        // Wakes the user, and is not for this device.
        let mut tx = Tx::new();
        tx.log(LogEntry::ToDevice { user: carol.id.clone(), device: "E".into() });
        house.store.commit(tx).await.unwrap();
    };
    let ((delta, took), ()) = tokio::join!(wait(carol, delta.next), ends);
    assert_eq!((typists(&delta, &room), took), (json!([bob.id]), Duration::ZERO));
    typing.set_local(&room, &bob.id, None).await.unwrap();
    assert_eq!(typists(&carol.sync(Some(delta.next)).await, &room), json!([]), "who does not wait is told");
}

#[tokio::test(start_paused = true)]
async fn whose_devices_change_is_told_at_once_where_few_are() {
    let house = House::new();
    let (_, people) = crowd(&house).await;
    let (alice, bob, carol) = (&people[0], &people[1], &people[2]);
    bob.join(&alice.room(&[]).await).await;
    let wake = &house.delivery.0.wake;
    let before: Position = *house.store.visible().borrow();
    wake.reach(before).await.unwrap();
    let mut tx = Tx::new();
    tx.log(LogEntry::DeviceList { user: alice.id.clone() });
    let position = house.store.commit(tx).await.unwrap();
    wake.reach(position).await.unwrap();
    let is_told = async |person: &Person<'_>| {
        let signal = wake.attach(&person.id).await.unwrap();
        assert!(signal.has_gathered(before), "noted for everybody");
        !signal.is_quiet(before)
    };
    assert!(is_told(alice).await && is_told(bob).await && !is_told(carol).await);
    tokio::time::sleep(2 * TURN).await;
    assert!(is_told(carol).await);
}

#[tokio::test(start_paused = true)]
async fn who_encrypts_for_a_device_is_asked_of_all_rooms_at_once() {
    let house = House::new();
    let (_, people) = crowd(&house).await;
    let alice = &people[0];
    let reads = async || {
        tokio::time::sleep(2 * TURN).await;
        house.trips.take();
        let mut tx = Tx::new();
        tx.log(LogEntry::DeviceList { user: alice.id.clone() });
        house.store.commit(tx).await.unwrap();
        tokio::time::sleep(2 * TURN).await;
        house.trips.take_apart().1.reads()
    };
    let with_one = reads().await;
    let other = alice.room(&[]).await;
    for person in &people[1..] {
        person.join(&other).await;
    }
    assert_eq!(reads().await, with_one);
}

#[tokio::test(start_paused = true)]
async fn a_sliding_sync_keeps_to_the_turns() {
    let house = House::new();
    let (room, people) = crowd(&house).await;
    let (alice, bob, carol) = (&people[0], &people[1], &people[2]);
    let one = alice.say(&room, "one").await;
    let mut request = window(carol, 9, ask(1, &[]));
    request.extensions.receipts = Some(Scope::default());
    next(&house, &mut request).await;
    next(&house, &mut request).await;
    bob.read(&room, &one).await;
    request.timeout = LONG;
    let begun = house.world.instant();
    let receipt = next(&house, &mut request).await.extensions.receipts[&room].to_string();
    assert!(receipt.contains(bob.id.as_str()) && is_turn(house.world.instant() - begun));
    people[3].read(&room, &one).await;
    request.timeout = Duration::ZERO;
    let receipt = next(&house, &mut request).await.extensions.receipts[&room].to_string();
    assert!(receipt.contains(people[3].id.as_str()), "who does not wait is told");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_turn_holds_up_no_stop() {
    let house = House::new();
    let (room, people) = crowd(&house).await;
    people[1].read(&room, &people[0].say(&room, "one").await).await;
    tokio::task::yield_now().await;
    assert!(house.world.shut_down(Duration::from_millis(100)).await.is_empty());
}
