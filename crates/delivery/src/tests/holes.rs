//! Where history is missing.

use chappe_store::{Tx, gaps::Gap};
use ruma::{EventId, RoomId, event_id};
use serde_json::json;

use super::house::{House, gist};

/// Makes something missing before an event.
async fn lacks(house: &House, room: &RoomId, event: &EventId) {
    let reader = house.store.read();
    let nid = reader.room_nid(room).await.unwrap().unwrap();
    let num = reader.event_num(nid, event).await.unwrap().unwrap();
    let ordinal = reader.event_meta(nid, num).await.unwrap().ordinal.unwrap();
    let mut tx = Tx::new();
    tx.put_gap(nid, &Gap { ordinal, num, missing: vec![event_id!("$missing:b.example").to_owned()] });
    house.store.commit(tx).await.unwrap();
}

#[tokio::test]
async fn a_timeline_ends_at_the_newest_hole_that_its_reader_may_see() {
    let house = House::new();
    let (alice, bob, room) = house.couple().await;
    let token = bob.sync(None).await.next;
    for body in ["one", "two", "three"] {
        let said = alice.say(&room, body).await;
        if body != "one" {
            lacks(&house, &room, &said).await;
        }
    }
    alice.say(&room, "four").await;
    bob.leave(&room).await;
    let said = alice.say(&room, "five").await;
    lacks(&house, &room, &said).await;
    alice.say(&room, "six").await;
    let here = alice.sync(None).await;
    let timeline = &here.joined[&room].part.timeline;
    assert_eq!(gist(&timeline.events), ["five", "six"]);
    assert!(timeline.limited);
    let gone = bob.sync(Some(token)).await;
    let timeline = &gone.left[&room].part.timeline;
    assert_eq!(gist(&timeline.events), ["three", "four", "m.room.member"]);
    assert!(timeline.limited);
    // Who reads less of it comes to no hole.
    let newest = json!({"room": {"timeline": {"limit": 2}}});
    let gone = bob.filtered(Some(token), newest).await;
    assert_eq!(gist(&gone.left[&room].part.timeline.events), ["four", "m.room.member"]);
}

#[tokio::test]
async fn a_hole_in_the_timeline_hides_nothing_unread() {
    let house = House::new();
    let (alice, bob, room) = house.couple().await;
    alice.say(&room, "before").await;
    let reader = house.store.read();
    let nid = reader.room_nid(&room).await.unwrap().unwrap();
    let old = reader.room_head(nid).await.unwrap();
    let (mut new, mut tx) = (old.clone(), Tx::new());
    new.open_hole();
    tx.replace_head(nid, &old, &new);
    house.store.commit(tx).await.unwrap();
    alice.say(&room, "after").await;
    assert_eq!(bob.sync(None).await.joined[&room].unread.total.notifications, 2);
}
