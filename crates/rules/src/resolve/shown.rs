//! What the usual algorithm is shown of a conflict. It has no number for a moment before 1970, finds no join rules where there
//! are none, knows no members but users, and takes some types for others.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{EventId, OwnedEventId, events::StateEventType};

use super::{Conflict, StateMap, conflicted};
use crate::{
    auth::StateKey,
    pdu::{Judged, NOBODY, no_join_rules, stand_in, text_judged, text_to_judge},
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
    let kind = text_to_judge(&kind.to_string()).map_or_else(|| kind.clone(), StateEventType::from);
    (kind, other.unwrap_or_else(|| key.clone()))
}

/// What the algorithm answers, under the keys that the events have.
pub(super) fn with_own_keys(state: StateMap, fetch: impl Fn(&EventId) -> Option<Judged>) -> StateMap {
    let own = |(kind, key): StateKey, id: &EventId| {
        let stands_in = kind == StateEventType::RoomMember && key.ends_with(NOBODY);
        let event = if stands_in { fetch(id) } else { None };
        let sent = event.and_then(|event| event.pdu.state_key().map(str::to_owned));
        let text = kind.to_string();
        (text_judged(&text).map_or(kind, StateEventType::from), sent.unwrap_or(key))
    };
    state.into_iter().map(|(key, id)| (own(key, &id), id)).collect()
}

#[cfg(test)]
mod tests {
    use ruma::{CanonicalJsonValue, Int, events::StateEventType, room_version_rules::RoomVersionRules};
    use serde_json::json;

    use crate::{
        Pdu,
        laws::{Room, without_auth_event},
        owned_state,
        resolve::tests::{fork, resolved},
    };

    const ALICE: &str = "@alice:a.example";
    const BOB: &str = "@bob:b.example";

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
    fn state_is_found_under_the_type_that_it_has() {
        let key = |kind: &str| (StateEventType::from(kind), String::new());
        let old = key("org.matrix.call.sdp_stream_metadata_changed");
        let new = key("m.call.sdp_stream_metadata_changed");
        for rules in
            [&RoomVersionRules::V1, &RoomVersionRules::V11, &RoomVersionRules::V12, &owned_state::V11]
        {
            let mut room = Room::new(rules, ALICE);
            let send = |room: &mut Room, (kind, _): &(StateEventType, String), said: &str| {
                room.send(ALICE, &kind.to_string(), Some(""), &json!({ "said": said }))
            };
            send(&mut room, &old, "before");
            let other_type = send(&mut room, &new, "of a type of its own");
            let (mut one, mut other) = (room.clone(), room);
            one.say(ALICE, "deeper");
            let kept = send(&mut one, &old, "late");
            send(&mut other, &old, "early");
            let state = resolved(rules, &one, &other);
            assert_eq!(state[&old], kept.event_id());
            assert_eq!(state[&new], other_type.event_id());
            assert!(state.keys().eq(one.state.keys()), "and under no other");
        }
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
