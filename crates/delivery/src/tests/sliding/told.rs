//! What is told of a room: members, timeline, state, names, counts.

use std::time::Duration;

use ruma::events::receipt::ReceiptThread;
use serde_json::json;

use super::{LONG, ask, members, next, pattern, state, timeline, two, window};
use crate::{SlidingAnswer, WantedState, tests::house::House};

#[tokio::test]
async fn members_come_as_they_are_needed_and_once() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let carol = house.user("carol").await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    carol.join(&room).await;
    alice.say(&room, "hello").await;
    let mut asked = ask(1, &["m.room.create"]);
    asked.state.include.insert(pattern("m.room.member", Some(bob.id.as_str())));
    let mut request = window(&bob, 9, asked);
    let first = next(&house, &mut request).await;
    let told = &first.rooms[&room];
    assert_eq!(members(told), [alice.id.as_str(), bob.id.as_str()]);
    assert!(state(told).iter().any(|event| event["type"] == "m.room.create"));
    alice.say(&room, "again").await;
    assert_eq!(members(&next(&house, &mut request).await.rooms[&room]), [""; 0], "known by now");
    carol.say(&room, "me too").await;
    let answer = house.delivery.sliding_sync(&request).await.unwrap();
    assert_eq!(members(&answer.rooms[&room]), [carol.id.as_str()]);
    let again = next(&house, &mut request).await;
    assert_eq!(members(&again.rooms[&room]), [carol.id.as_str()], "the answer may not have arrived");
    carol.leave(&room).await;
    let left = next(&house, &mut request).await;
    assert_eq!(members(&left.rooms[&room]), [carol.id.as_str()], "what changes is told");
    assert_eq!(left.rooms[&room].members, Some((2, 0)));
}

#[tokio::test]
async fn more_of_the_timeline_and_of_the_state_comes_at_once() {
    let house = House::new();
    let (alice, _) = two(&house).await;
    let room = alice.room(&[]).await;
    alice.set(&room, "m.room.topic", json!({"topic": "t"})).await;
    for n in 0..5 {
        alice.say(&room, &n.to_string()).await;
    }
    let mut request = window(&alice, 9, ask(1, &["m.room.create"]));
    next(&house, &mut request).await;
    request.subscriptions.insert(room.clone(), ask(3, &["m.room.topic"]));
    request.timeout = LONG;
    let answer = next(&house, &mut request).await;
    let told = &answer.rooms[&room];
    assert!(told.expanded && !told.initial && told.live == 0);
    assert_eq!(timeline(told), ["2", "3", "4"]);
    let kinds: Vec<_> = state(told).iter().map(|event| event["type"].clone()).collect();
    assert_eq!(kinds, ["m.room.topic"], "the create event was told before");
    request.timeout = Duration::ZERO;
    assert!(next(&house, &mut request).await.rooms.is_empty());
    request.subscriptions.clear();
    next(&house, &mut request).await;
    request.subscriptions.insert(room.clone(), ask(3, &[]));
    assert!(next(&house, &mut request).await.rooms.is_empty(), "the device has those three");
}

#[tokio::test]
async fn names_pictures_and_heroes() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let mut request = window(&alice, 9, ask(1, &[]));
    let first = next(&house, &mut request).await;
    let told = &first.rooms[&room];
    assert_eq!((&told.name, told.members), (&Some(None), Some((2, 0))));
    assert_eq!(told.heroes[0].user, bob.id);
    alice.say(&room, "said").await;
    let bump = next(&house, &mut request).await.rooms[&room].bump;
    alice.set(&room, "m.room.name", json!({"name": "named"})).await;
    let named = next(&house, &mut request).await;
    let told = &named.rooms[&room];
    assert_eq!((&told.name, &told.avatar), (&Some(Some("named".to_owned())), &None));
    assert_eq!(told.bump, bump, "a name is nothing that was said");
    alice.set(&room, "m.room.name", json!({})).await;
    let unnamed = next(&house, &mut request).await;
    assert_eq!(unnamed.rooms[&room].name, Some(None));
    assert_eq!(unnamed.rooms[&room].heroes[0].user, bob.id);
}

#[tokio::test]
async fn members_that_come_behind_are_told_to_those_who_want_them() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    alice.set(&room, "m.room.topic", json!({"topic": "t"})).await;
    alice.say(&room, "hello").await;
    let mut lazy = window(&alice, 9, ask(1, &["m.room.topic"]));
    let mut all = window(&alice, 9, ask(1, &[]));
    all.connection = "all".to_owned();
    all.lists.get_mut("all").unwrap().ask.state =
        WantedState { include: [pattern("m.room.member", None)].into(), ..WantedState::default() };
    for request in [&mut lazy, &mut all] {
        next(&house, request).await;
    }
    let reader = house.store.read();
    let nid = reader.room_nid(&room).await.unwrap().unwrap();
    let old = reader.room_head(nid).await.unwrap();
    let whole = chappe_store::RoomHead { whole_since: chappe_store::WholeSince::Now, ..old.clone() };
    let mut tx = chappe_store::Tx::new();
    tx.replace_head(nid, &old, &whole);
    tx.log(chappe_store::LogEntry::Whole { room: nid.0, servers: Vec::new() });
    house.store.commit(tx).await.unwrap();
    let told = next(&house, &mut all).await;
    assert!(told.rooms[&room].initial);
    assert_eq!(members(&told.rooms[&room]), [alice.id.as_str(), bob.id.as_str()]);
    let told = next(&house, &mut lazy).await;
    assert_eq!(members(&told.rooms[&room]), [""; 0], "a lazy client gets no more than it needs");
    assert_eq!(told.rooms[&room].members, Some((2, 0)));
    for request in [&mut lazy, &mut all] {
        assert!(next(&house, request).await.rooms.is_empty(), "once");
    }
}

#[tokio::test]
async fn what_is_read_elsewhere_is_counted_no_more() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let mut request = window(&bob, 9, ask(1, &[]));
    next(&house, &mut request).await;
    alice.say(&room, "one").await;
    let said = alice.say(&room, "two").await;
    let count = |answer: &SlidingAnswer| {
        answer.rooms.get(&room).and_then(|room| Some(room.unread.as_ref()?.total.notifications))
    };
    assert_eq!(count(&next(&house, &mut request).await), Some(2));
    alice.read_thread(&room, &said, ReceiptThread::Main).await;
    assert_eq!(count(&next(&house, &mut request).await), None, "what others read is their business");
    request.timeout = LONG;
    let reads = bob.read_thread(&room, &said, ReceiptThread::Main);
    let (answer, ()) = tokio::join!(house.delivery.sliding_sync(&request), reads);
    let answer = answer.unwrap();
    assert_eq!(count(&answer), Some(0));
    let told = &answer.rooms[&room];
    assert!(!told.initial && told.part.is_none() && told.name.is_none(), "nothing else is new");
    (request.pos, request.timeout) = (Some(answer.pos), Duration::ZERO);
    assert_eq!(count(&next(&house, &mut request).await), None, "told once");
}
