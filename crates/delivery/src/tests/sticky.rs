//! Sticky events: told whatever the timeline limit, for a while.

use std::{collections::BTreeMap, time::Duration};

use chappe_rooms::Draft;
use ruma::{OwnedEventId, RoomId, events::TimelineEventType, presence::PresenceState};
use serde_json::json;

use super::house::{House, Person, gist, values};
use crate::{ExtensionsAsk, List, Received, RoomAsk, SlidingRequest, StickyAsk};

async fn stick(person: &Person<'_>, room: &RoomId, body: &str, ms: u32) -> OwnedEventId {
    let content = json!({"msgtype": "m.text", "body": body}).as_object().unwrap().clone();
    let draft = Draft { sticky_ms: Some(ms), ..Draft::message(TimelineEventType::RoomMessage, content) };
    person.house.rooms.send(&person.actor(), room, draft, None).await.unwrap()
}

#[tokio::test]
async fn they_are_told_beside_a_short_timeline_and_once() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
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
    let ask = RoomAsk { timeline_limit: 1, ..RoomAsk::default() };
    let list = List { ranges: Some(vec![(0, 0)]), ask, ..List::default() };
    let mut request = SlidingRequest {
        user: bob.id.clone(),
        device: Some("D".into()),
        connection: String::new(),
        pos: None,
        lists: BTreeMap::from([("all".to_owned(), list)]),
        subscriptions: BTreeMap::new(),
        extensions: ExtensionsAsk {
            sticky: Some(StickyAsk { since: None, limit: Some(2) }),
            ..ExtensionsAsk::default()
        },
        presence: PresenceState::Online,
        timeout: Duration::ZERO,
    };
    let next = async |request: &mut SlidingRequest| {
        let answer = house.delivery.sliding_sync(request).await.unwrap();
        request.pos = Some(answer.pos);
        let page = answer.extensions.sticky;
        let since: Option<Received> = page.next_batch;
        if since.is_some() {
            request.extensions.sticky = Some(StickyAsk { since, limit: Some(2) });
        }
        page.rooms.get(&far).map(|events| gist(events)).unwrap_or_default()
    };
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
