//! What the usual algorithm is shown of a conflict. It has no number for a moment before 1970, finds no join rules where there
//! are none, and knows no members but users.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{EventId, OwnedEventId, events::StateEventType};

use super::{Conflict, StateMap, conflicted};
use crate::{
    auth::StateKey,
    pdu::{Judged, NOBODY, no_join_rules, stand_in},
};

/// The last moment that there is a number for.
const LAST: i64 = (1 << 53) - 1;

/// What `fetch` knows, as it is shown.
pub(super) fn shown(
    conflict: &Conflict,
    fetch: impl Fn(&EventId) -> Option<Judged>,
) -> impl Fn(&EventId) -> Option<Judged> {
    let moved = in_order(conflict, &fetch);
    move |id: &EventId| {
        let join_rules = no_join_rules();
        if id == join_rules.event_id() {
            return Some(Judged::from(join_rules.clone()));
        }
        moved.get(id).cloned().or_else(|| fetch(id))
    }
}

/// The events in conflict, if one of them is of a moment without a number, each as of another moment: in the order that
/// they have. Else none.
fn in_order(
    conflict: &Conflict,
    fetch: impl Fn(&EventId) -> Option<Judged>,
) -> BTreeMap<OwnedEventId, Judged> {
    let keys = conflicted(&conflict.states);
    let ids = keys.values().flatten().chain(&conflict.auth_difference).chain(&conflict.subgraph);
    let ids: BTreeSet<&OwnedEventId> = ids.collect();
    let events: Vec<Judged> = ids.into_iter().filter_map(|id| fetch(id)).collect();
    let times: BTreeSet<i64> = events.iter().map(|event| event.pdu.time()).collect();
    if times.iter().all(|time| (0..=LAST).contains(time)) {
        return BTreeMap::new();
    }
    let places: BTreeMap<i64, i64> = times.into_iter().zip(0..).collect();
    let moved = events.into_iter().map(|event| {
        let pdu = event.pdu.at(places[&event.pdu.time()]);
        (pdu.event_id().to_owned(), Judged { pdu, rejected: event.rejected })
    });
    moved.collect()
}

/// The key under which the algorithm is shown what is at a key.
pub(super) fn judged_key((kind, key): &StateKey) -> StateKey {
    let other = if *kind == StateEventType::RoomMember { stand_in(key) } else { None };
    (kind.clone(), other.unwrap_or_else(|| key.clone()))
}

/// What the algorithm answers, under the keys that the events have.
pub(super) fn with_own_keys(state: StateMap, fetch: impl Fn(&EventId) -> Option<Judged>) -> StateMap {
    let own = |(kind, key): StateKey, id: &EventId| {
        let stands_in = kind == StateEventType::RoomMember && key.ends_with(NOBODY);
        let event = if stands_in { fetch(id) } else { None };
        let sent = event.and_then(|event| event.pdu.state_key().map(str::to_owned));
        (kind, sent.unwrap_or(key))
    };
    state.into_iter().map(|(key, id)| (own(key, &id), id)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ruma::{
        CanonicalJsonValue, EventId, Int, OwnedEventId, events::StateEventType,
        room_version_rules::RoomVersionRules,
    };
    use serde_json::json;

    use crate::{
        Pdu,
        laws::{Room, without_auth_event},
        owned_state,
        resolve::{StateMap, resolve_naively},
    };

    const ALICE: &str = "@alice:a.example";
    const BOB: &str = "@bob:b.example";

    /// A room whose last state event is another one.
    fn fork(room: &Room, state: &Pdu) -> Room {
        let mut fork = room.clone();
        let (kind, key) = state.state().unwrap();
        fork.state.insert((kind, key.to_owned()), state.event_id().to_owned());
        fork.events.insert(state.event_id().to_owned(), state.clone());
        fork
    }

    /// The state of two forks, in whatever order they come.
    fn resolved(rules: &RoomVersionRules, one: &Room, other: &Room) -> StateMap {
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
    fn before_1970_it_was_later_and_later_too() {
        let topic = (StateEventType::RoomTopic, String::new());
        for rules in [&RoomVersionRules::V6, &RoomVersionRules::V11, &RoomVersionRules::V12] {
            let room = Room::new(rules, ALICE);
            for n in 0..8 {
                let said = |time: i32| {
                    let content = json!({ "topic": format!("{n} {time}") });
                    let pdu = room.clone().send(ALICE, "m.room.topic", Some(""), &content);
                    let mut object = pdu.to_object();
                    let time = CanonicalJsonValue::Integer(Int::from(time));
                    object.insert("origin_server_ts".to_owned(), time);
                    fork(&room, &Pdu::from_object(rules, object).unwrap())
                };
                for (early, late) in [(-5, -3), (-5, 0), (-5, 9_000)] {
                    let (early, late) = (said(early), said(late));
                    assert_eq!(resolved(rules, &early, &late)[&topic], late.state[&topic]);
                }
            }
        }
    }

    #[test]
    fn a_member_who_names_no_join_rules_is_judged_as_if_they_were_invite() {
        let rules = &RoomVersionRules::V12;
        let mut room = Room::new(rules, ALICE);
        room.member(BOB, BOB, "join");
        let join_rules = room.state_event(&StateEventType::RoomJoinRules, "").unwrap();
        let bob = (StateEventType::RoomMember, BOB.to_owned());
        let named = |name: &str| json!({ "membership": "join", "displayname": name });
        let mut early = room.clone();
        early.send(BOB, "m.room.member", Some(BOB), &named("early"));
        let mut late = room.clone();
        late.say(ALICE, "some time passes");
        let said = late.send(BOB, "m.room.member", Some(BOB), &named("late"));
        let late = fork(&late, &without_auth_event(rules, &said, join_rules.event_id()));
        assert_ne!(late.state[&bob], said.event_id());
        assert_eq!(resolved(rules, &early, &late)[&bob], late.state[&bob]);
    }

    #[test]
    fn a_ban_of_nobody_is_found_under_its_own_key() {
        const SPAM: &str = "@spam:evil.example,";
        let nobody = (StateEventType::RoomMember, SPAM.to_owned());
        for rules in
            [&RoomVersionRules::V1, &RoomVersionRules::V11, &RoomVersionRules::V12, &owned_state::V11]
        {
            let mut room = Room::new(rules, ALICE);
            room.member(ALICE, SPAM, "ban");
            let mut one = room.clone();
            one.say(ALICE, "deeper");
            let kept =
                one.send(ALICE, "m.room.member", Some(SPAM), &json!({ "membership": "ban", "reason": "x" }));
            let mut other = room.clone();
            other.send(ALICE, "m.room.member", Some(SPAM), &json!({ "membership": "ban", "reason": "y" }));
            let state = resolved(rules, &one, &other);
            assert_eq!(state[&nobody], kept.event_id());
            assert!(state.keys().eq(one.state.keys()), "and under no other");
        }
    }
}
