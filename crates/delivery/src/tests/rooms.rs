//! What a device gets of rooms.

use chappe_rooms::Change;
use chappe_store::{
    Tx,
    receipts::{ReceiptKey, ReceiptKind},
};
use ruma::{EventId, OwnedEventId, RoomId, events::receipt::ReceiptThread};
use serde_json::{json, value::RawValue};

use super::house::{House, Person, gist, values};
use crate::{Delta, StatePart, SyncRequest, sync::RECEIPTS};

pub(super) fn timeline(delta: &Delta, room: &RoomId) -> Vec<String> {
    delta.joined.get(room).map(|room| gist(&room.part.timeline.events)).unwrap_or_default()
}

async fn two(house: &House) -> (Person<'_>, Person<'_>) {
    (house.user("alice").await, house.user("bob").await)
}

#[tokio::test]
async fn initial_sync_has_state_and_timeline_without_overlap() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    alice.say(&room, "one").await;
    let delta = alice.filtered(None, json!({"room": {"timeline": {"limit": 2}}})).await;
    let joined = &delta.joined[&room];
    assert_eq!(gist(&joined.part.timeline.events), ["m.room.member", "one"]);
    assert!(joined.part.timeline.limited && joined.part.timeline.prev_batch.starts_with('t'));
    let state = values(joined.part.state.events());
    assert!(state.iter().any(|event| event["type"] == "m.room.create"));
    assert!(
        !state.iter().any(|event| event["state_key"] == bob.id.as_str()),
        "bob's join is in the timeline"
    );
    assert_eq!(
        (joined.summary.joined, joined.summary.heroes.as_deref()),
        (Some(2), Some(&[bob.id.clone()][..]))
    );
}

#[tokio::test]
async fn incremental_sync_has_the_difference_only() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let first = bob.sync(None).await;
    assert!(bob.sync(Some(first.next)).await.is_empty());
    alice.say(&room, "one").await;
    alice.say(&room, "two").await;
    let second = bob.sync(Some(first.next)).await;
    assert_eq!(timeline(&second, &room), ["one", "two"]);
    assert!(
        second.joined[&room].part.state.events().is_empty() && !second.joined[&room].part.timeline.limited
    );
    assert!(bob.sync(Some(second.next)).await.is_empty());
    let again = bob.sync(Some(first.next)).await;
    assert_eq!(timeline(&again, &room), ["one", "two"], "the same token gives the same again");
}

#[tokio::test]
async fn a_gap_brings_the_state_that_changed_in_it() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let first = bob.sync(None).await;
    alice.set(&room, "m.room.topic", json!({"topic": "lost in the gap"})).await;
    for n in 0..5 {
        alice.say(&room, &n.to_string()).await;
    }
    alice.set(&room, "m.room.name", json!({"name": "told"})).await;
    let filter = json!({"room": {"timeline": {"limit": 3}}});
    let delta = bob.filtered(Some(first.next), filter.clone()).await;
    let part = &delta.joined[&room].part;
    assert_eq!(gist(&part.timeline.events), ["3", "4", "m.room.name"]);
    assert!(part.timeline.limited);
    assert_eq!(gist(part.state.events()), ["m.room.topic"]);
    let mut request = bob.request(Some(first.next), filter);
    request.state_after = true;
    let after = house.delivery.sync(&request).await.unwrap();
    let state = &after.joined[&room].part.state;
    let mut told = gist(state.events());
    told.sort();
    assert!(matches!(state, StatePart::After(_)));
    assert_eq!(told, ["m.room.name", "m.room.topic"]);
}

#[tokio::test]
async fn state_in_an_unlimited_timeline_is_not_told_twice() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let first = bob.sync(None).await;
    alice.set(&room, "m.room.topic", json!({"topic": "one"})).await;
    alice.set(&room, "m.room.topic", json!({"topic": "two"})).await;
    let delta = bob.sync(Some(first.next)).await;
    let events = values(&delta.joined[&room].part.timeline.events);
    assert_eq!(events[1]["unsigned"]["prev_content"]["topic"], "one");
    assert!(delta.joined[&room].part.state.events().is_empty());
}

#[tokio::test]
async fn invites_joins_and_what_came_before() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let start = bob.sync(None).await;
    let room = alice.room(&[&bob]).await;
    alice.say(&room, "before").await;
    let invited = bob.sync(Some(start.next)).await;
    let stripped = values(&invited.invited[&room]);
    assert!(stripped.iter().any(|event| event["state_key"] == bob.id.as_str()));
    assert!(stripped.iter().all(|event| event.get("event_id").is_none()));
    assert!(invited.joined.is_empty());
    bob.join(&room).await;
    let joined = bob.sync(Some(invited.next)).await;
    let part = &joined.joined[&room].part;
    assert_eq!(gist(&part.timeline.events).last().unwrap(), "m.room.member");
    assert!(gist(&part.timeline.events).contains(&"before".to_owned()), "history is shared");
    assert!(part.state.events().len() + part.timeline.events.len() >= 6, "the whole state comes on joining");
    // One's own other devices may not know of the room yet.
    assert_eq!(joined.device_lists.changed, [alice.id.clone(), bob.id.clone()]);
}

#[tokio::test]
async fn nothing_comes_after_leaving_or_being_thrown_out() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let first = bob.sync(None).await;
    alice.say(&room, "seen").await;
    alice.change(&room, &bob, Change::Ban).await;
    alice.say(&room, "not for bob").await;
    alice.set(&room, "m.room.topic", json!({"topic": "not for bob"})).await;
    let left = bob.sync(Some(first.next)).await;
    assert!(left.joined.is_empty());
    let part = &left.left[&room].part;
    assert_eq!(gist(&part.timeline.events), ["seen", "m.room.member"]);
    assert!(part.state.events().is_empty());
    assert_eq!(left.device_lists.left, std::slice::from_ref(&alice.id));
    alice.say(&room, "still not").await;
    assert!(bob.sync(Some(left.next)).await.is_empty());
    assert!(bob.sync(None).await.left.is_empty());
    let archived = bob.filtered(None, json!({"room": {"include_leave": true}})).await;
    let told = gist(&archived.left[&room].part.timeline.events);
    assert!(told.contains(&"seen".to_owned()) && !told.iter().any(|what| what.contains("not")));
}

#[tokio::test]
async fn the_end_of_a_stay_is_told_whatever_became_of_the_membership_since() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    for (end, again) in [(Change::Ban, Change::Unban), (Change::Kick, Change::Invite)] {
        let room = alice.room(&[]).await;
        bob.join(&room).await;
        let first = bob.sync(None).await;
        alice.set(&room, "m.room.topic", json!({"topic": "seen"})).await;
        alice.say(&room, "seen").await;
        alice.change(&room, &bob, end).await;
        let ended = bob.sync(Some(first.next)).await;
        alice.set(&room, "m.room.topic", json!({"topic": "secret"})).await;
        alice.change(&room, &bob, again).await;
        let refused = again == Change::Invite;
        if refused {
            bob.leave(&room).await;
        }
        for state_after in [false, true] {
            let request = SyncRequest { state_after, ..bob.request(Some(first.next), json!({})) };
            let left = house.delivery.sync(&request).await.unwrap();
            let part = &left.left[&room].part;
            let mut told = gist(&part.timeline.events);
            assert_eq!(told.drain(..3).collect::<Vec<_>>(), ["m.room.topic", "seen", "m.room.member"]);
            assert_eq!(told.len(), usize::from(refused), "whoever is unbanned is not told");
            assert!(!part.timeline.limited && !format!("{left:?}").contains("secret"));
            let state = values(part.state.events());
            let own = state.iter().find(|event| event["state_key"] == bob.id.as_str());
            let last = values(&part.timeline.events).pop().unwrap();
            assert_eq!(own.map(|own| &own["event_id"]), state_after.then_some(&last["event_id"]));
        }
        let later = bob.sync(Some(ended.next)).await;
        let part = &later.left[&room].part;
        assert_eq!(part.timeline.events.len(), usize::from(refused), "of the stay the device knows");
        assert!(part.state.events().is_empty());
    }
}

#[tokio::test]
async fn a_refused_invite_leaves_and_a_forgotten_room_is_gone() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[&bob]).await;
    let invited = bob.sync(None).await;
    assert!(invited.invited.contains_key(&room));
    bob.leave(&room).await;
    let left = bob.sync(Some(invited.next)).await;
    assert_eq!(left.left[&room].part.timeline.events.len(), 1);
    assert!(left.left[&room].part.state.events().is_empty());
    house.rooms.forget(&bob.id, &room).await.unwrap();
    let archived = bob.filtered(None, json!({"room": {"include_leave": true}})).await;
    assert!(archived.left.is_empty());
    let other_device = bob.sync(Some(invited.next)).await;
    assert!(other_device.left.contains_key(&room));
    assert!(bob.sync(Some(other_device.next)).await.is_empty());
}

#[tokio::test]
async fn leaving_and_coming_back_between_two_syncs() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let first = bob.sync(None).await;
    bob.leave(&room).await;
    bob.join(&room).await;
    alice.say(&room, "welcome back").await;
    let delta = bob.sync(Some(first.next)).await;
    assert!(delta.left.is_empty());
    assert_eq!(timeline(&delta, &room), ["m.room.member", "m.room.member", "welcome back"]);
}

#[tokio::test]
async fn lazy_members_come_once_and_again_when_changed() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let carol = house.user("carol").await;
    let room = alice.room(&[]).await;
    for person in [&bob, &carol] {
        person.join(&room).await;
    }
    alice.set(&room, "m.room.name", json!({"name": "named, so no heroes"})).await;
    alice.say(&room, "hi").await;
    let lazy = |limit: u32| json!({"room": {"state": {"lazy_load_members": true}, "timeline": {"lazy_load_members": true, "limit": limit}}});
    let members = |delta: &Delta| -> Vec<String> {
        let Some(joined) = delta.joined.get(&room) else { return Vec::new() };
        let state = values(joined.part.state.events());
        let members = state.iter().filter(|event| event["type"] == "m.room.member");
        members.map(|event| event["state_key"].as_str().unwrap().to_owned()).collect()
    };
    let first = bob.filtered(None, lazy(1)).await;
    assert_eq!(members(&first), [alice.id.to_string(), bob.id.to_string()]);
    alice.say(&room, "again").await;
    let second = bob.filtered(Some(first.next), lazy(1)).await;
    assert!(members(&second).is_empty());
    carol.say(&room, "me too").await;
    let third = bob.filtered(Some(second.next), lazy(1)).await;
    assert_eq!(members(&third), [carol.id.to_string()]);
    let repeated = bob.filtered(Some(second.next), lazy(1)).await;
    assert_eq!(members(&repeated), [carol.id.to_string()], "the first answer may never have arrived");
}

#[tokio::test]
async fn unread_counts_follow_receipts() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let first = bob.sync(None).await;
    assert_eq!(first.joined[&room].unread.total.notifications, 0);
    let one = alice.say(&room, "one").await;
    alice.send(&room, "m.room.message", json!({"body": "two", "m.mentions": {"user_ids": [bob.id]}})).await;
    let delta = bob.sync(Some(first.next)).await;
    let unread = &delta.joined[&room].unread;
    assert_eq!((unread.total.notifications, unread.total.highlights), (2, 1));
    bob.read(&room, &one).await;
    let delta = bob.sync(Some(delta.next)).await;
    assert_eq!(delta.joined[&room].unread.total.notifications, 1);
    let receipts = values(&delta.joined[&room].ephemeral);
    assert!(receipts[0]["content"][one.as_str()]["m.read"].get(bob.id.as_str()).is_some());
    bob.say(&room, "my own").await;
    assert_eq!(
        alice.sync(None).await.joined[&room].unread.total.notifications,
        1,
        "bob's word and nothing else"
    );
}

/// Somebody says what they have read themselves, then one other, and last so many that no more are told of.
pub(super) async fn read_by_many(house: &House, who: &Person<'_>, room: &RoomId) -> OwnedEventId {
    let event = who.say(room, "read by many").await;
    who.read(room, &event).await;
    let nid = house.store.read().room_nid(room).await.unwrap().unwrap();
    let many = (0..RECEIPTS).map(|n| format!("@s{n}:b.example")).collect();
    for users in [vec!["@early:b.example".to_owned()], many] {
        let mut tx = Tx::new();
        for user in users {
            let user = user.try_into().unwrap();
            let key = ReceiptKey { user, kind: ReceiptKind::Public, thread: String::new() };
            tx.put_receipt(nid, &key, None, (&event, 1));
        }
        house.store.commit(tx).await.unwrap();
    }
    event
}

/// The one who said it is told of the latest of those receipts and the own.
pub(super) fn assert_told(receipts: &[Box<RawValue>], event: &EventId, who: &Person<'_>) {
    let told = values(receipts);
    let readers = told[0]["content"][event.as_str()]["m.read"].as_object().unwrap();
    assert_eq!(readers.len(), RECEIPTS + 1);
    assert!(readers.contains_key(who.id.as_str()) && !readers.contains_key("@early:b.example"));
}

#[tokio::test]
async fn who_is_new_in_a_room_is_told_of_the_latest_receipts_and_the_own() {
    let house = House::new();
    let alice = house.user("alice").await;
    let room = alice.room(&[]).await;
    let event = read_by_many(&house, &alice, &room).await;
    assert_told(&alice.sync(None).await.joined[&room].ephemeral, &event, &alice);
}

#[tokio::test]
async fn threads_are_counted_apart() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let first = alice.say(&room, "root").await;
    let answers = json!({"rel_type": "m.thread", "event_id": first});
    let reply = alice.send(&room, "m.room.message", json!({"body": "reply", "m.relates_to": answers})).await;
    let refers = json!({"rel_type": "m.reference", "event_id": reply});
    alice.send(&room, "m.room.message", json!({"body": "see there", "m.relates_to": refers})).await;
    let delta = bob.sync(None).await;
    let unread = &delta.joined[&room].unread;
    assert_eq!((unread.total.notifications, unread.main.notifications), (3, 1));
    assert_eq!(unread.threads[&first].notifications, 2);
    bob.read_thread(&room, &reply, ReceiptThread::Thread(first.clone())).await;
    let delta = bob.sync(Some(delta.next)).await;
    let unread = &delta.joined[&room].unread;
    assert_eq!((unread.main.notifications, unread.threads[&first].notifications), (1, 1));
}

#[tokio::test]
async fn what_is_longer_than_an_id_is_the_root_of_no_thread() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let answers = json!({"rel_type": "m.thread", "event_id": format!("${}", "x".repeat(255))});
    alice.send(&room, "m.room.message", json!({"body": "reply", "m.relates_to": answers})).await;
    let delta = bob.sync(None).await;
    let unread = &delta.joined[&room].unread;
    assert_eq!((unread.main.notifications, unread.threads.len()), (1, 0));
}

#[tokio::test]
async fn redacted_events_come_redacted_and_uncounted() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let secret = alice.say(&room, "secret").await;
    let first = bob.sync(None).await;
    assert_eq!(first.joined[&room].unread.total.notifications, 1);
    let draft = chappe_rooms::Draft::redaction(&secret, None);
    house.rooms.send(&alice.actor(), &room, draft, None).await.unwrap();
    let delta = bob.sync(Some(first.next)).await;
    assert_eq!(delta.joined[&room].unread.total.notifications, 0);
    let again = bob.sync(None).await;
    let events = values(&again.joined[&room].part.timeline.events);
    let redacted = events.iter().find(|event| event["event_id"] == secret.as_str()).unwrap();
    assert_eq!(redacted["content"], json!({}));
    assert_eq!(redacted["unsigned"]["redacted_because"]["type"], "m.room.redaction");
}

#[tokio::test]
async fn only_the_sending_device_knows_its_transaction() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let content = json!({"body": "x"}).as_object().unwrap().clone();
    let draft = chappe_rooms::Draft::message("m.room.message".into(), content);
    house.rooms.send(&alice.actor(), &room, draft, Some("txn7".into())).await.unwrap();
    let transaction = |delta: &Delta| {
        let events = values(&delta.joined[&room].part.timeline.events);
        events.last().unwrap()["unsigned"].get("transaction_id").cloned()
    };
    assert_eq!(transaction(&alice.sync(None).await), Some("txn7".into()));
    let elsewhere = Person { device: "E", ..alice.clone() };
    assert_eq!(transaction(&elsewhere.sync(None).await), None);
    assert_eq!(transaction(&bob.sync(None).await), None);
}

#[tokio::test]
async fn filters_leave_out() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    let other = alice.room(&[]).await;
    bob.join(&room).await;
    alice.say(&room, "text").await;
    alice.send(&room, "x.other", json!({"body": "other"})).await;
    let only = |filter: serde_json::Value| alice.filtered(None, filter);
    let delta =
        only(json!({"room": {"rooms": [room], "timeline": {"types": ["x.*"]}, "state": {"types": []}}}))
            .await;
    assert!(!delta.joined.contains_key(&other));
    assert_eq!(timeline(&delta, &room), ["other"]);
    assert!(delta.joined[&room].part.state.events().is_empty());
    let delta = only(json!({"room": {"timeline": {"senders": [bob.id]}}})).await;
    assert_eq!(timeline(&delta, &room), ["m.room.member"]);
    let delta = only(json!({"event_format": "federation", "room": {"timeline": {"limit": 1}}})).await;
    assert!(values(&delta.joined[&room].part.timeline.events)[0].get("hashes").is_some());
}

async fn ignore(house: &House, who: &Person<'_>, other: &Person<'_>) {
    let ignored = json!({"ignored_users": {other.id.as_str(): {}}});
    let ignored = serde_json::value::to_raw_value(&ignored).unwrap();
    let scope = chappe_accounts::Scope::Global;
    house.accounts.set_account_data(&who.id, scope, "m.ignored_user_list", &ignored).await.unwrap();
}

#[tokio::test]
async fn who_looks_into_a_room_does_not_hear_those_whom_they_ignore() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    ignore(&house, &bob, &alice).await;
    let since = house.delivery.now();
    alice.say(&room, "noise").await;
    alice.set(&room, "m.room.topic", json!({"topic": "about"})).await;
    bob.say(&room, "own").await;
    let (delivery, now) = (&house.delivery, std::time::Duration::ZERO);
    let peeked = delivery.peek(&bob.actor(), &room, Some(since), now).await.unwrap();
    let told = format!("{:?}", peeked.events);
    assert!(told.contains("about") && told.contains("own") && !told.contains("noise"), "{told}");
}

#[tokio::test]
async fn ignored_users_are_not_heard() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    ignore(&house, &bob, &alice).await;
    let first = bob.sync(None).await;
    alice.say(&room, "noise").await;
    let elsewhere = alice.room(&[&bob]).await;
    let delta = bob.sync(Some(first.next)).await;
    assert!(timeline(&delta, &room).is_empty());
    assert!(!delta.invited.contains_key(&elsewhere));
}

#[tokio::test]
async fn of_receipts_for_one_event_that_without_a_thread_is_told() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let event = alice.say(&room, "read").await;
    let token = bob.sync(None).await.next;
    let told = async || -> Vec<_> {
        let delta = bob.sync(Some(token)).await;
        let events = values(&delta.joined[&room].ephemeral);
        events
            .iter()
            .map(|told| told["content"][event.as_str()]["m.read"][alice.id.as_str()].clone())
            .collect()
    };
    for thread in [ReceiptThread::Thread(event.clone()), ReceiptThread::Main] {
        alice.read_thread(&room, &event, thread).await;
    }
    let threads: Vec<_> = told().await.iter().map(|receipt| receipt["thread_id"].clone()).collect();
    assert_eq!(threads, [json!(event), json!("main")], "none is lost");
    alice.read(&room, &event).await;
    let told = told().await;
    assert!(told.len() == 1 && told[0]["thread_id"].is_null(), "{told:?}");
}

#[tokio::test]
async fn a_room_whose_name_is_empty_or_was_redacted_is_called_by_its_members() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let heroes = |delta: &Delta| delta.joined[&room].summary.heroes.clone();
    let named = async |name: &str| alice.set(&room, "m.room.name", json!({ "name": name })).await;
    named("Salon").await;
    let first = bob.sync(None).await;
    assert_eq!(heroes(&first), None);
    named("").await;
    let unnamed = bob.sync(Some(first.next)).await;
    for delta in [&unnamed, &bob.sync(None).await] {
        assert_eq!(heroes(delta), Some(vec![alice.id.clone()]));
    }
    let name = named("Salon").await;
    let again = bob.sync(Some(unnamed.next)).await;
    assert_eq!(heroes(&again), None);
    let redaction = chappe_rooms::Draft::redaction(&name, None);
    house.rooms.send(&alice.actor(), &room, redaction, None).await.unwrap();
    for since in [Some(again.next), None] {
        assert_eq!(heroes(&bob.sync(since).await), Some(vec![alice.id.clone()]));
    }
    alice.set(&room, "m.room.canonical_alias", json!({})).await;
    assert!(heroes(&bob.sync(None).await).is_some(), "no main alias is no name");
}
