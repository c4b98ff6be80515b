//! What erased users said and set, for those who were there and for those who were not.

use chappe_accounts::Erase;
use serde_json::json;

use super::{
    house::{House, Person, gist},
    sticky::stick,
};

#[tokio::test]
async fn what_they_had_set_before_a_timeline_is_for_those_who_were_there() {
    let house = House::new();
    let (alice, bob, room) = house.couple().await;
    let carol = house.user("carol").await;
    alice.set(&room, "m.room.topic", json!({"topic": "hidden"})).await;
    bob.say(&room, "then").await;
    alice.set(&room, "m.room.topic", json!({"topic": "holds"})).await;
    carol.join(&room).await;
    let told = async |who: &Person<'_>| {
        let filter = json!({"room": {"timeline": {"limit": 3}}});
        let delta = who.filtered(None, filter).await;
        let part = &delta.joined[&room].part;
        assert_eq!(gist(&part.timeline.events), ["then", "m.room.topic", "m.room.member"]);
        format!("{part:?}")
    };
    assert!(told(&carol).await.contains("hidden"));
    house.accounts.deactivate(&alice.id, Erase::Yes).await.unwrap();
    let (there, not_there) = (told(&bob).await, told(&carol).await);
    assert!(there.contains("hidden"), "{there}");
    assert!(!not_there.contains("hidden") && not_there.contains("holds"), "{not_there}");
}

#[tokio::test]
async fn what_they_stuck_is_for_those_who_were_there() {
    let house = House::new();
    let (alice, bob, room) = house.couple().await;
    let carol = house.user("carol").await;
    stick(&alice, &room, "sticks", 60_000).await;
    carol.join(&room).await;
    let told = async |who: &Person<'_>| {
        let delta = who.filtered(None, json!({"room": {"timeline": {"types": []}}})).await;
        gist(&delta.joined[&room].sticky)
    };
    assert_eq!(told(&carol).await, ["sticks"]);
    house.accounts.deactivate(&alice.id, Erase::Yes).await.unwrap();
    assert_eq!(told(&bob).await, ["sticks"]);
    assert!(told(&carol).await.is_empty());
}
