//! What happens beside a join: it is news, and what was before the join is history.

use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use serde_json::{Map, json};

use super::{
    hostile::{by_bob, push},
    net::{ALICE, BOB, CAROL, Net, actor, bodies, history, join, membership, room, say, whole_state},
};
use crate::Rooms;

/// Messages in the room before the join: more than one answer has.
const MANY: usize = 60;

/// Alice's room.
async fn open_room(a: &Rooms) -> OwnedRoomId {
    room(a, ALICE, json!({ "preset": "public_chat", "room_version": "11" })).await
}

/// Alice says much that is told to those who are there.
async fn says_much(net: &Net, a: &Rooms, id: &RoomId, numbers: std::ops::Range<usize>) {
    for number in numbers {
        say(a, ALICE, id, &number.to_string()).await;
    }
    net.deliver().await;
}

async fn heads(rooms: &Rooms, id: &RoomId) -> Vec<OwnedEventId> {
    let view = rooms.view(id).await.unwrap();
    let heads = view.load(&view.head.extremities).await.unwrap();
    heads.iter().map(|event| event.pdu.event_id().to_owned()).collect()
}

/// All that was said before, the newest first.
fn numbers() -> Vec<String> {
    (0..MANY).rev().map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn what_is_said_beside_a_join_is_news_and_what_was_said_before_it_is_not() {
    for comes_back in [false, true] {
        let net = Net::default();
        let (a, c) = (net.server("a.example", 1), net.server("c.example", 3));
        let id = open_room(&a).await;
        if comes_back {
            join(&c, CAROL, &id).await;
            c.leave(&actor(CAROL), &id, None).await.unwrap();
            net.deliver().await;
        }
        says_much(&net, &a, &id, 0..MANY).await;
        // After the template was made, and before the join is there.
        let (alice, at) = (a.clone(), id.clone());
        let says = async move { drop(say(&alice, ALICE, &at, "beside").await) };
        net.before.lock().insert("keys", Box::pin(says));
        join(&c, CAROL, &id).await;
        assert_eq!(bodies(&a, &id).await.last().unwrap(), "beside");
        let next = say(&a, ALICE, &id, "next").await;
        (*net.gaps.lock(), *net.states.lock()) = (0, 0);
        net.deliver().await;
        assert_eq!(bodies(&c, &id).await, ["beside", "next"]);
        assert_eq!(heads(&c, &id).await, [next]);
        assert_eq!((*net.gaps.lock(), *net.states.lock()), (1, 1));
        assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
        // Who scrolls back comes to it.
        let said = history(&c, CAROL, &id, 50).await;
        assert_eq!(said, [vec!["next".to_owned(), "beside".to_owned()], numbers()].concat());
        say(&c, CAROL, &id, "from c").await;
        net.deliver().await;
        assert_eq!(bodies(&a, &id).await.last().unwrap(), "from c");
    }
}

#[tokio::test]
async fn two_who_come_at_the_same_time_hear_nothing_of_what_was_before_as_news() {
    let net = Net::default();
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), net.server("c.example", 3));
    let id = open_room(&a).await;
    says_much(&net, &a, &id, 0..MANY).await;
    let (bob, at) = (b.clone(), id.clone());
    let comes = async move {
        let via = vec![ruma::server_name!("a.example").to_owned()];
        bob.join(&actor(BOB), &at, via, Map::new()).await.unwrap();
    };
    net.before.lock().insert("keys", Box::pin(comes));
    join(&c, CAROL, &id).await;
    (*net.gaps.lock(), *net.states.lock()) = (0, 0);
    net.deliver().await;
    assert_eq!(membership(&b, &id, CAROL).await, Some("join"));
    // What is before both joins is known to be old.
    assert_eq!((*net.gaps.lock(), *net.states.lock()), (0, 1));
    let hello = say(&a, ALICE, &id, "hello").await;
    net.deliver().await;
    for rooms in [&b, &c] {
        assert_eq!(bodies(rooms, &id).await, ["hello"]);
        assert_eq!(heads(rooms, &id).await, std::slice::from_ref(&hello));
        assert_eq!(whole_state(rooms, &id).await, whole_state(&a, &id).await);
    }
    assert_eq!((*net.gaps.lock(), *net.states.lock()), (1, 2));
}

/// Somebody's server did not hear of much, and what it says follows what it knows.
#[tokio::test]
async fn a_branch_that_parted_before_a_join_brings_nothing_of_before_as_news() {
    let net = Net::default();
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), net.server("c.example", 3));
    let id = open_room(&a).await;
    join(&b, BOB, &id).await;
    says_much(&net, &a, &id, 0..MANY / 2).await;
    for number in MANY / 2..MANY {
        say(&a, ALICE, &id, &number.to_string()).await;
    }
    net.lose(&a, "b.example").await;
    say(&b, BOB, &id, "slow").await;
    join(&c, CAROL, &id).await;
    net.deliver().await;
    let next = say(&a, ALICE, &id, "next").await;
    (*net.gaps.lock(), *net.states.lock()) = (0, 0);
    net.deliver().await;
    assert_eq!(bodies(&c, &id).await, ["next"]);
    assert_eq!(heads(&c, &id).await, [next]);
    assert_eq!((*net.gaps.lock(), *net.states.lock()), (1, 1));
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
    let mut said = history(&c, CAROL, &id, 50).await;
    assert_eq!(said.drain(..2).collect::<Vec<_>>(), ["next", "slow"]);
    said.sort_by_key(|number| std::cmp::Reverse(number.parse::<usize>().unwrap()));
    assert_eq!(said, numbers());
}

/// How deep an event is its server only claims.
#[tokio::test]
async fn who_claims_to_be_shallow_does_not_make_what_follows_old() {
    let net = Net::default();
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), net.server("c.example", 3));
    let id = open_room(&a).await;
    join(&b, BOB, &id).await;
    says_much(&net, &a, &id, 0..MANY).await;
    join(&c, CAROL, &id).await;
    net.deliver().await;
    let mut prev = heads(&a, &id).await;
    let mut last = None;
    for (depth, body) in ["one", "two", "three"].into_iter().enumerate() {
        let said = json!({
            "type": "m.room.message", "content": { "msgtype": "m.text", "body": body }, "depth": depth + 1,
            "prev_events": prev,
        });
        let event = by_bob(&a, &id, ("m.room.member", BOB), &said).await;
        prev = vec![push(&a, &event).await];
        last = Some(event);
    }
    c.receive(a.server(), vec![last.unwrap()]).await.remove(0).result.unwrap();
    assert_eq!(bodies(&c, &id).await, ["one", "two", "three"]);
}
