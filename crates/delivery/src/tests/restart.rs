//! What a restart costs those who were there before it.

use std::collections::BTreeSet;

use chappe_accounts::Scope;
use ruma::RoomId;
use serde_json::{json, value::to_raw_value};

use super::{
    house::{House, Person},
    rooms::timeline,
};

const ROOMS: u64 = 100;

#[tokio::test]
async fn rooms_in_which_nothing_happened_are_looked_at_once_for_everybody() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let mut rooms = Vec::new();
    for _ in 0..ROOMS {
        let room = alice.room(&[]).await;
        bob.join(&room).await;
        rooms.push(room);
    }
    let (spoken, read, marked) = (&rooms[40], &rooms[60], &rooms[80]);
    let old = alice.say(read, "old").await;
    let (for_alice, for_bob) = (alice.sync(None).await.next, bob.sync(None).await.next);
    alice.say(spoken, "new").await;
    bob.read(read, &old).await;
    let content = to_raw_value(&json!({"a": 1})).unwrap();
    house.accounts.set_account_data(&alice.id, Scope::Room(marked), "x.mine", &content).await.unwrap();
    let (alice, bob) = (alice.id.clone(), bob.id.clone());
    let house = house.restarted().await;
    let [alice, bob] = [alice, bob].map(|id| Person { house: &house, id, device: "D" });
    let told = async |person: &Person<'_>, since| {
        let _ = house.trips.take();
        let delta = person.sync(Some(since)).await;
        let (gets, scans, _) = house.trips.take();
        assert_eq!(timeline(&delta, spoken), ["new"]);
        let rooms: BTreeSet<_> = delta.joined.keys().cloned().collect();
        (rooms, gets + scans)
    };
    let set = |rooms: &[&RoomId]| -> BTreeSet<_> { rooms.iter().map(|room| (*room).to_owned()).collect() };
    let (of_alice, first) = told(&alice, for_alice).await;
    assert_eq!(of_alice, set(&[spoken, read, marked]));
    assert!(first < 3 * ROOMS, "{first} reads");
    let (of_bob, second) = told(&bob, for_bob).await;
    assert_eq!(of_bob, set(&[spoken, read]));
    assert!(second < ROOMS, "{second} reads");
}
