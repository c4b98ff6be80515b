//! What administrators remove is not told any more, and that it is gone is.

use super::{
    house::House,
    rooms::timeline,
    sliding::{ask, next, window},
};

#[tokio::test]
async fn purged_messages_are_not_told_from_memory() {
    let house = House::new();
    let (alice, bob, room) = house.couple().await;
    alice.say(&room, "old").await;
    let new = alice.say(&room, "new").await;
    assert!(timeline(&bob.sync(None).await, &room).contains(&"old".to_owned()));
    let first = house.rooms.first_place(&room).await.unwrap();
    let up_to = house.rooms.place_of(&room, &new).await.unwrap();
    assert_eq!(house.rooms.purge_some(&room, first, up_to, true).await.unwrap().1, 1);
    let told = timeline(&bob.sync(None).await, &room);
    assert!(told.contains(&"new".to_owned()) && !told.contains(&"old".to_owned()), "{told:?}");
}

#[tokio::test]
async fn a_device_that_was_away_hears_that_its_room_was_removed() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let (room, other) = (alice.room(&[]).await, alice.room(&[]).await);
    bob.join(&room).await;
    bob.join(&other).await;
    let mut request = window(&bob, 9, ask(1, &[]));
    assert!(next(&house, &mut request).await.rooms.contains_key(&room));
    let number = house.rooms.number(&room).await.unwrap().unwrap();
    house.rooms.evict(&room, None).await.unwrap();
    house.rooms.purge(&room, number, chappe_rooms::Force::No).await.unwrap();
    alice.say(&other, "life goes on").await;
    let answer = next(&house, &mut request).await;
    assert_eq!(answer.rooms[&room].membership, "leave");
    assert!(answer.rooms.contains_key(&other));
    alice.say(&other, "and on").await;
    assert_eq!(next(&house, &mut request).await.rooms.keys().collect::<Vec<_>>(), [&other]);
}
