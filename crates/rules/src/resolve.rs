//! State resolution: one state out of several forks.

mod first;
mod owned;
mod shown;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    room_version_rules::{RoomVersionRules, StateResolutionV2Rules, StateResolutionVersion},
    state_res::{self, Event, utils::event_id_set::EventIdSet},
};

use self::shown::{judged_key, shown, with_own_keys};
use crate::{
    Error, Pdu,
    auth::{StateKey, auth_types_of},
    owned_state,
    pdu::Judged,
};

/// A state: type and state key → event.
pub type StateMap = BTreeMap<StateKey, OwnedEventId>;

/// What is to be resolved.
///
/// The states may be reduced: every conflicted key must be there with its event in each state that has one, and of the
/// unconflicted keys those of [`relevant_keys`]. The answer then covers those keys, and may have more, where events of the
/// auth difference or of the subgraph are: such a key counts if the states have nothing there. All other keys keep the event
/// that all states agree on.
#[derive(Clone, Debug, Default)]
pub struct Conflict {
    /// The states of the forks, two or more.
    pub states: Vec<StateMap>,
    /// Events that are in the auth chain of some state but not of all; a chain includes the events of the state itself.
    /// See [`auth_difference`].
    pub auth_difference: BTreeSet<OwnedEventId>,
    /// Rooms of version 12 and later: the conflicted state subgraph. See [`subgraph`].
    pub subgraph: BTreeSet<OwnedEventId>,
}

impl Conflict {
    /// The same without events that were rejected: they are part of no state, and a peer that tells one does not bring it back.
    /// The usual case, that there are none, is not copied.
    fn without_rejected(&self, fetch: impl Fn(&EventId) -> Option<Judged>) -> Cow<'_, Self> {
        let stands = |id: &OwnedEventId| fetch(id).is_none_or(|event| !event.rejected);
        let in_states = self.states.iter().flat_map(BTreeMap::values);
        if in_states.chain(&self.auth_difference).chain(&self.subgraph).all(stands) {
            return Cow::Borrowed(self);
        }
        let state = |state: &StateMap| -> StateMap {
            let kept = state.iter().filter(|(_, id)| stands(id));
            kept.map(|(key, id)| (key.clone(), id.clone())).collect()
        };
        let set = |ids: &BTreeSet<OwnedEventId>| -> BTreeSet<OwnedEventId> {
            ids.iter().filter(|id| stands(id)).cloned().collect()
        };
        Cow::Owned(Self {
            states: self.states.iter().map(state).collect(),
            auth_difference: set(&self.auth_difference),
            subgraph: set(&self.subgraph),
        })
    }
}

/// The keys on which the states do not all agree, with the events found there.
pub fn conflicted<Id: Clone + Ord>(states: &[BTreeMap<StateKey, Id>]) -> BTreeMap<StateKey, BTreeSet<Id>> {
    let mut found: BTreeMap<&StateKey, (usize, BTreeSet<&Id>)> = BTreeMap::new();
    for (key, id) in states.iter().flatten() {
        let (count, ids) = found.entry(key).or_default();
        *count += 1;
        ids.insert(id);
    }
    found
        .into_iter()
        .filter(|(_, (count, ids))| *count < states.len() || ids.len() > 1)
        .map(|(key, (_, ids))| (key.clone(), ids.into_iter().cloned().collect()))
        .collect()
}

/// Events that are in some of the chains but not in all of them.
///
/// Specification: room version 2, "auth difference".
pub fn auth_difference<Id: Clone + Ord>(chains: &[BTreeSet<Id>]) -> BTreeSet<Id> {
    let Some((first, rest)) = chains.split_first() else { return BTreeSet::new() };
    let mut all = first.clone();
    let mut common = first.clone();
    for chain in rest {
        all.extend(chain.iter().cloned());
        common.retain(|id| chain.contains(id));
    }
    all.retain(|id| !common.contains(id));
    all
}

/// The events and everything in their auth chains. `auth_of` names an event's auth events; unknown events have none.
pub fn auth_chain<Id: Clone + Ord>(
    events: impl IntoIterator<Item = Id>,
    auth_of: impl Fn(&Id) -> Vec<Id>,
) -> BTreeSet<Id> {
    let mut chain: BTreeSet<Id> = BTreeSet::new();
    let mut todo: Vec<Id> = events.into_iter().collect();
    while let Some(id) = todo.pop() {
        if chain.insert(id.clone()) {
            todo.extend(auth_of(&id));
        }
    }
    chain
}

/// The events that lie, in the auth graph, on a path from one conflicted event to another, ends included.
///
/// Specification: room version 12, "conflicted state subgraph".
pub fn subgraph<Id: Clone + Ord>(
    conflicted: &BTreeSet<Id>,
    auth_of: impl Fn(&Id) -> Vec<Id>,
) -> BTreeSet<Id> {
    let below = auth_chain(conflicted.iter().cloned(), &auth_of);
    let mut children: BTreeMap<Id, Vec<Id>> = BTreeMap::new();
    for id in &below {
        for parent in auth_of(id) {
            children.entry(parent).or_default().push(id.clone());
        }
    }
    // Everything in `below` descends to from a conflicted event; keep what leads on to one.
    auth_chain(conflicted.iter().cloned(), |id| children.get(id).cloned().unwrap_or_default())
}

/// The keys of unconflicted state that resolving needs: whatever authorizing one of `events` may read, where `events`
/// are the full conflicted set (conflicted events, auth difference, subgraph).
pub fn relevant_keys<'a>(
    rules: &RoomVersionRules,
    events: impl IntoIterator<Item = &'a Pdu>,
) -> BTreeSet<StateKey> {
    let single = [StateEventType::RoomCreate, StateEventType::RoomPowerLevels, StateEventType::RoomJoinRules];
    let mut keys: BTreeSet<StateKey> = single.into_iter().map(|kind| (kind, String::new())).collect();
    for event in events {
        keys.extend(auth_types_of(rules, event).unwrap_or_default());
    }
    keys
}

/// Resolves with the algorithm of the room version (v1 in room version 1, v2.1 from room version 12 on, v2 between).
///
/// `fetch` knows every event of the full conflicted set, their auth chains as far as they lead back to power levels
/// and the create event, and the events of [`relevant_keys`]. The order of the states does not matter. What was rejected is
/// taken for no part of them.
pub fn resolve(
    rules: &RoomVersionRules,
    conflict: &Conflict,
    fetch: impl Fn(&EventId) -> Option<Judged>,
) -> Result<StateMap, Error> {
    let unresolvable = |what: &str| Error::Unresolvable(what.to_owned());
    let conflict = conflict.without_rejected(&fetch);
    let version = match &rules.state_res {
        StateResolutionVersion::V1 => return Ok(first::resolve(rules, &conflict.states, fetch)),
        StateResolutionVersion::V2(version) => *version,
        _ => return Err(unresolvable("by an algorithm that is not known here")),
    };
    let known = shown(&conflict, &fetch);
    let resolved = if owned_state::has_owners(rules) {
        owned::resolve(rules, version, &conflict, known)?
    } else {
        let difference = conflict.auth_difference.iter().cloned().collect();
        let subgraph = conflict.subgraph.iter().cloned().collect();
        run(rules, version, &conflict.states, (difference, subgraph), known)?
    };
    Ok(with_own_keys(resolved, &fetch))
}

/// Runs the algorithm on the states, the auth difference and the conflicted subgraph. The answer has the keys that were
/// judged.
fn run<E: Event<Id = OwnedEventId> + Clone>(
    rules: &RoomVersionRules,
    version: StateResolutionV2Rules,
    states: &[StateMap],
    (difference, subgraph): (EventIdSet<OwnedEventId>, EventIdSet<OwnedEventId>),
    fetch: impl Fn(&EventId) -> Option<E>,
) -> Result<StateMap, Error> {
    let judged = |state: &StateMap| -> state_res::StateMap<OwnedEventId> {
        state.iter().map(|(key, id)| (judged_key(key), id.clone())).collect()
    };
    let states: Vec<_> = states.iter().map(judged).collect();
    // Two chains whose difference is the given one.
    let chains = vec![difference, EventIdSet::new()];
    state_res::resolve(&rules.authorization, &version, &states, chains, fetch, |_| Some(subgraph.clone()))
        .map(|state| state.into_iter().collect())
        .map_err(|error| Error::Unresolvable(error.to_string()))
}

/// Resolves whole states by the book, with nothing reduced and nothing shared: slow, and what [`resolve`] is compared
/// with. `fetch` knows every event of the room.
pub fn resolve_naively(
    rules: &RoomVersionRules,
    states: &[StateMap],
    fetch: impl Fn(&EventId) -> Option<Judged>,
) -> Result<StateMap, Error> {
    let auth_of =
        |id: &OwnedEventId| fetch(id).map(|event| event.pdu.auth_events().to_vec()).unwrap_or_default();
    let chains: Vec<BTreeSet<OwnedEventId>> =
        states.iter().map(|state| auth_chain(state.values().cloned(), auth_of)).collect();
    let ids: BTreeSet<OwnedEventId> = conflicted(states).into_values().flatten().collect();
    let conflict = Conflict {
        states: states.to_vec(),
        auth_difference: auth_difference(&chains),
        subgraph: subgraph(&ids, auth_of),
    };
    resolve(rules, &conflict, fetch)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use ruma::{EventId, OwnedEventId, events::StateEventType, room_version_rules::RoomVersionRules};
    use serde_json::json;

    use super::{StateMap, auth_chain, auth_difference, conflicted, resolve_naively, subgraph};
    use crate::{Pdu, laws::Room, pdu::Judged};

    const ALICE: &str = "@alice:a.example";
    const BOB: &str = "@bob:b.example";
    const CAROL: &str = "@carol:c.example";

    /// A room whose last state event is another one.
    pub(super) fn fork(room: &Room, state: &Pdu) -> Room {
        let mut fork = room.clone();
        let (kind, key) = state.state().unwrap();
        fork.state.insert((kind, key.to_owned()), state.event_id().to_owned());
        fork.events.insert(state.event_id().to_owned(), state.clone());
        fork
    }

    /// The state of two forks, in whatever order they come.
    pub(super) fn resolved(rules: &RoomVersionRules, one: &Room, other: &Room) -> StateMap {
        let mut events: BTreeMap<OwnedEventId, Pdu> = one.events.clone();
        events.extend(other.events.clone());
        let fetch = |id: &EventId| events.get(id).cloned().map(Into::into);
        let both = [one.state.clone(), other.state.clone()];
        let state = resolve_naively(rules, &both, fetch).unwrap();
        let [one, other] = both;
        assert_eq!(resolve_naively(rules, &[other, one], fetch).unwrap(), state);
        state
    }

    #[test]
    fn what_was_rejected_is_in_no_state() {
        let topic = (StateEventType::RoomTopic, String::new());
        for rules in [&RoomVersionRules::V1, &RoomVersionRules::V11, &RoomVersionRules::V12] {
            let mut room = Room::new(rules, ALICE);
            let before = room.send(ALICE, "m.room.topic", Some(""), &json!({ "topic": "before" }));
            let mut told = room.clone();
            let refused = told.send(ALICE, "m.room.topic", Some(""), &json!({ "topic": "refused" }));
            let events: BTreeMap<OwnedEventId, Pdu> = told.events.clone();
            let fetch = |id: &EventId| {
                let pdu = events.get(id)?.clone();
                Some(Judged { rejected: pdu.event_id() == refused.event_id(), pdu })
            };
            let state = resolve_naively(rules, &[told.state.clone(), room.state.clone()], fetch).unwrap();
            assert_eq!(state[&topic], before.event_id());
        }
    }

    fn room_of_three() -> Room {
        let mut room = Room::new(&RoomVersionRules::V12, ALICE);
        room.member(BOB, BOB, "join");
        room.member(CAROL, CAROL, "join");
        room
    }

    /// What a fork leaves at the key of `outdated`, by the algorithms of room versions 11 and 12. On one side Bob takes a
    /// name. On the other Carol does, and whoever told the state there has missed what came after `outdated`.
    fn by_both_algorithms(room: &Room, outdated: &Pdu) -> [Option<OwnedEventId>; 2] {
        let named = |who: &str| {
            let mut room = room.clone();
            let name = json!({ "membership": "join", "displayname": "name" });
            room.send(who, "m.room.member", Some(who), &name);
            room
        };
        let (one, other) = (named(BOB), fork(&named(CAROL), outdated));
        let (kind, key) = outdated.state().unwrap();
        let key = (kind, key.to_owned());
        let carol = (StateEventType::RoomMember, CAROL.to_owned());
        let mut rest = one.state.clone();
        rest.remove(&key);
        rest.insert(carol.clone(), other.state[&carol].clone());
        let mut earlier = RoomVersionRules::V12;
        earlier.state_res = RoomVersionRules::V11.state_res;
        [&earlier, &RoomVersionRules::V12].map(|rules| {
            let mut state = resolved(rules, &one, &other);
            let found = state.remove(&key);
            assert_eq!(state, rest);
            found
        })
    }

    /// MSC4297, problem A.
    #[test]
    fn join_rules_stay_when_who_set_them_has_left() {
        let mut room = room_of_three();
        let public = room.state_event(&StateEventType::RoomJoinRules, "").unwrap();
        let invite = room.send(ALICE, "m.room.join_rules", Some(""), &json!({ "join_rule": "invite" }));
        room.member(ALICE, ALICE, "leave");
        assert_eq!(by_both_algorithms(&room, &public), [None, Some(invite.event_id().to_owned())]);
    }

    /// MSC4297, problem B.
    #[test]
    fn levels_stay_that_rest_on_levels_no_fork_has() {
        let mut room = room_of_three();
        let first = room.state_event(&StateEventType::RoomPowerLevels, "").unwrap();
        room.send(ALICE, "m.room.power_levels", Some(""), &json!({ "users": { BOB: 50 } }));
        let levels = json!({ "users": { BOB: 50, CAROL: 50 } });
        let last = room.send(BOB, "m.room.power_levels", Some(""), &levels);
        let found = by_both_algorithms(&room, &first);
        assert_eq!(found, [&first, &last].map(|pdu| Some(pdu.event_id().to_owned())));
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "what the functions under test ask for")]
    /// 1 ← 2 ← 3 ← 5, 2 ← 4 ← 5, 1 ← 6.
    fn auth_of(id: &u32) -> Vec<u32> {
        BTreeMap::from([(2, vec![1]), (3, vec![2]), (4, vec![2]), (5, vec![3, 4]), (6, vec![1])])
            .remove(id)
            .unwrap_or_default()
    }

    #[test]
    fn chains_and_their_difference() {
        let chains = [auth_chain([3], auth_of), auth_chain([4], auth_of)];
        assert_eq!(chains[0], BTreeSet::from([1, 2, 3]));
        assert_eq!(auth_difference(&chains), BTreeSet::from([3, 4]));
    }

    #[test]
    fn subgraph_is_what_lies_between() {
        assert_eq!(subgraph(&BTreeSet::from([2, 5]), auth_of), BTreeSet::from([2, 3, 4, 5]));
        assert_eq!(subgraph(&BTreeSet::from([2, 6]), auth_of), BTreeSet::from([2, 6]));
    }

    #[test]
    fn a_key_missing_in_one_state_is_conflicted() {
        let key = |key: &str| ("m.room.member".into(), key.to_owned());
        let states = [
            BTreeMap::from([(key("a"), 1), (key("b"), 2), (key("c"), 3)]),
            BTreeMap::from([(key("a"), 1), (key("b"), 4)]),
        ];
        let found = conflicted(&states);
        assert_eq!(
            found,
            BTreeMap::from([(key("b"), BTreeSet::from([2, 4])), (key("c"), BTreeSet::from([3]))])
        );
    }
}
