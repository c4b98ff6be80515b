//! Sliding sync: windows, rooms, what is told when.

mod connections;
mod extensions;
mod memberships;
mod told;
mod windows;

use std::{collections::BTreeMap, time::Duration};

use ruma::presence::PresenceState;
use serde_json::Value;

use super::house::{House, Person, gist, values};
use crate::{
    ExtensionsAsk, List, ListFilters, Pattern, RoomAsk, SlidingAnswer, SlidingRequest, SlidingRoom,
    WantedState,
};

const LONG: Duration = Duration::from_mins(1);

fn pattern(kind: &str, key: Option<&str>) -> Pattern {
    Pattern { kind: Some(kind.to_owned()), key: key.map(str::to_owned) }
}

pub(super) fn ask(limit: usize, kinds: &[&str]) -> RoomAsk {
    let include = kinds.iter().map(|kind| pattern(kind, Some(""))).collect();
    RoomAsk { timeline_limit: limit, state: WantedState { include, lazy: true, ..WantedState::default() } }
}

/// One list of the first rooms.
pub(super) fn window(person: &Person<'_>, last: usize, ask: RoomAsk) -> SlidingRequest {
    let list = List { ranges: Some(vec![(0, last)]), ask, filters: ListFilters::default() };
    SlidingRequest {
        user: person.id.clone(),
        device: Some(person.device.into()),
        connection: "c".to_owned(),
        pos: None,
        lists: BTreeMap::from([("all".to_owned(), list)]),
        subscriptions: BTreeMap::new(),
        extensions: ExtensionsAsk::default(),
        presence: PresenceState::Online,
        timeout: Duration::ZERO,
    }
}

/// Asks, and goes on from the answer.
pub(super) async fn next(house: &House, request: &mut SlidingRequest) -> SlidingAnswer {
    let answer = house.delivery.sliding_sync(request).await.unwrap();
    request.pos = Some(answer.pos.clone());
    answer
}

fn timeline(room: &SlidingRoom) -> Vec<String> {
    room.part.as_ref().map(|part| gist(&part.timeline.events)).unwrap_or_default()
}

fn state(room: &SlidingRoom) -> Vec<Value> {
    room.part.as_ref().map(|part| values(part.state.events())).unwrap_or_default()
}

fn members(room: &SlidingRoom) -> Vec<String> {
    let members = state(room).into_iter().filter(|event| event["type"] == "m.room.member");
    members.map(|event| event["state_key"].as_str().unwrap().to_owned()).collect()
}

async fn two(house: &House) -> (Person<'_>, Person<'_>) {
    (house.user("alice").await, house.user("bob").await)
}
