//! A client that only applies deltas always knows what the server knows.

use std::collections::{BTreeMap, BTreeSet};

use chappe_rooms::Change;
use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use serde_json::{Value, json};

use super::house::{House, Person, values};
use crate::{Delta, StatePart, SyncToken};

/// A small generator: the same seed, the same story.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// What a client has made of its deltas.
#[derive(Default)]
struct Client {
    token: Option<SyncToken>,
    rooms: BTreeMap<OwnedRoomId, BTreeMap<(String, String), String>>,
    seen: BTreeSet<String>,
}

fn key(event: &Value) -> Option<(String, String)> {
    Some((event["type"].as_str()?.to_owned(), event["state_key"].as_str()?.to_owned()))
}

impl Client {
    fn apply(&mut self, delta: &Delta) {
        for (room, joined) in &delta.joined {
            let state = self.rooms.entry(room.clone()).or_default();
            let timeline = values(&joined.part.timeline.events);
            let told = values(joined.part.state.events());
            let in_order: Vec<&Value> = match &joined.part.state {
                StatePart::Before(_) => told.iter().chain(&timeline).collect(),
                StatePart::After(_) => told.iter().collect(),
            };
            for event in in_order {
                if let Some(key) = key(event) {
                    state.insert(key, event["event_id"].as_str().unwrap().to_owned());
                }
            }
            for event in &timeline {
                let id = event["event_id"].as_str().unwrap().to_owned();
                assert!(self.seen.insert(format!("{room} {id}")), "told twice: {event}");
            }
        }
        for room in delta.left.keys() {
            self.rooms.remove(room);
            let prefix = format!("{room} ");
            self.seen.retain(|seen| !seen.starts_with(&prefix));
        }
        self.token = Some(delta.next);
    }
}

async fn truth(person: &Person<'_>, room: &RoomId) -> BTreeMap<(String, String), String> {
    let state = person.house.rooms.state(&person.actor(), room).await.unwrap();
    let state = values(&state);
    state.iter().map(|event| (key(event).unwrap(), event["event_id"].as_str().unwrap().to_owned())).collect()
}

/// One random act; what is not allowed does not happen.
async fn act(dice: &mut Dice, people: &[Person<'_>], rooms: &[OwnedRoomId], said: &mut Vec<OwnedEventId>) {
    let who = &people[usize::try_from(dice.roll(people.len() as u64)).unwrap()];
    let whom = &people[usize::try_from(dice.roll(people.len() as u64)).unwrap()];
    let room = &rooms[usize::try_from(dice.roll(rooms.len() as u64)).unwrap()];
    let handle = &who.house.rooms;
    let content = |value: Value| value.as_object().unwrap().clone();
    match dice.roll(10) {
        0 | 1 => drop(handle.join(&who.actor(), room, Vec::new(), serde_json::Map::new()).await),
        2 if who.id != people[0].id => drop(handle.leave(&who.actor(), room, None).await),
        3 => drop(handle.change(&people[0].actor(), room, &whom.id, Change::Kick, None).await),
        4 => {
            let topic = json!({"topic": dice.roll(1_000).to_string()});
            let draft = chappe_rooms::Draft::state("m.room.topic".to_owned(), "", content(topic));
            drop(handle.send(&people[0].actor(), room, draft, None).await);
        }
        5 if !said.is_empty() => {
            let target = &said[usize::try_from(dice.roll(said.len() as u64)).unwrap()];
            let draft = chappe_rooms::Draft::redaction(target, None);
            drop(handle.send(&people[0].actor(), room, draft, None).await);
        }
        _ => {
            let words = json!({"msgtype": "m.text", "body": dice.roll(1_000).to_string()});
            let draft = chappe_rooms::Draft::message("m.room.message".into(), content(words));
            said.extend(handle.send(&who.actor(), room, draft, None).await.ok());
        }
    }
}

async fn story(seed: u64) {
    let mut dice = Dice(seed);
    let house = House::new();
    let mut people = Vec::new();
    for name in ["alice", "bob", "carol", "dora"] {
        people.push(house.user(name).await);
    }
    let rooms = [people[0].room(&[]).await, people[0].room(&[]).await];
    let mut clients: Vec<Client> = people.iter().map(|_| Client::default()).collect();
    let mut said = Vec::new();
    for _ in 0..120 {
        for _ in 0..=dice.roll(6) {
            act(&mut dice, &people, &rooms, &mut said).await;
        }
        let n = usize::try_from(dice.roll(people.len() as u64)).unwrap();
        let (person, client) = (&people[n], &mut clients[n]);
        let mut request =
            person.request(client.token, json!({"room": {"timeline": {"limit": 1 + dice.roll(8)}}}));
        request.state_after = dice.roll(2) == 0;
        client.apply(&house.delivery.sync(&request).await.unwrap());
        let joined: BTreeSet<OwnedRoomId> =
            house.rooms.joined_rooms(&person.id).await.unwrap().into_iter().collect();
        assert_eq!(client.rooms.keys().cloned().collect::<BTreeSet<_>>(), joined, "seed {seed}");
        for room in &joined {
            assert_eq!(client.rooms[room], truth(person, room).await, "seed {seed}, {} in {room}", person.id);
        }
    }
}

#[tokio::test]
async fn deltas_add_up_to_the_truth() {
    for seed in 0..12 {
        story(seed).await;
    }
}
