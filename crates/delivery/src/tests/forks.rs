//! What is told of states that were resolved: also that something is as it was before.

use chappe_rooms::Change;
use chappe_store::{EventNum, Membership};
use ruma::{EventId, OwnedRoomId, RoomId};
use serde_json::{Value, json};

use super::{
    house::{House, Person, becomes_whole, by_fork, gist, memberships, told, values},
    sliding::{ask, next, window},
};
use crate::{Delta, SyncToken};

/// The memberships of a user among state events.
fn of<'a>(person: &Person<'_>, state: &'a [Value]) -> Vec<&'a str> {
    let own = state.iter().filter(|event| event["state_key"] == person.id.as_str());
    own.map(|event| event["content"]["membership"].as_str().unwrap()).collect()
}

fn state(delta: &Delta, room: &RoomId) -> Vec<Value> {
    values(delta.joined[room].part.state.events())
}

async fn number(house: &House, room: &RoomId, event: &EventId) -> EventNum {
    let view = house.rooms.view(room).await.unwrap();
    view.reader.event_num(view.nid, event).await.unwrap().unwrap()
}

/// A room of `alice` with `bob`, and what he has seen of it when `mallory` has just joined.
async fn joined_by<'h>(
    house: &'h House,
    mallory: &Person<'_>,
) -> (Person<'h>, Person<'h>, OwnedRoomId, SyncToken) {
    let (alice, bob, room) = house.couple().await;
    alice.set(&room, "m.room.topic", json!({"topic": "one"})).await;
    mallory.join(&room).await;
    let token = bob.sync(None).await.next;
    (alice, bob, room, token)
}

#[tokio::test]
async fn a_join_that_a_fork_takes_back_is_told() {
    let house = House::new();
    let mallory = house.user("mallory").await;
    let (alice, bob, room) = house.couple().await;
    mallory.join(&room).await;
    let mut request = window(&bob, 9, ask(9, &[]));
    request.extensions.e2ee = true;
    next(&house, &mut request).await;
    mallory.leave(&room).await;
    next(&house, &mut request).await;
    mallory.join(&room).await;
    next(&house, &mut request).await;
    let lazy = json!({"room": {"state": {"lazy_load_members": true}}});
    let lazily = bob.filtered(None, lazy.clone()).await.next;
    let token = bob.sync(None).await.next;

    let of_mallory = memberships(&mallory, &room).await;
    let (left, joined) = (of_mallory[1], of_mallory[2]);
    assert_eq!((left.0, joined.0), (Membership::Leave, Membership::Join));
    let said = alice.say(&room, "by a fork").await;
    by_fork(&house, &room, (&said, joined.1), Some((&mallory, Some(left)))).await;

    let delta = bob.sync(Some(token)).await;
    assert_eq!(of(&mallory, &state(&delta, &room)), ["leave"]);
    assert_eq!(delta.device_lists.left, std::slice::from_ref(&mallory.id));
    let delta = bob.filtered(Some(lazily), lazy.clone()).await;
    assert_eq!(
        of(&mallory, &state(&delta, &room)),
        ["leave"],
        "whoever loads lazily was told of the join, too"
    );
    for filter in [json!({}), lazy] {
        let mut after = bob.request(Some(token), filter);
        after.state_after = true;
        let delta = house.delivery.sync(&after).await.unwrap();
        assert_eq!(of(&mallory, &state(&delta, &room)), ["leave"]);
    }
    let answer = next(&house, &mut request).await;
    let told = values(answer.rooms[&room].part.as_ref().unwrap().state.events());
    assert_eq!(of(&mallory, &told), ["leave"], "though this leave was sent before");
    assert_eq!(answer.rooms[&room].members, Some((2, 0)));
    assert_eq!(answer.extensions.e2ee.unwrap().lists.left, std::slice::from_ref(&mallory.id));
}

#[tokio::test]
async fn who_was_never_there_after_all_gets_no_more_keys() {
    let house = House::new();
    let mallory = house.user("mallory").await;
    let (alice, bob, room, token) = joined_by(&house, &mallory).await;
    let joined = memberships(&mallory, &room).await[0].1;
    let said = alice.say(&room, "by a fork").await;
    by_fork(&house, &room, (&said, joined), Some((&mallory, None))).await;
    // No event says so.
    assert_eq!(bob.sync(Some(token)).await.device_lists.left, std::slice::from_ref(&mallory.id));
}

#[tokio::test]
async fn a_join_that_is_told_and_taken_back_at_once_leaves_no_device_behind() {
    let house = House::new();
    let mallory = house.user("mallory").await;
    let (alice, bob, room) = house.couple().await;
    mallory.join(&room).await;
    mallory.leave(&room).await;
    let token = bob.sync(None).await.next;
    mallory.join(&room).await;
    let of_mallory = memberships(&mallory, &room).await;
    let said = alice.say(&room, "by a fork").await;
    by_fork(&house, &room, (&said, of_mallory[2].1), Some((&mallory, Some(of_mallory[1])))).await;
    let delta = bob.sync(Some(token)).await;
    assert_eq!(delta.device_lists.left, std::slice::from_ref(&mallory.id));
    assert!(delta.device_lists.changed.is_empty());
}

#[tokio::test]
async fn what_comes_by_a_fork_does_not_bring_back_what_was_there_before_it() {
    let house = House::new();
    let mallory = house.user("mallory").await;
    let (alice, bob, room, _) = joined_by(&house, &mallory).await;
    let topic = alice.set(&room, "m.room.topic", json!({"topic": "two"})).await;
    let (topic, token) = (number(&house, &room, &topic).await, bob.sync(None).await.next);
    let said = alice.say(&room, "by a fork").await;
    by_fork(&house, &room, (&said, topic), None).await;
    let delta = bob.sync(Some(token)).await;
    assert!(state(&delta, &room).is_empty(), "{delta:?}");
    // Whoever begins with that event has the state as it is now.
    let newest = json!({"room": {"timeline": {"limit": 1}}});
    let told = state(&bob.filtered(None, newest).await, &room);
    let topics: Vec<_> = told.iter().filter(|event| event["type"] == "m.room.topic").collect();
    assert!(topics.len() == 1 && topics[0]["content"]["topic"] == "two", "{topics:?}");
}

#[tokio::test]
async fn who_is_taken_out_by_a_fork_hears_of_it() {
    let house = House::new();
    let (alice, bob, room) = house.couple().await;
    let mut request = window(&bob, 9, ask(9, &[]));
    request.extensions.e2ee = true;
    next(&house, &mut request).await;
    // Also if it comes to that once more.
    for time in 0..2 {
        let token = bob.sync(None).await.next;
        let joined = memberships(&bob, &room).await[time].1;
        let said = alice.say(&room, "by a fork").await;
        by_fork(&house, &room, (&said, joined), Some((&bob, None))).await;
        let delta = bob.sync(Some(token)).await;
        assert!(delta.left.contains_key(&room) && delta.joined.is_empty(), "{delta:?}");
        assert_eq!(delta.device_lists.left, std::slice::from_ref(&alice.id));
        let answer = next(&house, &mut request).await;
        assert_eq!(answer.rooms[&room].membership, "leave");
        assert_eq!(answer.extensions.e2ee.unwrap().lists.left, std::slice::from_ref(&alice.id));
        assert!(next(&house, &mut request).await.rooms.is_empty(), "told once");
        bob.join(&room).await;
        let answer = next(&house, &mut request).await;
        assert!(answer.rooms[&room].initial && answer.rooms[&room].membership == "join");
    }
}

#[tokio::test]
async fn who_was_shown_and_is_out_once_the_members_are_known_is_told() {
    let house = House::new();
    let mallory = house.user("mallory").await;
    let (alice, bob, room) = house.couple().await;
    mallory.join(&room).await;
    mallory.leave(&room).await;
    mallory.join(&room).await;
    let lazy = json!({"room": {"state": {"lazy_load_members": true}}});
    let token = bob.filtered(None, lazy.clone()).await.next;
    let mut request = window(&bob, 9, ask(9, &[]));
    request.extensions.e2ee = true;
    next(&house, &mut request).await;
    let left = memberships(&mallory, &room).await[1];
    assert_eq!(left.0, Membership::Leave);
    becomes_whole(&house, &room, (&mallory, left)).await;
    alice.say(&room, "now that they are here").await;
    for state_after in [false, true] {
        let mut lazily = bob.request(Some(token), lazy.clone());
        lazily.state_after = state_after;
        let delta = house.delivery.sync(&lazily).await.unwrap();
        assert_eq!(of(&mallory, &state(&delta, &room)), ["leave"]);
        assert_eq!(delta.device_lists.left, std::slice::from_ref(&mallory.id));
    }
    let answer = next(&house, &mut request).await;
    let told = values(answer.rooms[&room].part.as_ref().unwrap().state.events());
    assert_eq!(of(&mallory, &told), ["leave"]);
    assert_eq!(answer.extensions.e2ee.unwrap().lists.left, std::slice::from_ref(&mallory.id));
}

#[tokio::test]
async fn what_came_late_of_before_somebody_came_in_is_not_told_where_only_members_may_know() {
    let house = House::new();
    let (alice, bob, room) = house.couple().await;
    let carol = house.user("carol").await;
    let bodies = |delta: &Delta| -> Vec<String> {
        let told = delta.joined.get(&room).map(|room| values(&room.part.timeline.events));
        let bodies = told.into_iter().flatten().map(|event| event["content"]["body"].clone());
        bodies.filter_map(|body| body.as_str().map(str::to_owned)).collect()
    };
    for (visibility, is_told) in [("joined", false), ("shared", true)] {
        alice.set(&room, "m.room.history_visibility", json!({"history_visibility": visibility})).await;
        carol.join(&room).await;
        let joined = memberships(&carol, &room).await.pop().unwrap();
        let (for_bob, for_carol) = (bob.sync(None).await.next, carol.sync(None).await.next);
        let mut request = window(&carol, 9, ask(9, &[]));
        next(&house, &mut request).await;
        let said = alice.say(&room, visibility).await;
        by_fork(&house, &room, (&said, joined.1), None).await;
        assert_eq!(bodies(&bob.sync(Some(for_bob)).await), [visibility]);
        let delta = carol.sync(Some(for_carol)).await;
        assert_eq!(bodies(&delta).len(), usize::from(is_told), "{visibility}");
        let unread = delta.joined.get(&room).is_some_and(|room| room.unread.total.notifications > 0);
        assert_eq!(unread, is_told, "nobody can read what they do not see");
        let sliding = next(&house, &mut request).await;
        let part = sliding.rooms.get(&room).and_then(|room| room.part.as_ref());
        let events = part.map(|part| values(&part.timeline.events)).unwrap_or_default();
        assert_eq!(
            events.iter().any(|event| event["content"]["body"] == visibility),
            is_told,
            "{visibility}"
        );
        carol.leave(&room).await;
    }
}

#[tokio::test]
async fn who_is_out_as_a_told_state_says_is_told_what_was_here_until_then() {
    let house = House::new();
    let (alice, bob, room) = house.couple().await;
    let token = bob.sync(None).await.next;
    alice.say(&room, "seen").await;
    alice.change(&room, &bob, Change::Kick).await;
    alice.say(&room, "later").await;
    told(&house, &room, memberships(&bob, &room).await.pop().unwrap().1).await;
    for since in [Some(token), None] {
        let delta = bob.filtered(since, json!({"room": {"include_leave": true}})).await;
        let events = gist(&delta.left[&room].part.timeline.events);
        assert!(events.ends_with(&["seen".to_owned(), "m.room.member".to_owned()]), "{events:?}");
    }
}
