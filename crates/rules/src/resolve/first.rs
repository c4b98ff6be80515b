//! State resolution of room version 1: power levels, join rules, memberships, then everything else, each by depth.

use std::{cmp::Reverse, collections::BTreeMap};

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ruma::{EventId, OwnedEventId, events::StateEventType, room_version_rules::RoomVersionRules};

use super::StateMap;
use crate::{
    Pdu,
    auth::{StateKey, allowed_by_state},
    pdu::Judged,
};

/// Keys with the events that the states hold there, two or more.
type Candidates = BTreeMap<StateKey, Vec<Pdu>>;

/// The states' resolution. A key that only some of them have is no conflict; one of several events of which one alone is
/// known neither.
///
/// Specification: room version 1, "State resolution". Where the text leaves it open whether conflicting memberships see
/// one another they do not, as in the servers that rooms of this version come from.
pub(super) fn resolve(
    rules: &RoomVersionRules,
    states: &[StateMap],
    fetch: impl Fn(&EventId) -> Option<Judged>,
) -> StateMap {
    let (mut resolved, mut left) = separate(states, &fetch);
    let passes: [fn(&StateKey) -> bool; 3] = [
        |(kind, key)| *kind == StateEventType::RoomPowerLevels && key.is_empty(),
        |(kind, _)| *kind == StateEventType::RoomJoinRules,
        |(kind, _)| *kind == StateEventType::RoomMember,
    ];
    for is_of_pass in passes {
        let (now, later) = left.into_iter().partition(|(key, _)| is_of_pass(key));
        left = later;
        settle(&mut resolved, now, |key, events, held| last_allowed(rules, key, events, held, &fetch));
    }
    settle(&mut resolved, left, |_, events, held| first_allowed(rules, events, held, &fetch));
    resolved
}

fn separate(states: &[StateMap], fetch: &impl Fn(&EventId) -> Option<Judged>) -> (StateMap, Candidates) {
    let mut ids: BTreeMap<&StateKey, Vec<&OwnedEventId>> = BTreeMap::new();
    for (key, id) in states.iter().flatten() {
        let known = ids.entry(key).or_default();
        if !known.contains(&id) {
            known.push(id);
        }
    }
    let (mut agreed, mut conflicted) = (StateMap::new(), Candidates::new());
    for (key, ids) in ids {
        if let [one] = ids.as_slice() {
            agreed.insert(key.clone(), (*one).clone());
            continue;
        }
        let mut events: Vec<Pdu> = ids.iter().filter_map(|id| Some(fetch(id)?.pdu)).collect();
        events.sort_by_cached_key(rank);
        match events.as_slice() {
            [] => {}
            [one] => drop(agreed.insert(key.clone(), one.event_id().to_owned())),
            _ => drop(conflicted.insert(key.clone(), events)),
        }
    }
    (agreed, conflicted)
}

/// Deepest first, among equals by the SHA-1 of the id.
fn rank(pdu: &Pdu) -> (Reverse<u64>, Vec<u8>) {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, pdu.event_id().as_bytes());
    (Reverse(pdu.depth()), hash.as_ref().to_vec())
}

/// Decides the conflicts of a pass, none of which sees the others.
fn settle(
    resolved: &mut StateMap,
    conflicts: Candidates,
    pick: impl Fn(&StateKey, &[Pdu], &StateMap) -> Option<OwnedEventId>,
) {
    let winners = conflicts.into_iter().filter_map(|(key, events)| {
        let winner = pick(&key, &events, resolved)?;
        Some((key, winner))
    });
    let winners: Vec<_> = winners.collect();
    resolved.extend(winners);
}

/// From the shallowest on, as long as each is allowed after the one before it.
fn last_allowed(
    rules: &RoomVersionRules,
    key: &StateKey,
    events: &[Pdu],
    held: &StateMap,
    fetch: &impl Fn(&EventId) -> Option<Judged>,
) -> Option<OwnedEventId> {
    let (mut last, deeper) = events.split_last()?;
    for event in deeper.iter().rev() {
        let state = |kind: &StateEventType, state_key: &str| {
            if (kind, state_key) == (&key.0, key.1.as_str()) {
                return Some(last.clone());
            }
            Some(fetch(held.get(&(kind.clone(), state_key.to_owned()))?)?.pdu)
        };
        if allowed_by_state(rules, event, state).is_err() {
            break;
        }
        last = event;
    }
    Some(last.event_id().to_owned())
}

/// The deepest that is allowed, else the shallowest.
fn first_allowed(
    rules: &RoomVersionRules,
    events: &[Pdu],
    held: &StateMap,
    fetch: &impl Fn(&EventId) -> Option<Judged>,
) -> Option<OwnedEventId> {
    let state = |kind: &StateEventType, state_key: &str| {
        Some(fetch(held.get(&(kind.clone(), state_key.to_owned()))?)?.pdu)
    };
    let allowed = events.iter().find(|event| allowed_by_state(rules, event, state).is_ok());
    allowed.or(events.last()).map(|event| event.event_id().to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ruma::{EventId, OwnedEventId, room_version_rules::RoomVersionRules};
    use serde_json::json;

    use super::resolve;
    use crate::{Pdu, laws::Room, pdu::Judged, resolve::StateMap};

    const ALICE: &str = "@alice:a.example";
    const BOB: &str = "@bob:b.example";

    fn of(rooms: &[&Room]) -> StateMap {
        let rules = &RoomVersionRules::V1;
        let states: Vec<StateMap> = rooms.iter().map(|room| room.state.clone()).collect();
        let events: BTreeMap<OwnedEventId, Pdu> = rooms.iter().flat_map(|room| room.events.clone()).collect();
        let fetch = |id: &EventId| events.get(id).cloned().map(Judged::from);
        let resolved = resolve(rules, &states, fetch);
        let reversed: Vec<StateMap> = states.into_iter().rev().collect();
        assert_eq!(resolve(rules, &reversed, fetch), resolved, "in any order");
        resolved
    }

    fn room() -> Room {
        let mut room = Room::new(&RoomVersionRules::V1, ALICE);
        room.member(BOB, BOB, "join");
        room
    }

    fn at(state: &StateMap, kind: &str, key: &str) -> OwnedEventId {
        state[&(kind.into(), key.to_owned())].clone()
    }

    #[test]
    fn deeper_state_wins_if_it_is_allowed() {
        let (mut one, mut other) = (room(), room());
        one.say(ALICE, "deeper by one");
        let deep = one.send(ALICE, "m.room.topic", Some(""), &json!({ "topic": "deep" }));
        let shallow = other.send(ALICE, "m.room.topic", Some(""), &json!({ "topic": "shallow" }));
        assert_eq!(at(&of(&[&one, &other]), "m.room.topic", ""), deep.event_id());
        other.say(ALICE, "deeper");
        other.say(ALICE, "and deeper");
        let refused = other.send(BOB, "m.room.topic", Some(""), &json!({ "topic": "not Bob's to say" }));
        let resolved = of(&[&one, &other]);
        assert_eq!(at(&resolved, "m.room.topic", ""), deep.event_id());
        assert_ne!(shallow.event_id(), refused.event_id());
    }

    #[test]
    fn equally_deep_state_is_chosen_by_the_hash_of_its_id() {
        let (mut one, mut other) = (room(), room());
        let a = one.send(ALICE, "m.room.topic", Some(""), &json!({ "topic": "a" }));
        let b = other.send(ALICE, "m.room.topic", Some(""), &json!({ "topic": "b" }));
        let first = [a, b].into_iter().min_by_key(super::rank).unwrap();
        assert_eq!(at(&of(&[&one, &other]), "m.room.topic", ""), first.event_id());
    }

    #[test]
    fn power_levels_are_followed_as_long_as_each_allows_the_next() {
        let (mut one, mut two, mut three) = (room(), room(), room());
        let levels = |users: serde_json::Value| json!({ "users": users });
        let low = one.send(ALICE, "m.room.power_levels", Some(""), &levels(json!({ ALICE: 100, BOB: 50 })));
        two.say(ALICE, "deeper");
        // Bob has 50 after the first: what he gives himself here is refused, and so nothing deeper is looked at.
        two.send(BOB, "m.room.power_levels", Some(""), &levels(json!({ ALICE: 100, BOB: 100 })));
        three.say(ALICE, "deeper");
        three.say(ALICE, "deepest");
        three.send(ALICE, "m.room.power_levels", Some(""), &levels(json!({ ALICE: 100 })));
        assert_eq!(at(&of(&[&one, &two, &three]), "m.room.power_levels", ""), low.event_id());
    }

    #[test]
    fn a_ban_is_not_undone_by_a_join() {
        let (mut one, mut other) = (room(), room());
        let ban = one.member(ALICE, BOB, "ban");
        other.say(BOB, "deeper");
        other.member(BOB, BOB, "join");
        assert_eq!(at(&of(&[&one, &other]), "m.room.member", BOB), ban.event_id(), "the join is not allowed");
        one.say(ALICE, "deeper");
        one.say(ALICE, "deepest");
        let ban = one.member(ALICE, BOB, "ban");
        assert_eq!(at(&of(&[&one, &other]), "m.room.member", BOB), ban.event_id());
    }

    #[test]
    fn what_one_state_alone_has_is_kept() {
        let (mut one, other) = (room(), room());
        let name = one.send(ALICE, "m.room.name", Some(""), &json!({ "name": "Salon" }));
        let resolved = of(&[&one, &other]);
        assert_eq!(at(&resolved, "m.room.name", ""), name.event_id());
        assert_eq!(resolved.len(), one.state.len());
    }
}
