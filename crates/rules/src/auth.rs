//! Authorization rules of the room version, and which state events an event must name.

use std::collections::BTreeMap;

use ruma::{
    EventId, OwnedEventId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
    state_res::{auth_types_for_event, check_state_dependent_auth_rules, check_state_independent_auth_rules},
};
use serde_json::value::RawValue;

use crate::{
    Error, Pdu,
    owned_state::{self, AsOwn},
    pdu::Judged,
};

/// Type and state key.
pub type StateKey = (StateEventType, String);

/// Which state events justify an event: what its `auth_events` are chosen from, and all that its authorization reads
/// (besides the create event, which rooms of version 12 and later do not list).
///
/// Specification: server-server API, "Auth events selection".
pub fn auth_types(
    rules: &RoomVersionRules,
    kind: &TimelineEventType,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
) -> Result<Vec<StateKey>, Error> {
    auth_types_for_event(kind, sender, state_key, content, &rules.authorization).map_err(Error::Malformed)
}

/// [`auth_types`] of an existing event.
pub fn auth_types_of(rules: &RoomVersionRules, pdu: &Pdu) -> Result<Vec<StateKey>, Error> {
    auth_types(rules, pdu.kind(), pdu.sender(), pdu.state_key(), pdu.content())
}

/// The state keys that authorization of `pdu` reads: [`auth_types_of`] and always the create event.
pub fn state_needed(rules: &RoomVersionRules, pdu: &Pdu) -> Result<Vec<StateKey>, Error> {
    let mut keys = auth_types_of(rules, pdu)?;
    let create = (StateEventType::RoomCreate, String::new());
    if *pdu.kind() != TimelineEventType::RoomCreate && !keys.contains(&create) {
        keys.push(create);
    }
    Ok(keys)
}

/// The events that judging `pdu` by its own auth events needs: those it lists, and the create event where the room is
/// named after it.
pub fn events_needed(rules: &RoomVersionRules, pdu: &Pdu) -> Vec<OwnedEventId> {
    let mut ids = pdu.auth_events().to_vec();
    if rules.authorization.room_create_event_id_as_room_id && *pdu.kind() != TimelineEventType::RoomCreate {
        ids.extend(create_of_room(pdu));
    }
    ids
}

/// The create event that a room of version 12 and later is named after.
fn create_of_room(pdu: &Pdu) -> Option<OwnedEventId> {
    EventId::parse(format!("${}", pdu.room_id().strip_sigil())).ok()
}

/// The rules that look at the event and its auth events: refuse means *rejected*. Once per event, on receipt.
///
/// `known` are the events named by [`events_needed`]; one that is missing refuses the event.
pub fn allowed_by_auth_events(rules: &RoomVersionRules, pdu: &Pdu, known: &[Judged]) -> Result<(), Error> {
    let by_id: BTreeMap<&EventId, &Judged> =
        known.iter().map(|event| (event.pdu.event_id(), event)).collect();
    check_state_independent_auth_rules(&rules.authorization, pdu, |id: &EventId| by_id.get(id).copied())
        .map_err(Error::Forbidden)?;
    let state: BTreeMap<(String, &str), &Pdu> = known
        .iter()
        .filter_map(|event| Some(((event.pdu.kind().to_string(), event.pdu.state_key()?), &event.pdu)))
        .collect();
    allowed_by_state(rules, pdu, |kind, key| state.get(&(kind.to_string(), key)).map(|pdu| Pdu::clone(pdu)))
}

/// The rules that look at a state: at the state before the event a refusal means *rejected*, at the current state of
/// the room *soft-failed*. `state` answers for the keys of [`state_needed`].
pub fn allowed_by_state(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    state: impl Fn(&StateEventType, &str) -> Option<Pdu>,
) -> Result<(), Error> {
    if owned_state::has_owners(rules) {
        owned_state::check_owner(rules, pdu, &state)?;
    }
    match AsOwn::of(rules, pdu) {
        Some(own) => check_state_dependent_auth_rules(&rules.authorization, own, state),
        None => check_state_dependent_auth_rules(&rules.authorization, pdu, state),
    }
    .map_err(Error::Forbidden)
}

#[cfg(test)]
mod tests {
    use ruma::room_version_rules::RoomVersionRules;

    use super::{allowed_by_auth_events, allowed_by_state, events_needed, state_needed};
    use crate::{
        Error,
        laws::{Room, sample},
        pdu::Judged,
    };

    #[test]
    fn a_member_may_speak_and_a_stranger_may_not() {
        for version in crate::version::SUPPORTED {
            let rules = crate::version::rules(&version).unwrap();
            let mut room = Room::new(rules, "@a:a.example");
            let spoken = room.say("@a:a.example", "hi");
            assert_eq!(allowed_by_state(rules, &spoken, |kind, key| room.state_event(kind, key)), Ok(()));
            let known: Vec<Judged> =
                events_needed(rules, &spoken).iter().map(|id| room.events[id].clone().into()).collect();
            assert_eq!(allowed_by_auth_events(rules, &spoken, &known), Ok(()));
            let stranger = room.say("@x:x.example", "hi");
            let answer = allowed_by_state(rules, &stranger, |kind, key| room.state_event(kind, key));
            assert!(matches!(answer, Err(Error::Forbidden(_))));
        }
    }

    #[test]
    fn rejected_auth_events_reject() {
        let rules = &RoomVersionRules::V11;
        let mut room = Room::new(rules, "@a:a.example");
        let spoken = room.say("@a:a.example", "hi");
        let known: Vec<Judged> = events_needed(rules, &spoken)
            .iter()
            .map(|id| Judged { pdu: room.events[id].clone(), rejected: true })
            .collect();
        assert!(allowed_by_auth_events(rules, &spoken, &known).is_err());
    }

    #[test]
    fn authorization_always_reads_the_create_event() {
        for rules in [&RoomVersionRules::V11, &RoomVersionRules::V12] {
            let (rules, _, pdu) = sample(rules);
            assert!(state_needed(rules, &pdu).unwrap().contains(&("m.room.create".into(), String::new())));
        }
    }
}
