//! Members that come as they are needed, and rooms whose members come late.

use std::collections::BTreeMap;

use chappe_accounts::Scope;
use chappe_rooms::Draft;
use chappe_store::Membership;
use ruma::RoomId;
use serde_json::{Value, json, value::to_raw_value};

use super::{
    house::{House, becomes_whole, by_fork, lacks_members, memberships, unplaced, values},
    sliding::{ask, next, window},
};
use crate::{Delta, StatePart, SyncRequest};

fn lazy(limit: u32) -> Value {
    json!({"room": {"state": {"lazy_load_members": true}, "timeline": {"limit": limit}}})
}

/// The members that the state tells.
fn members(delta: &Delta, room: &RoomId) -> BTreeMap<String, Value> {
    members_in(&delta.joined[room].part.state)
}

fn members_in(state: &StatePart) -> BTreeMap<String, Value> {
    let state = values(state.events()).into_iter();
    let members = state.filter(|event| event["type"] == "m.room.member");
    members.map(|event| (event["state_key"].as_str().unwrap().to_owned(), event["content"].clone())).collect()
}

#[tokio::test]
async fn a_gap_hides_nobody_who_came_went_or_was_renamed_in_it() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let (carol, dora) = (house.user("carol").await, house.user("dora").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    carol.join(&room).await;
    let token = bob.filtered(None, lazy(2)).await.next;
    carol.leave(&room).await;
    dora.join(&room).await;
    let named = json!({"membership": "join", "displayname": "A."}).as_object().unwrap().clone();
    let draft = Draft::state("m.room.member".to_owned(), alice.id.as_str(), named);
    house.rooms.send(&alice.actor(), &room, draft, None).await.unwrap();
    for n in 0..3 {
        alice.say(&room, &n.to_string()).await;
    }
    for state_after in [false, true] {
        let request = SyncRequest { state_after, ..bob.request(Some(token), lazy(2)) };
        let delta = house.delivery.sync(&request).await.unwrap();
        assert!(delta.joined[&room].part.timeline.limited);
        let told = members(&delta, &room);
        assert_eq!(told[carol.id.as_str()]["membership"], "leave");
        assert_eq!(told[dora.id.as_str()]["membership"], "join");
        assert_eq!(told[alice.id.as_str()]["displayname"], "A.");
        assert!(!told.contains_key(bob.id.as_str()), "who has not changed");
    }
}

#[tokio::test]
async fn of_a_room_that_was_left_those_are_told_who_are_needed() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let room = alice.room(&[]).await;
    house.user("carol").await.join(&room).await;
    let token = bob.sync(None).await.next;
    bob.join(&room).await;
    alice.say(&room, "hello").await;
    bob.leave(&room).await;
    let mut archived = lazy(3);
    archived["room"]["include_leave"] = json!(true);
    for state_after in [false, true] {
        for (since, filter, is_lazy) in
            [(Some(token), lazy(3), true), (None, archived.clone(), true), (Some(token), json!({}), false)]
        {
            let request = SyncRequest { state_after, ..bob.request(since, filter) };
            let delta = house.delivery.sync(&request).await.unwrap();
            let part = &delta.left[&room].part;
            let kinds = values(part.state.events());
            assert!(!is_lazy || kinds.iter().any(|event| event["type"] == "m.room.create"));
            let told = members_in(&part.state);
            if is_lazy {
                // Before the timeline the reader was not there yet.
                assert_eq!(told.len(), 1 + usize::from(state_after), "{told:?}");
                assert_eq!(told[alice.id.as_str()]["membership"], "join");
            }
            assert!(is_lazy || !state_after || told.len() == 3, "{told:?}");
            let own = told.get(bob.id.as_str()).map(|own| own["membership"].clone());
            assert_eq!(own, state_after.then(|| json!("leave")));
        }
    }
}

#[tokio::test]
async fn who_spoke_before_a_reader_left_is_told_as_the_device_may_not_have_them() {
    let house = House::new();
    let (alice, bob, carol) = (house.user("alice").await, house.user("bob").await, house.user("carol").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    carol.join(&room).await;
    alice.set(&room, "m.room.name", json!({"name": "named, so no heroes"})).await;
    let token = bob.filtered(None, lazy(1)).await.next;
    carol.say(&room, "bye").await;
    bob.leave(&room).await;
    for state_after in [false, true] {
        let request = SyncRequest { state_after, ..bob.request(Some(token), lazy(9)) };
        let delta = house.delivery.sync(&request).await.unwrap();
        let told = members_in(&delta.left[&room].part.state);
        assert_eq!(told[carol.id.as_str()]["membership"], "join");
        assert!(!told.contains_key(alice.id.as_str()), "who said nothing");
        let own = if state_after { "leave" } else { "join" };
        assert_eq!(told[bob.id.as_str()]["membership"], own);
    }
}

#[tokio::test]
async fn who_came_in_a_gap_is_told_once_more_when_they_say_something() {
    let house = House::new();
    let (alice, bob, dora) = (house.user("alice").await, house.user("bob").await, house.user("dora").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    alice.set(&room, "m.room.name", json!({"name": "named, so no heroes"})).await;
    let token = bob.filtered(None, lazy(1)).await.next;
    dora.join(&room).await;
    alice.say(&room, "one").await;
    alice.say(&room, "two").await;
    let gap = bob.filtered(Some(token), lazy(1)).await;
    assert!(gap.joined[&room].part.timeline.limited);
    assert!(members(&gap, &room).contains_key(dora.id.as_str()));
    // There may be thousands of them: it is not noted that they were told.
    dora.say(&room, "three").await;
    let delta = bob.filtered(Some(gap.next), lazy(1)).await;
    assert!(members(&delta, &room).contains_key(dora.id.as_str()));
    dora.say(&room, "four").await;
    assert!(members(&bob.filtered(Some(delta.next), lazy(1)).await, &room).is_empty());
}

#[tokio::test]
async fn a_member_of_an_answer_that_was_lost_comes_again_though_a_gap_followed() {
    let house = House::new();
    let (alice, bob, mia) = (house.user("alice").await, house.user("bob").await, house.user("mia").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    mia.join(&room).await;
    alice.set(&room, "m.room.name", json!({"name": "named, so no heroes"})).await;
    let token = bob.filtered(None, lazy(1)).await.next;
    mia.say(&room, "one").await;
    let lost = bob.filtered(Some(token), lazy(1)).await;
    assert!(members(&lost, &room).contains_key(mia.id.as_str()));
    alice.say(&room, "two").await;
    let retried = bob.filtered(Some(token), lazy(1)).await;
    assert!(retried.joined[&room].part.timeline.limited && members(&retried, &room).is_empty());
    mia.say(&room, "three").await;
    let delta = bob.filtered(Some(retried.next), lazy(1)).await;
    assert!(members(&delta, &room).contains_key(mia.id.as_str()));
    mia.say(&room, "four").await;
    assert!(members(&bob.filtered(Some(delta.next), lazy(1)).await, &room).is_empty());
}

#[tokio::test]
async fn whoever_comes_with_the_members_of_a_room_is_newly_met() {
    let house = House::new();
    let (alice, bob, carol) = (house.user("alice").await, house.user("bob").await, house.user("carol").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    carol.join(&room).await;
    let joined = memberships(&carol, &room).await[0];
    let said = alice.say(&room, "by a fork").await;
    by_fork(&house, &room, (&said, joined.1), Some((&carol, None))).await;
    unplaced(&house, &room, joined.1).await;
    let token = bob.sync(None).await.next;
    let mut request = window(&bob, 9, ask(9, &[]));
    request.extensions.e2ee = true;
    next(&house, &mut request).await;
    becomes_whole(&house, &room, (&carol, joined)).await;
    let all = [alice.id.clone(), bob.id.clone(), carol.id.clone()];
    for filter in [json!({}), lazy(9)] {
        let delta = bob.filtered(Some(token), filter.clone()).await;
        assert_eq!(delta.device_lists.changed, all);
        assert!(delta.device_lists.left.is_empty());
        assert!(bob.filtered(Some(delta.next), filter).await.device_lists.changed.is_empty(), "told once");
    }
    assert_eq!(next(&house, &mut request).await.extensions.e2ee.unwrap().lists.changed, all);
}

#[tokio::test]
async fn who_is_in_a_room_whose_members_are_still_to_come_is_told_once_and_with_the_room() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let room = alice.room(&[]).await;
    let (token, lazily) = (bob.sync(None).await.next, bob.filtered(None, lazy(9)).await.next);
    bob.join(&room).await;
    lacks_members(&house, &room).await;
    let meanwhile = bob.sync(Some(token)).await;
    assert!(meanwhile.joined.is_empty() && meanwhile.device_lists.changed.is_empty());
    let all = [alice.id.clone(), bob.id.clone()];
    assert_eq!(bob.filtered(Some(lazily), lazy(9)).await.device_lists.changed, all, "who sees the room");
    let joined = memberships(&bob, &room).await[0];
    becomes_whole(&house, &room, (&bob, joined)).await;
    let whole = bob.sync(Some(meanwhile.next)).await;
    assert!(whole.joined.contains_key(&room));
    assert_eq!(whole.device_lists.changed, all);
    assert!(bob.sync(Some(whole.next)).await.device_lists.changed.is_empty());
}

#[tokio::test]
async fn who_goes_while_members_are_still_to_come_is_told_to_whoever_waits_for_them() {
    let house = House::new();
    let (alice, bob, carol) = (house.user("alice").await, house.user("bob").await, house.user("carol").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    carol.join(&room).await;
    let token = bob.sync(None).await.next;
    lacks_members(&house, &room).await;
    carol.leave(&room).await;
    let delta = bob.sync(Some(token)).await;
    assert!(delta.joined.is_empty(), "the room itself is told when it is whole");
    assert_eq!(delta.device_lists.left, std::slice::from_ref(&carol.id));
}

#[tokio::test]
async fn what_is_set_for_a_room_while_its_members_are_to_come_is_told_with_it() {
    let house = House::new();
    let (alice, bob, carol) = (house.user("alice").await, house.user("bob").await, house.user("carol").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    carol.join(&room).await;
    carol.leave(&room).await;
    carol.join(&room).await;
    let left = memberships(&carol, &room).await[1];
    let token = bob.sync(None).await.next;
    lacks_members(&house, &room).await;
    let set = async |kind: &str, value: u32| {
        let content = to_raw_value(&json!({"value": value})).unwrap();
        house.accounts.set_account_data(&bob.id, Scope::Room(&room), kind, &content).await.unwrap();
    };
    set("x.one", 1).await;
    set("x.two", 1).await;
    let meanwhile = bob.sync(Some(token)).await;
    assert!(meanwhile.joined.is_empty());
    set("x.two", 2).await;
    becomes_whole(&house, &room, (&carol, left)).await;
    let data = |delta: &Delta| -> Vec<Value> {
        let events = values(&delta.joined[&room].part.account_data).into_iter();
        events.map(|event| event["type"].clone()).collect()
    };
    let whole = bob.sync(Some(meanwhile.next)).await;
    assert_eq!(data(&whole), ["x.one", "x.two"]);
    set("x.three", 1).await;
    assert_eq!(data(&bob.sync(Some(whole.next)).await), ["x.three"], "what the device has is not told again");
}

#[tokio::test]
async fn a_gap_in_a_room_whose_members_came_hides_nobody() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let (carol, dora) = (house.user("carol").await, house.user("dora").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    dora.join(&room).await;
    dora.leave(&room).await;
    dora.join(&room).await;
    let left = memberships(&dora, &room).await[1];
    assert_eq!(left.0, Membership::Leave);
    let token = bob.filtered(None, lazy(1)).await.next;
    carol.join(&room).await;
    alice.say(&room, "one").await;
    alice.say(&room, "two").await;
    becomes_whole(&house, &room, (&dora, left)).await;
    let delta = bob.filtered(Some(token), lazy(1)).await;
    assert_eq!(members(&delta, &room)[carol.id.as_str()]["membership"], "join");
}
