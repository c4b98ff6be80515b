//! State resolution: one state out of several forks.

mod first;
mod owned;
mod shown;

use std::collections::{BTreeMap, BTreeSet};

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
/// and the create event, and the events of [`relevant_keys`]. The order of the states does not matter.
pub fn resolve(
    rules: &RoomVersionRules,
    conflict: &Conflict,
    fetch: impl Fn(&EventId) -> Option<Judged>,
) -> Result<StateMap, Error> {
    let unresolvable = |what: &str| Error::Unresolvable(what.to_owned());
    let version = match &rules.state_res {
        StateResolutionVersion::V1 => return Ok(first::resolve(rules, &conflict.states, fetch)),
        StateResolutionVersion::V2(version) => *version,
        _ => return Err(unresolvable("by an algorithm that is not known here")),
    };
    let known = shown(conflict, &fetch);
    let resolved = if owned_state::has_owners(rules) {
        owned::resolve(rules, version, conflict, known)?
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

    use super::{auth_chain, auth_difference, conflicted, subgraph};

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
