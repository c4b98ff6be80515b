//! Which rooms an answer tells of: windows, filters, spaces and tags.

use ruma::{OwnedRoomId, RoomId};
use serde_json::json;

use super::{ask, next, state, timeline, two, window};
use crate::{
    ListFilters, SlidingRequest,
    tests::house::{House, Person},
};

#[tokio::test]
async fn a_window_has_the_last_active_rooms_and_grows() {
    let house = House::new();
    let (alice, _) = two(&house).await;
    let mut rooms = Vec::new();
    for _ in 0..5 {
        rooms.push(alice.room(&[]).await);
    }
    alice.say(&rooms[0], "up").await;
    let mut request = window(&alice, 1, ask(1, &[]));
    let first = next(&house, &mut request).await;
    assert_eq!(first.counts["all"], 5);
    assert_eq!(first.rooms.keys().collect::<Vec<_>>().len(), 2);
    assert!(first.rooms.contains_key(&rooms[0]) && first.rooms.contains_key(&rooms[4]));
    let room = &first.rooms[&rooms[0]];
    assert!(room.initial && room.part.as_ref().unwrap().timeline.limited && room.live == 0);
    assert_eq!(timeline(room), ["up"]);
    request.lists.get_mut("all").unwrap().ranges = Some(vec![(0, 99)]);
    let second = next(&house, &mut request).await;
    assert_eq!(second.rooms.len(), 3, "those that were told are not told again");
    assert!(next(&house, &mut request).await.rooms.is_empty());
    alice.say(&rooms[2], "news").await;
    let third = next(&house, &mut request).await;
    let told = &third.rooms[&rooms[2]];
    assert_eq!((third.rooms.len(), told.initial, told.live), (1, false, 1));
    assert_eq!(timeline(told), ["news"]);
    assert!(!told.part.as_ref().unwrap().timeline.limited);
}

#[tokio::test]
async fn a_room_that_left_the_window_is_told_what_it_missed() {
    let house = House::new();
    let (alice, _) = two(&house).await;
    let (one, two) = (alice.room(&[]).await, alice.room(&[]).await);
    alice.say(&one, "begin").await;
    let mut request = window(&alice, 0, ask(2, &["m.room.topic"]));
    assert!(next(&house, &mut request).await.rooms.contains_key(&one));
    alice.set(&one, "m.room.topic", json!({"topic": "missed"})).await;
    for n in 0..3 {
        alice.say(&one, &n.to_string()).await;
    }
    alice.say(&two, "in front").await;
    let answer = next(&house, &mut request).await;
    assert_eq!(answer.rooms.keys().collect::<Vec<_>>(), [&two]);
    alice.say(&one, "back").await;
    let answer = next(&house, &mut request).await;
    let room = &answer.rooms[&one];
    assert!(!room.initial && room.part.as_ref().unwrap().timeline.limited);
    assert_eq!(timeline(room), ["2", "back"]);
    assert_eq!(state(room)[0]["content"]["topic"], "missed");
    assert_eq!(room.live, 1, "only the last one came since the device asked");
}

fn filtered(person: &Person<'_>, filters: ListFilters) -> SlidingRequest {
    let mut request = window(person, 99, ask(0, &[]));
    request.lists.get_mut("all").unwrap().filters = filters;
    request
}

#[tokio::test]
async fn filters_choose_rooms() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let plain = alice.room(&[]).await;
    let secret = alice.room(&[]).await;
    alice.set(&secret, "m.room.encryption", json!({"algorithm": "m.megolm.v1.aes-sha2"})).await;
    let direct = alice.room(&[]).await;
    let content = json!({bob.id.as_str(): [direct]}).to_string();
    let content = serde_json::value::RawValue::from_string(content).unwrap();
    let scope = chappe_accounts::Scope::Global;
    house.accounts.set_account_data(&alice.id, scope, "m.direct", &content).await.unwrap();
    let invite = bob.room(&[&alice]).await;
    house
        .accounts
        .update_tags(&alice.id, &plain, |tags| drop(tags.insert("m.favourite".into(), json!({}))))
        .await
        .unwrap();
    let space = {
        let mut request = ruma::api::client::room::create_room::v3::Request::new();
        let creation = json!({"type": "m.space"}).to_string();
        request.creation_content = Some(serde_json::from_str(&creation).unwrap());
        house.rooms.create(&alice.actor(), request).await.unwrap()
    };
    let child = chappe_rooms::Draft::state(
        "m.space.child".to_owned(),
        secret.as_str(),
        json!({"via": ["a.example"]}).as_object().unwrap().clone(),
    );
    house.rooms.send(&alice.actor(), &space, child, None).await.unwrap();
    let found = async |filters: ListFilters| -> Vec<OwnedRoomId> {
        let answer = next(&house, &mut filtered(&alice, filters)).await;
        assert_eq!(answer.counts["all"], answer.rooms.len());
        answer.rooms.into_keys().collect()
    };
    let only = |room: &RoomId| vec![room.to_owned()];
    let none = ListFilters::default;
    assert_eq!(found(none()).await.len(), 5);
    assert_eq!(found(ListFilters { is_encrypted: Some(true), ..none() }).await, only(&secret));
    assert_eq!(found(ListFilters { is_dm: Some(true), ..none() }).await, only(&direct));
    assert_eq!(found(ListFilters { is_invite: Some(true), ..none() }).await, only(&invite));
    assert_eq!(found(ListFilters { is_invite: Some(false), ..none() }).await.len(), 4);
    let spaces = Some(Some("m.space".to_owned())).into_iter().collect();
    assert_eq!(found(ListFilters { room_types: Some(spaces), ..none() }).await, only(&space));
    let spaces = Some(Some("m.space".to_owned())).into_iter().collect();
    assert_eq!(found(ListFilters { not_room_types: spaces, ..none() }).await.len(), 4);
    assert_eq!(found(ListFilters { spaces: Some([space.clone()].into()), ..none() }).await, only(&secret));
    assert_eq!(
        found(ListFilters { tags: Some(["m.favourite".to_owned()].into()), ..none() }).await,
        only(&plain)
    );
    assert_eq!(found(ListFilters { not_tags: ["m.favourite".to_owned()].into(), ..none() }).await.len(), 4);
}

#[tokio::test]
async fn tags_and_spaces_are_read_when_they_change() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let (space, one, two) = (alice.room(&[]).await, alice.room(&[]).await, alice.room(&[]).await);
    bob.join(&one).await;
    let child = async |room: &RoomId| {
        let content = json!({"via": ["a.example"]}).as_object().unwrap().clone();
        let draft = chappe_rooms::Draft::state("m.space.child".to_owned(), room.as_str(), content);
        house.rooms.send(&alice.actor(), &space, draft, None).await.unwrap();
    };
    child(&one).await;
    let filters = ListFilters {
        spaces: Some([space.clone()].into()),
        not_tags: ["u.hidden".to_owned()].into(),
        ..ListFilters::default()
    };
    let mut request = window(&alice, 99, ask(1, &[]));
    request.lists.get_mut("all").unwrap().filters = filters;
    assert_eq!(next(&house, &mut request).await.rooms.keys().collect::<Vec<_>>(), [&one]);
    let mut plain = window(&alice, 99, ask(1, &[]));
    plain.connection = "plain".to_owned();
    next(&house, &mut plain).await;
    bob.say(&one, "news").await;
    next(&house, &mut request).await;
    next(&house, &mut plain).await;
    bob.say(&one, "more news").await;
    let _ = house.trips.take();
    next(&house, &mut plain).await;
    let without = house.trips.take();
    next(&house, &mut request).await;
    let with = house.trips.take();
    assert!(
        with.0 <= without.0 + 2 && with.1 <= without.1,
        "{with:?} {without:?}: filters read nothing again"
    );
    child(&two).await;
    assert!(next(&house, &mut request).await.rooms.contains_key(&two));
    let tag = |tags: &mut serde_json::Map<_, _>| drop(tags.insert("u.hidden".to_owned(), json!({})));
    house.accounts.update_tags(&alice.id, &one, tag).await.unwrap();
    assert_eq!(next(&house, &mut request).await.counts["all"], 1);
}

#[tokio::test]
async fn rooms_of_others_are_not_there() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    let mut request = window(&bob, 9, ask(1, &[]));
    request.subscriptions.insert(room.clone(), ask(9, &["m.room.create"]));
    request.subscriptions.insert(ruma::owned_room_id!("!nowhere:a.example"), ask(9, &[]));
    let answer = next(&house, &mut request).await;
    assert!(answer.rooms.is_empty());
}
