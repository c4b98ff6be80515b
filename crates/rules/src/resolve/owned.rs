//! Resolution in rooms where state belongs to users (MSC3757).
//!
//! The usual algorithm knows nothing of owners and would refuse all such state. It is given the events with state keys that
//! it takes for nobody's, and once it has said who has which power, what is not its sender's to say is left out. Nothing else
//! depends on that state, so the powers stay what they were.

use std::collections::BTreeSet;

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UserId,
    events::TimelineEventType,
    room_version_rules::{RoomVersionRules, StateResolutionV2Rules},
    state_res::{Event, utils::event_id_set::EventIdSet},
};
use serde_json::value::RawValue;

use super::{Conflict, StateMap, conflicted, run, shown::judged_key};
use crate::{Error, auth::StateKey, owned_state, pdu::Judged};

/// What is put before a state key that begins with a user id; no client sends a key that begins with it and `@`, and one
/// that does is left as it is.
const SHIELD: char = '\u{0}';

fn shielded((kind, key): &StateKey) -> StateKey {
    let owned = key.starts_with('@') && owned_state::may_be_owned(&kind.to_string().into());
    (kind.clone(), if owned { format!("{SHIELD}{key}") } else { key.clone() })
}

fn bared((kind, key): StateKey) -> StateKey {
    match key.strip_prefix(SHIELD).filter(|key| key.starts_with('@')) {
        Some(bare) => (kind, bare.to_owned()),
        None => (kind, key),
    }
}

/// As [`super::resolve`], for room versions with owned state.
pub(super) fn resolve(
    rules: &RoomVersionRules,
    version: StateResolutionV2Rules,
    conflict: &Conflict,
    fetch: impl Fn(&EventId) -> Option<Judged>,
) -> Result<StateMap, Error> {
    let resolve_without = |refused: &BTreeSet<OwnedEventId>| {
        let states: Vec<StateMap> = conflict
            .states
            .iter()
            .map(|state| state.iter().map(|(key, id)| (shielded(key), id.clone())).collect())
            .collect();
        let known = |id: &EventId| if refused.contains(id) { None } else { fetch(id).map(Shielded::new) };
        let difference: EventIdSet<OwnedEventId> = conflict.auth_difference.iter().cloned().collect();
        let subgraph = conflict.subgraph.iter().cloned().collect();
        let resolved = run(rules, version, &states, (difference, subgraph), known)?;
        Ok::<StateMap, Error>(resolved.into_iter().map(|(key, id)| (bared(key), id)).collect())
    };
    let resolved = resolve_without(&BTreeSet::new())?;
    let refused: BTreeSet<OwnedEventId> = conflicted(&conflict.states)
        .into_iter()
        .filter(|((_, key), _)| key.starts_with('@'))
        .flat_map(|(_, ids)| ids)
        .filter(|id| {
            let of = |key: StateKey| resolved.get(&key).and_then(|id| fetch(id)).map(|event| event.pdu);
            let state = |kind: &_, key: &str| of((ruma::events::StateEventType::clone(kind), key.to_owned()));
            fetch(id).is_some_and(|event| owned_state::check_owner(rules, &event.pdu, state).is_err())
        })
        .collect();
    if refused.is_empty() { Ok(resolved) } else { resolve_without(&refused) }
}

/// An event whose state key, if it begins with a user id, is nobody's.
#[derive(Clone, Debug)]
struct Shielded {
    event: Judged,
    key: Option<String>,
}

impl Shielded {
    fn new(event: Judged) -> Self {
        let key = event.pdu.state().map(|(kind, key)| judged_key(&shielded(&(kind, key.to_owned()))).1);
        Self { event, key }
    }
}

impl Event for Shielded {
    type Id = OwnedEventId;

    fn event_id(&self) -> &Self::Id {
        Event::event_id(&self.event)
    }

    fn room_id(&self) -> Option<&RoomId> {
        Event::room_id(&self.event)
    }

    fn sender(&self) -> &UserId {
        Event::sender(&self.event)
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        Event::origin_server_ts(&self.event)
    }

    fn event_type(&self) -> &TimelineEventType {
        Event::event_type(&self.event)
    }

    fn content(&self) -> &RawValue {
        Event::content(&self.event)
    }

    fn state_key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Event::prev_events(&self.event)
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Event::auth_events(&self.event)
    }

    fn redacts(&self) -> Option<&Self::Id> {
        Event::redacts(&self.event)
    }

    fn rejected(&self) -> bool {
        self.event.rejected
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::resolve_naively;
    use crate::{laws::Room, owned_state};

    const ALICE: &str = "@alice:a.example";
    const BOB: &str = "@bob:b.example";

    #[test]
    fn owned_state_survives_a_fork_and_nobody_elses_does() {
        let rules = &owned_state::V11;
        let mut room = Room::new(rules, ALICE);
        room.member(BOB, BOB, "join");
        let levels = |bob: u8| json!({ "users": { ALICE: 100, BOB: bob }, "events": { "x.state": 0 }, "state_default": 50 });
        room.send(ALICE, "m.room.power_levels", Some(""), &levels(60));
        let (own, other) = (format!("{BOB}_1"), format!("{ALICE}_1"));
        room.send(BOB, "x.state", Some(&own), &json!({ "n": 1 }));
        let kept = room.send(ALICE, "x.state", Some(&other), &json!({ "n": 1 }));
        // On one side Bob says something of his own, and, above Carol until then, something of hers.
        let mut left = room.clone();
        let carols = "@carol:c.example_1";
        let fresh = left.send(BOB, "x.state", Some(&own), &json!({ "n": 2 }));
        let bold = left.send(BOB, "x.state", Some(carols), &json!({ "n": 2 }));
        // On the other side Bob loses his power.
        let mut right = room.clone();
        right.send(ALICE, "m.room.power_levels", Some(""), &levels(0));
        let mut all = left.events.clone();
        all.extend(right.events.clone());
        for states in [[left.state.clone(), right.state.clone()], [right.state.clone(), left.state.clone()]] {
            let resolved =
                resolve_naively(rules, &states, |id| all.get(id).cloned().map(Into::into)).unwrap();
            let at = |key: &str| resolved.get(&("x.state".into(), key.to_owned()));
            assert_eq!(at(&own), Some(&fresh.event_id().to_owned()));
            assert_eq!(at(&other), Some(&kept.event_id().to_owned()));
            assert_ne!(at(carols), Some(&bold.event_id().to_owned()), "as much power as Carol is not enough");
        }
    }
}
