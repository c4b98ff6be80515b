//! Authorization rules of the room version, and which state events an event must name.

use std::collections::BTreeMap;

use ruma::{
    EventId, OwnedEventId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
    state_res::{
        Event, auth_types_for_event, check_state_dependent_auth_rules, check_state_independent_auth_rules,
    },
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Error, Pdu,
    owned_state::{self, AsOwn},
    pdu::{Judged, MAX_ID_BYTES, has_null_level, no_join_rules},
    power,
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
    check_lengths(rules, pdu).map_err(|why| Error::Forbidden(why.to_owned()))?;
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

/// How long a part of an event may be that is read whatever its length, as the graph of the room hangs on the event.
pub(crate) fn check_lengths(rules: &RoomVersionRules, pdu: &Pdu) -> Result<(), &'static str> {
    #[derive(Deserialize)]
    struct Creation {
        #[serde(default)]
        additional_creators: Vec<String>,
    }
    let too_long = |text: &str| text.len() > MAX_ID_BYTES;
    // How long the key of owned state may be is asked together with who its owner is.
    let may_be_owned = owned_state::has_owners(rules) && owned_state::may_be_owned(pdu.kind());
    if too_long(&pdu.kind().to_string()) || !may_be_owned && pdu.state_key().is_some_and(too_long) {
        return Err("the type or the state key is longer than 255 bytes");
    }
    if *pdu.kind() == TimelineEventType::RoomCreate
        && rules.authorization.additional_room_creators
        && let Some(creation) = pdu.content_as::<Creation>()
        && creation.additional_creators.iter().any(|user| too_long(user))
    {
        return Err("a creator's user id is longer than 255 bytes");
    }
    Ok(())
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
    check_comparable(rules, pdu, &state)?;
    let unchanging = as_unchanging(rules, pdu, &state)?;
    let pdu = unchanging.as_ref().unwrap_or(pdu);
    let held = |kind: &StateEventType, key: &str| {
        let is_target = *kind == StateEventType::RoomMember && Event::state_key(pdu) == Some(key);
        let key = pdu.state_key().filter(|_| is_target).unwrap_or(key);
        let is_join_rules = *kind == StateEventType::RoomJoinRules && key.is_empty();
        state(kind, key).or_else(|| is_join_rules.then(|| no_join_rules().clone()))
    };
    match AsOwn::of(rules, pdu) {
        Some(own) => check_state_dependent_auth_rules(&rules.authorization, own, held),
        None => check_state_dependent_auth_rules(&rules.authorization, pdu, held),
    }
    .map_err(Error::Forbidden)
}

/// Until room version 9 a level of the first power levels may be `null`, and is none then. Where levels are compared other servers
/// fail over it: no levels have one that come after others, and none come after levels that have one.
fn check_comparable(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    state: impl Fn(&StateEventType, &str) -> Option<Pdu>,
) -> Result<(), Error> {
    let are_levels = *pdu.kind() == TimelineEventType::RoomPowerLevels && pdu.state_key() == Some("");
    if rules.authorization.integer_power_levels || !are_levels {
        return Ok(());
    }
    let Some(before) = state(&StateEventType::RoomPowerLevels, "") else { return Ok(()) };
    if [pdu, &before].into_iter().any(|levels| has_null_level(rules, levels)) {
        return Err(Error::Forbidden("a level that is to be compared is null".to_owned()));
    }
    Ok(())
}

/// Power levels under another key than the empty one are levels of nothing. Other servers compare them with no others, and
/// so they are judged, once their form is right, as such that change nothing. `None` for any other event.
fn as_unchanging(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    state: impl Fn(&StateEventType, &str) -> Option<Pdu>,
) -> Result<Option<Pdu>, Error> {
    if *pdu.kind() != TimelineEventType::RoomPowerLevels || pdu.state_key().is_none_or(str::is_empty) {
        return Ok(None);
    }
    let at = |kind: StateEventType| state(&kind, "");
    let (Some(create), Some(levels)) = (at(StateEventType::RoomCreate), at(StateEventType::RoomPowerLevels))
    else {
        return Ok(None);
    };
    power::check_form(rules, pdu, &create).map_err(Error::Forbidden)?;
    Ok(Some(pdu.with_content_to_judge(Event::content(&levels))))
}

#[cfg(test)]
mod tests {
    use ruma::{CanonicalJsonValue, events::StateEventType, int, room_version_rules::RoomVersionRules};
    use serde_json::{Value, json};

    use super::{allowed_by_auth_events, allowed_by_state, events_needed, state_needed};
    use crate::{
        Error, Pdu,
        laws::{Room, sample, without_auth_event},
        pdu::Judged,
    };

    const ALICE: &str = "@alice:a.example";
    const BOB: &str = "@bob:b.example";

    /// What the rules say to an event by what it names, then by the state of the room.
    fn allowed(rules: &RoomVersionRules, room: &Room, pdu: &Pdu) -> Result<(), Error> {
        let known: Vec<Judged> =
            events_needed(rules, pdu).iter().map(|id| room.events[id].clone().into()).collect();
        allowed_by_auth_events(rules, pdu, &known)?;
        allowed_by_state(rules, pdu, |kind, key| room.state_event(kind, key))
    }

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

    #[test]
    fn where_no_join_rules_are_named_they_are_invite() {
        for rules in [&RoomVersionRules::V6, &RoomVersionRules::V11, &RoomVersionRules::V12] {
            let mut room = Room::new(rules, ALICE);
            let join_rules = room.state_event(&StateEventType::RoomJoinRules, "").unwrap();
            let before = room.clone();
            let first = without_auth_event(rules, &room.member(BOB, BOB, "join"), join_rules.event_id());
            assert!(allowed(rules, &before, &first).is_err(), "not invited");
            let joined = room.clone();
            let name = json!({ "membership": "join", "displayname": "Bob" });
            let named = room.send(BOB, "m.room.member", Some(BOB), &name);
            let silent = without_auth_event(rules, &named, join_rules.event_id());
            assert_ne!(silent.event_id(), named.event_id());
            assert_eq!(allowed(rules, &joined, &silent), Ok(()));
        }
    }

    #[test]
    fn who_is_banned_need_not_be_a_user() {
        for rules in [&RoomVersionRules::V1, &RoomVersionRules::V10, &RoomVersionRules::V12] {
            for nobody in ["@spam:evil.example,", "spam:evil.example", "@x:nobody.invalid"] {
                let mut room = Room::new(rules, ALICE);
                room.member(BOB, BOB, "join");
                let before = room.clone();
                let powerless = room.member(BOB, nobody, "ban");
                assert!(allowed(rules, &before, &powerless).is_err());
                let mut room = before.clone();
                let ban = room.member(ALICE, nobody, "ban");
                assert_eq!(allowed(rules, &before, &ban), Ok(()), "{nobody}");
                assert_eq!(ban.state_key(), Some(nobody));
                let banned = room.clone();
                let invite = room.member(ALICE, nobody, "invite");
                assert!(allowed(rules, &banned, &invite).is_err(), "the ban is found");
                let mut room = banned.clone();
                let unban = room.member(ALICE, nobody, "leave");
                assert_eq!(allowed(rules, &banned, &unban), Ok(()), "{nobody}");
            }
            let mut room = Room::new(rules, ALICE);
            let before = room.clone();
            let ban = room.member(ALICE, "spam", "ban");
            assert!(allowed(rules, &before, &ban).is_err(), "refused by everybody");
        }
    }

    #[test]
    fn power_levels_under_another_key_are_compared_with_none() {
        const MOD: &str = "@mod:a.example";
        for rules in [&RoomVersionRules::V6, &RoomVersionRules::V10, &RoomVersionRules::V12] {
            let mut room = Room::new(rules, ALICE);
            room.member(BOB, BOB, "join");
            room.member(MOD, MOD, "join");
            let no_creator = rules.authorization.explicitly_privilege_room_creators;
            let users = if no_creator { json!({ MOD: 50 }) } else { json!({ ALICE: 100, MOD: 50 }) };
            room.send(ALICE, "m.room.power_levels", Some(""), &json!({ "users": users }));
            let set = |sender: &str, key: &str, content: &Value| {
                let mut after = room.clone();
                let pdu = after.send(sender, "m.room.power_levels", Some(key), content);
                allowed(rules, &room, &pdu)
            };
            let high = json!({ "users": { MOD: 100 }, "ban": 100 });
            assert!(set(MOD, "", &high).is_err());
            assert_eq!(set(MOD, "spare", &high), Ok(()));
            assert!(set(BOB, "spare", &high).is_err(), "no power to send state");
            assert!(set(MOD, BOB, &high).is_err(), "of another user");
            assert!(set(MOD, "spare", &json!({ "ban": "much" })).is_err());
            assert!(set(MOD, "spare", &json!({ "users": { "nobody": 1 } })).is_err());
            let creator = json!({ "users": { ALICE: 100 } });
            assert_eq!(set(MOD, "spare", &creator).is_err(), no_creator);
        }
    }

    #[test]
    fn a_level_that_is_null_is_none_until_levels_are_compared() {
        let levels = |more: Value| {
            let mut levels = json!({ "users": { ALICE: 100 } });
            levels.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            levels
        };
        let send = |rules: &RoomVersionRules, room: &Room, key: &str, content: &Value| {
            let mut after = room.clone();
            let pdu = after.send(ALICE, "m.room.power_levels", Some(key), content);
            (allowed(rules, room, &pdu), after)
        };
        let first = |rules: &'static RoomVersionRules, content: &Value| {
            let mut room = Room::new(rules, ALICE);
            room.state.remove(&(StateEventType::RoomPowerLevels, String::new()));
            send(rules, &room, "", content)
        };
        let plain = levels(json!({}));
        let nulls = [json!({ "ban": null }), json!({ "events": { "x.state": null } })].map(levels);
        for rules in [&RoomVersionRules::V1, &RoomVersionRules::V6, &RoomVersionRules::V9] {
            for null in &nulls {
                let (answer, room) = first(rules, null);
                assert_eq!(answer, Ok(()), "{null}");
                assert_eq!(room.power().to_ban(), int!(50));
                assert_eq!(room.power().to_send(&"x.state".into(), Some("")), int!(50));
                assert!(send(rules, &room, "", &plain).0.is_err(), "after {null}");
                let room = first(rules, &plain).1;
                assert!(send(rules, &room, "", null).0.is_err(), "{null}");
                assert_eq!(send(rules, &room, "spare", null).0, Ok(()), "compared with none");
            }
            let of_a_user = json!({ "users": { ALICE: 100, BOB: null } });
            assert!(first(rules, &of_a_user).0.is_err(), "not even at first");
        }
        let null = levels(json!({ "notifications": { "room": null } }));
        for (rules, is_compared) in [(&RoomVersionRules::V5, false), (&RoomVersionRules::V6, true)] {
            let (answer, room) = first(rules, &null);
            assert_eq!(answer, Ok(()));
            assert_eq!(send(rules, &room, "", &plain).0.is_err(), is_compared);
        }
        for null in nulls {
            assert!(first(&RoomVersionRules::V10, &null).0.is_err(), "{null}");
        }
    }

    #[test]
    fn what_is_too_long_in_bytes_is_no_state() {
        for (field, rules) in [("state_key", &RoomVersionRules::V1), ("type", &RoomVersionRules::V10)] {
            let mut room = Room::new(rules, ALICE);
            let short = room.send(ALICE, "x", Some("y"), &json!({}));
            let mut object = short.to_object();
            object.insert(field.to_owned(), CanonicalJsonValue::String("💥".repeat(70)));
            let long = Pdu::parse(rules, &serde_json::to_vec(&object).unwrap()).unwrap();
            assert_eq!(allowed(rules, &room, &short), Ok(()));
            assert!(matches!(allowed(rules, &room, &long), Err(Error::Forbidden(_))), "{field}");
        }
    }

    #[test]
    fn no_creator_has_a_longer_name_than_users_have() {
        let create = |rules: &'static RoomVersionRules, bytes: usize| {
            let create = Room::new(rules, ALICE).state_event(&StateEventType::RoomCreate, "").unwrap();
            let mut object = create.to_object();
            let name = format!("@{}:a.example", "u".repeat(bytes - 11));
            let creators = json!({ "additional_creators": [name], "creator": ALICE });
            object.insert("content".to_owned(), creators.try_into().unwrap());
            allowed_by_auth_events(rules, &Pdu::from_object(rules, object).unwrap(), &[])
        };
        assert_eq!(create(&RoomVersionRules::V12, 255), Ok(()));
        assert!(create(&RoomVersionRules::V12, 256).is_err());
        assert_eq!(create(&RoomVersionRules::V11, 256), Ok(()), "they are none there");
    }
}
