//! Coming and going: invites, leaving, being put out.

use chappe_rooms::Change;
use chappe_store::{Table, TableInfo, Tx, registry};
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::json;

use super::{LONG, ask, members, next, state, timeline, two, window};
use crate::{
    NotificationsRequest, Scope,
    tests::house::{House, Person, values},
};

#[tokio::test]
async fn invites_tell_what_may_be_known() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let mut request = window(&bob, 9, ask(9, &["m.room.create"]));
    next(&house, &mut request).await;
    let room = alice.room(&[&bob]).await;
    alice.say(&room, "not for the invited").await;
    let answer = next(&house, &mut request).await;
    let told = &answer.rooms[&room];
    assert!(told.part.is_none() && told.unread.is_none() && told.heroes.is_empty());
    let stripped = values(told.stripped.as_ref().unwrap());
    assert!(stripped.iter().any(|event| event["state_key"] == bob.id.as_str()));
    assert!(next(&house, &mut request).await.rooms.is_empty());
    bob.join(&room).await;
    let answer = next(&house, &mut request).await;
    let told = &answer.rooms[&room];
    assert!(told.initial && told.stripped.is_none() && !state(told).is_empty());
    let ignored = json!({"ignored_users": {alice.id.as_str(): {}}}).to_string();
    let content = serde_json::value::RawValue::from_string(ignored).unwrap();
    let scope = chappe_accounts::Scope::Global;
    house.accounts.set_account_data(&bob.id, scope, "m.ignored_user_list", &content).await.unwrap();
    alice.room(&[&bob]).await;
    let answer = next(&house, &mut request).await;
    assert_eq!((answer.rooms.len(), answer.counts["all"]), (0, 1), "invites of the ignored are not there");
}

/// Invites of `person` to rooms elsewhere.
async fn invited_elsewhere(person: &Person<'_>, count: usize) {
    let room = |n| OwnedRoomId::try_from(format!("!r{n}:b.example")).unwrap();
    note_elsewhere(person, &(0..count).map(room).collect::<Vec<_>>(), "invite").await;
}

/// Notes what `person` is in rooms elsewhere: invited, or no longer.
async fn note_elsewhere(person: &Person<'_>, rooms: &[OwnedRoomId], membership: &str) {
    let member = json!({"type": "m.room.member", "sender": "@x:b.example", "state_key": person.id, "room_id": "!r:b.example",
        "content": {"membership": "invite"}, "origin_server_ts": 1, "depth": 1, "auth_events": [], "prev_events": [],
        "hashes": {"sha256": ""}, "signatures": {}});
    let mut tx = Tx::new();
    for (n, room) in rooms.iter().enumerate() {
        let what = chappe_store::out_of_band::OutOfBand {
            membership: membership.to_owned(),
            event: serde_json::value::to_raw_value(&member).unwrap(),
            event_id: format!("$invite{n}"),
            state: Vec::new(),
            version: Some("11".to_owned()),
            via: Vec::new(),
            number: None,
        };
        tx.put_out_of_band(&person.id, room, &what);
    }
    person.house.store.commit(tx).await.unwrap();
}

#[tokio::test]
async fn many_invites_are_told_once_and_hide_nothing() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    invited_elsewhere(&bob, 201).await;
    let mut request = window(&bob, 999, ask(1, &[]));
    let first = next(&house, &mut request).await;
    assert_eq!((first.rooms.len(), first.counts["all"]), (200, 202));
    let second = next(&house, &mut request).await;
    assert!(second.rooms.len() == 2 && second.rooms.contains_key(&room), "{:?}", second.rooms.keys());
    request.timeout = LONG;
    let waiting = house.delivery.sliding_sync(&request);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending(), "the device has them all");
    alice.say(&room, "news").await;
    assert_eq!(waiting.await.unwrap().rooms.keys().collect::<Vec<_>>(), [&room]);
}

/// What is noted of rooms elsewhere, whatever it is.
struct Noted;

impl Table for Noted {
    const INFO: TableInfo = registry::OUT_OF_BAND;
    type Key = (OwnedUserId, OwnedRoomId);
    type Value = Vec<u8>;
}

#[tokio::test]
async fn of_the_invites_that_wait_only_a_new_one_is_read() {
    let house = House::new();
    let bob = house.user("bob").await;
    invited_elsewhere(&bob, 3).await;
    let token = bob.sync(None).await.next;
    let mut request = window(&bob, 9, ask(1, &[]));
    assert_eq!(next(&house, &mut request).await.rooms.len(), 3);
    let known = OwnedRoomId::try_from("!r1:b.example").unwrap();
    let mut tx = Tx::new();
    tx.put::<Noted>(&(bob.id.clone(), known), &b"damaged".to_vec());
    house.store.commit(tx).await.unwrap();

    let new = OwnedRoomId::try_from("!new:b.example").unwrap();
    note_elsewhere(&bob, std::slice::from_ref(&new), "invite").await;
    let delta = bob.sync(Some(token)).await;
    assert_eq!(delta.invited.keys().collect::<Vec<_>>(), [&new]);
    let answer = next(&house, &mut request).await;
    assert_eq!(answer.rooms.keys().collect::<Vec<_>>(), [&new]);
    assert_eq!(answer.counts["all"], 4);
    let asked = NotificationsRequest { limit: 1, ..NotificationsRequest::default() };
    let page = house.delivery.notifications(&bob.id, &asked).await.unwrap();
    assert!(page.list[0].room == new && page.next.is_some(), "{page:?}");
}

#[tokio::test]
async fn an_invite_to_a_room_that_was_left_is_an_invite() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let connection = |name: &str| {
        let mut request = window(&bob, 9, ask(1, &[]));
        request.connection = name.to_owned();
        request
    };
    let (mut request, mut away) = (connection("here"), connection("away"));
    next(&house, &mut request).await;
    next(&house, &mut away).await;
    let token = bob.sync(None).await.next;
    alice.change(&room, &bob, Change::Kick).await;
    note_elsewhere(&bob, std::slice::from_ref(&room), "invite").await;
    for (since, filter) in [(Some(token), json!({})), (None, json!({"room": {"include_leave": true}}))] {
        let delta = bob.filtered(since, filter).await;
        assert!(delta.invited.contains_key(&room) && delta.left.is_empty(), "{delta:?}");
    }
    let mut by_itself = connection("by itself");
    by_itself.lists.clear();
    by_itself.subscriptions.insert(room.clone(), ask(1, &[]));
    let mut fresh = connection("fresh");
    for request in [&mut request, &mut fresh, &mut by_itself] {
        let answer = next(&house, request).await;
        assert_eq!(answer.rooms[&room].membership, "invite");
        assert!(answer.counts.get("all").is_none_or(|count| *count == 1));
        assert!(next(&house, request).await.rooms.is_empty(), "told once");
    }
    note_elsewhere(&bob, std::slice::from_ref(&room), "leave").await;
    for request in [&mut request, &mut away] {
        let answer = next(&house, request).await;
        assert_eq!((answer.rooms[&room].membership, answer.counts["all"]), ("leave", 0));
        assert!(next(&house, request).await.rooms.is_empty(), "told once");
    }
    // A device that was told of no invite has the room as it was left here.
    let (mut late, mut late_by_itself) = (connection("late"), connection("late by itself"));
    late_by_itself.lists.clear();
    late_by_itself.subscriptions.insert(room.clone(), ask(1, &[]));
    for request in [&mut late, &mut late_by_itself] {
        let answer = next(&house, request).await;
        assert_eq!(answer.rooms[&room].membership, "leave");
        let again = next(&house, request).await;
        assert!(again.rooms.is_empty(), "told once");
        for answer in [answer, again] {
            assert!(answer.counts.get("all").is_none_or(|count| *count == 1), "it stays listed");
        }
    }
    bob.join(&room).await;
    let answer = next(&house, &mut request).await;
    assert!(answer.rooms[&room].initial && answer.rooms[&room].membership == "join");
}

#[tokio::test]
async fn data_stops_when_the_user_is_put_out() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let mut request = window(&bob, 9, ask(9, &["m.room.topic"]));
    request.subscriptions.insert(room.clone(), ask(9, &["m.room.topic"]));
    request.extensions.typing = Some(Scope::default());
    request.extensions.receipts = Some(Scope::default());
    next(&house, &mut request).await;
    alice.change(&room, &bob, Change::Ban).await;
    let secret = alice.say(&room, "secret").await;
    alice.set(&room, "m.room.topic", json!({"topic": "secret"})).await;
    alice.set(&room, "m.room.name", json!({"name": "secret"})).await;
    alice.read(&room, &secret).await;
    house.delivery.typing().set_local(&room, &alice.id, Some(LONG)).await.unwrap();
    let answer = next(&house, &mut request).await;
    let told = &answer.rooms[&room];
    assert_eq!((told.membership, timeline(told)), ("ban", vec!["m.room.member".to_owned()]));
    assert_eq!(members(told), [bob.id.as_str()]);
    assert!(told.name.is_none() && told.unread.is_none());
    assert!(answer.extensions.typing.is_empty() && answer.extensions.receipts.is_empty());
    alice.say(&room, "more").await;
    let answer = next(&house, &mut request).await;
    assert!(answer.rooms.is_empty() && answer.extensions.typing.is_empty());
    let mut fresh = window(&bob, 9, ask(9, &["m.room.topic", "m.room.name"]));
    fresh.connection = "other".to_owned();
    let answer = next(&house, &mut fresh).await;
    let text = format!("{:?}", answer.rooms[&room].part);
    assert!(!text.contains("secret") && !text.contains("more"), "{text}");
}

#[tokio::test]
async fn what_was_said_before_a_ban_is_told_after_it_was_lifted() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let mut request = window(&bob, 9, ask(9, &["m.room.topic"]));
    next(&house, &mut request).await;
    alice.set(&room, "m.room.topic", json!({"topic": "seen"})).await;
    alice.say(&room, "seen").await;
    alice.change(&room, &bob, Change::Ban).await;
    alice.set(&room, "m.room.topic", json!({"topic": "secret"})).await;
    alice.change(&room, &bob, Change::Unban).await;
    let answer = next(&house, &mut request).await;
    let told = &answer.rooms[&room];
    assert_eq!(told.membership, "leave");
    assert_eq!(timeline(told), ["m.room.topic", "seen", "m.room.member"]);
    assert!(!format!("{:?}", told.part).contains("secret"));
    assert!(state(told).iter().any(|event| event["content"]["topic"] == "seen"));
}

#[tokio::test]
async fn data_stops_and_begins_when_states_are_resolved() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    alice.change(&room, &bob, Change::Ban).await;
    alice.change(&room, &bob, Change::Unban).await;
    bob.join(&room).await;
    let token = bob.sync(None).await.next;
    let mut request = window(&bob, 9, ask(9, &[]));
    next(&house, &mut request).await;
    let (ban, join) = (crate::tests::house::memberships(&bob, &room).await).into_iter().fold(
        (None, None),
        |(ban, join), (kind, num)| match kind {
            chappe_store::Membership::Ban => (Some(num), join),
            chappe_store::Membership::Join => (ban, Some(num)),
            _ => (ban, join),
        },
    );
    for many in [false, true] {
        crate::tests::house::resolve(&bob, &room, (chappe_store::Membership::Ban, ban.unwrap()), many).await;
        alice.say(&room, "secret").await;
        let delta = bob.sync(Some(token)).await;
        assert!(delta.joined.is_empty() && delta.left.contains_key(&room));
        assert!(!format!("{delta:?}").contains("secret"));
        let answer = next(&house, &mut request).await;
        assert_eq!(answer.rooms[&room].membership, "ban");
        assert!(!format!("{answer:?}").contains("secret"));
        crate::tests::house::resolve(&bob, &room, (chappe_store::Membership::Join, join.unwrap()), many)
            .await;
        alice.say(&room, "for all").await;
        let delta = bob.sync(Some(token)).await;
        assert!(format!("{:?}", delta.joined[&room]).contains("for all"), "whoever is merged in is told");
        let answer = next(&house, &mut request).await;
        assert!(timeline(&answer.rooms[&room]).contains(&"for all".to_owned()));
    }
}

#[tokio::test]
async fn a_forgotten_room_is_gone_at_once() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    alice.change(&room, &bob, Change::Kick).await;
    let mut request = window(&bob, 9, ask(1, &[]));
    assert_eq!(next(&house, &mut request).await.counts["all"], 1, "others put the user out: it stays listed");
    let token = bob.sync(None).await.next;
    house.rooms.forget(&bob.id, &room).await.unwrap();
    assert_eq!(next(&house, &mut request).await.counts["all"], 0);
    assert!(bob.sync(Some(token)).await.is_empty());
}

#[tokio::test]
async fn who_leaves_is_told_so_once() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let mut request = window(&bob, 9, ask(1, &[]));
    next(&house, &mut request).await;
    bob.leave(&room).await;
    let answer = next(&house, &mut request).await;
    assert_eq!((answer.rooms[&room].membership, answer.counts["all"]), ("leave", 0));
    let answer = next(&house, &mut request).await;
    assert_eq!((answer.rooms.len(), answer.counts["all"]), (0, 0));
    bob.join(&room).await;
    let answer = next(&house, &mut request).await;
    assert!(answer.rooms[&room].initial && answer.rooms[&room].part.as_ref().unwrap().timeline.limited);
}
