//! Sticky events: told whatever the timeline limit, for a while.

use std::{collections::BTreeMap, time::Duration};

use chappe_rooms::Draft;
use ruma::{OwnedEventId, RoomId, events::TimelineEventType, presence::PresenceState};
use serde_json::json;

use super::house::{House, Person, gist, values};
use crate::{ExtensionsAsk, List, RoomAsk, SlidingRequest, StickyAsk};

pub(super) async fn stick(person: &Person<'_>, room: &RoomId, body: &str, ms: u32) -> OwnedEventId {
    let content = json!({"msgtype": "m.text", "body": body}).as_object().unwrap().clone();
    let draft = Draft { sticky_ms: Some(ms), ..Draft::message(TimelineEventType::RoomMessage, content) };
    person.house.rooms.send(&person.actor(), room, draft, None).await.unwrap()
}

#[tokio::test]
async fn they_are_told_beside_a_short_timeline_and_once() {
    let house = House::new();
    let (alice, bob, room) = house.couple().await;
    let start = bob.sync(None).await;
    stick(&alice, &room, "in a call", 60_000).await;
    for n in 0..3 {
        alice.say(&room, &n.to_string()).await;
    }
    stick(&alice, &room, "seen anyway", 60_000).await;
    let filter = json!({"room": {"timeline": {"limit": 2}}});
    let delta = bob.filtered(Some(start.next), filter.clone()).await;
    let joined = &delta.joined[&room];
    assert_eq!(gist(&joined.part.timeline.events), ["2", "seen anyway"]);
    assert_eq!(gist(&joined.sticky), ["in a call"]);
    let told = &values(&joined.sticky)[0];
    assert_eq!(told["msc4354_sticky"]["duration_ms"], 60_000);
    assert!(told["unsigned"]["msc4354_sticky_duration_ttl_ms"].as_u64().unwrap() <= 60_000);
    let timeline = values(&joined.part.timeline.events);
    assert!(timeline[1]["unsigned"]["msc4354_sticky_duration_ttl_ms"].is_u64());
    assert!(bob.filtered(Some(delta.next), filter).await.joined.is_empty());
    let nothing = json!({"room": {"timeline": {"types": []}}});
    let filtered = bob.filtered(Some(start.next), nothing).await;
    assert_eq!(
        gist(&filtered.joined[&room].sticky),
        ["in a call", "seen anyway"],
        "filters do not hide them"
    );
}

#[tokio::test]
async fn who_comes_gets_what_still_sticks() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let room = alice.room(&[]).await;
    alice.set(&room, "m.room.history_visibility", json!({"history_visibility": "joined"})).await;
    stick(&alice, &room, "sticks", 60_000).await;
    stick(&alice, &room, "over at once", 0).await;
    let redacted = stick(&alice, &room, "taken back", 60_000).await;
    house.rooms.send(&alice.actor(), &room, Draft::redaction(&redacted, None), None).await.unwrap();
    let start = bob.sync(None).await;
    assert!(!format!("{start:?}").contains("sticks"), "not for strangers");
    bob.join(&room).await;
    let delta = bob.sync(Some(start.next)).await;
    assert_eq!(gist(&delta.joined[&room].sticky), ["sticks"], "history visibility does not hide it");
    bob.leave(&room).await;
    stick(&alice, &room, "later", 60_000).await;
    assert!(!format!("{:?}", bob.sync(Some(delta.next)).await).contains("later"));
    let ignored = json!({"ignored_users": {alice.id.as_str(): {}}}).to_string();
    let content = serde_json::value::RawValue::from_string(ignored).unwrap();
    let scope = chappe_accounts::Scope::Global;
    house.accounts.set_account_data(&bob.id, scope, "m.ignored_user_list", &content).await.unwrap();
    bob.join(&room).await;
    assert!(bob.sync(None).await.joined[&room].sticky.is_empty(), "those of the ignored are not told");
}

fn sliding(person: &Person<'_>, limit: usize) -> SlidingRequest {
    let ask = RoomAsk { timeline_limit: 1, ..RoomAsk::default() };
    let list = List { ranges: Some(vec![(0, 0)]), ask, ..List::default() };
    SlidingRequest {
        user: person.id.clone(),
        device: Some("D".into()),
        connection: String::new(),
        pos: None,
        lists: BTreeMap::from([("all".to_owned(), list)]),
        subscriptions: BTreeMap::new(),
        extensions: ExtensionsAsk {
            sticky: Some(StickyAsk { since: None, limit: Some(limit) }),
            ..ExtensionsAsk::default()
        },
        presence: PresenceState::Online,
        timeout: Duration::ZERO,
    }
}

/// Asks, goes on from the answer, gives what sticks in a room.
async fn told(house: &House, request: &mut SlidingRequest, room: &RoomId) -> Vec<String> {
    let answer = house.delivery.sliding_sync(request).await.unwrap();
    request.pos = Some(answer.pos);
    let (page, limit) = (answer.extensions.sticky, request.extensions.sticky.clone().unwrap().limit);
    if page.next_batch.is_some() {
        request.extensions.sticky = Some(StickyAsk { since: page.next_batch, limit });
    }
    page.rooms.get(room).map(|events| gist(events)).unwrap_or_default()
}

#[tokio::test]
async fn one_member_does_not_hide_what_others_stick() {
    let house = House::new();
    let (alice, bob, room) = house.couple().await;
    for _ in 0..101 {
        stick(&bob, &room, "flood", 60_000).await;
    }
    stick(&alice, &room, "call", 60_000).await;
    let nothing = json!({"room": {"timeline": {"types": []}}});
    let told = gist(&alice.filtered(None, nothing).await.joined[&room].sticky);
    assert_eq!((told.len(), told.last().unwrap().as_str()), (101, "call"), "a hundred and no more are bob's");
}

#[tokio::test]
async fn sliding_connections_lose_none_of_many() {
    let house = House::new();
    let alice = house.user("alice").await;
    let room = alice.room(&[]).await;
    stick(&alice, &room, "first", 60_000).await;
    let many = stick(&alice, &room, "many", 60_000).await;
    let reader = house.store.read();
    let nid = reader.room_nid(&room).await.unwrap().unwrap();
    let num = reader.event_num(nid, &many).await.unwrap().unwrap();
    for _ in 0..1_200 {
        let mut tx = chappe_store::Tx::new();
        tx.put_sticky(nid, num, u64::MAX);
        let (room, event) = (nid.0, num.0);
        tx.log(chappe_store::LogEntry::Event { room, event, member: None, local: false, sticky: true });
        house.store.commit(tx).await.unwrap();
    }
    alice.say(&room, "on top").await;
    let mut request = sliding(&alice, 500);
    let page = told(&house, &mut request, &room).await;
    assert_eq!((page.len(), page[0].as_str()), (500, "first"));
    assert_eq!(told(&house, &mut request, &room).await.len(), 500);
    assert_eq!(told(&house, &mut request, &room).await.len(), 202);
}

#[tokio::test]
async fn who_comes_and_changes_their_name_gets_what_stuck_before() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let room = alice.room(&[]).await;
    stick(&alice, &room, "before", 60_000).await;
    alice.say(&room, "on top").await;
    let mut request = sliding(&bob, 9);
    assert!(told(&house, &mut request, &room).await.is_empty());
    let other = bob.room(&[]).await;
    stick(&bob, &other, "a token", 60_000).await;
    told(&house, &mut request, &room).await;
    bob.join(&room).await;
    let content = json!({"membership": "join", "displayname": "Bob"}).as_object().unwrap().clone();
    let renamed = Draft::state("m.room.member".to_owned(), bob.id.as_str(), content);
    house.rooms.send(&bob.actor(), &room, renamed, None).await.unwrap();
    assert_eq!(told(&house, &mut request, &room).await, ["before"]);
    assert!(told(&house, &mut request, &room).await.is_empty());
}

#[tokio::test]
async fn sliding_connections_get_them_oldest_first_without_loss() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let (near, far) = (alice.room(&[]).await, alice.room(&[]).await);
    bob.join(&far).await;
    bob.join(&near).await;
    for n in 0..3 {
        stick(&alice, &far, &n.to_string(), 60_000).await;
    }
    alice.say(&far, "on top").await;
    alice.say(&near, "on top").await;
    let mut request = sliding(&bob, 2);
    let next = async |request: &mut SlidingRequest| told(&house, request, &far).await;
    assert_eq!(next(&mut request).await, ["0", "1"], "also of rooms beyond the window");
    request.timeout = Duration::from_mins(1);
    assert_eq!(next(&mut request).await, ["2"]);
    request.timeout = Duration::ZERO;
    assert_eq!(next(&mut request).await, [""; 0]);
    let carol = house.user("carol").await;
    let theirs = carol.room(&[]).await;
    stick(&carol, &theirs, "not bob's", 60_000).await;
    assert_eq!(next(&mut request).await, [""; 0]);
    request.lists.clear();
    stick(&alice, &far, "3", 60_000).await;
    assert_eq!(next(&mut request).await, [""; 0], "no list has the room");
}

#[tokio::test]
async fn what_is_over_is_forgotten() {
    let house = House::new();
    let alice = house.user("alice").await;
    let room = alice.room(&[]).await;
    stick(&alice, &room, "for a moment", 1_000).await;
    stick(&alice, &room, "for long", 3_600_000).await;
    house.world.sleep(Duration::from_millis(1_100)).await;
    assert_eq!(house.rooms.sweep().await.unwrap(), 1);
    assert_eq!(house.store.read().sticky_rooms().await.unwrap().len(), 1);
}
