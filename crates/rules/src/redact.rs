//! Redaction: what remains of an event, and whether a redaction takes effect.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
};

use crate::{Error, Pdu, power::Power};

/// The redacted form of an event. Same id. Redacting twice changes nothing more.
///
/// Specification: client-server API, "Redactions"; the room version says what stays.
pub fn event(rules: &RoomVersionRules, pdu: &Pdu) -> Result<Pdu, Error> {
    let mut opened = pdu.opened();
    opened.redact(rules)?;
    pdu.with(rules, opened)
}

/// As [`event`], but a redaction still says what it redacts, as it does by itself from room version 11 on.
pub fn keeping_target(rules: &RoomVersionRules, pdu: &Pdu) -> Result<Pdu, Error> {
    let left = event(rules, pdu)?;
    let Some(target) = pdu.redacts().filter(|_| left.redacts().is_none()) else { return Ok(left) };
    let mut opened = left.opened();
    opened.object.insert("redacts".to_owned(), target.as_str().into());
    left.with(rules, opened)
}

/// Whether redaction would take from a state event what authorization reads, of the event itself or of what rests on it: whoever
/// gets only the rest refuses what others take.
///
/// Specification: the room version's "Redactions" and "Authorization rules".
pub fn takes_what_is_read(rules: &RoomVersionRules, pdu: &Pdu) -> bool {
    let fields: &[&str] = match pdu.state().map(|(kind, _)| kind) {
        Some(StateEventType::RoomCreate) => &["additional_creators", "creator", "m.federate", "room_version"],
        // What stays of join rules and levels in every room version is left out.
        Some(StateEventType::RoomPowerLevels) => &["invite", "notifications"],
        Some(StateEventType::RoomMember) => &["join_authorised_via_users_server", "third_party_invite"],
        Some(StateEventType::RoomThirdPartyInvite) => &["public_key", "public_keys"],
        _ => return false,
    };
    let Ok(left) = event(rules, pdu) else { return true };
    let (said, left) = (pdu.content_object(), left.content_object());
    fields.iter().any(|field| read(&said, field) != read(&left, field))
}

/// What authorization reads of a field.
fn read<'a>(content: &'a CanonicalJsonObject, field: &str) -> Option<&'a CanonicalJsonValue> {
    let value = content.get(field)?;
    if field == "third_party_invite" { value.as_object()?.get("signed") } else { Some(value) }
}

/// Whether an accepted redaction takes effect on `target`: same room, and its sender either may redact anything at the
/// state before the redaction, or belongs to the server of the target's sender; in room versions 1 and 2 to the server
/// in the target's id.
///
/// Specification: room version 3, "Handling redactions"; room version 1, "Authorisation rules", 11.
pub fn applies(rules: &RoomVersionRules, redaction: &Pdu, target: &Pdu, power: &Power) -> bool {
    let same_server = if rules.authorization.special_case_room_redaction {
        redaction.event_id().server_name() == target.event_id().server_name()
    } else {
        redaction.sender().server_name() == target.sender().server_name()
    };
    redaction.redacts() == Some(target.event_id())
        && redaction.room_id() == target.room_id()
        && *target.kind() != TimelineEventType::RoomCreate
        && (same_server || power.of(redaction.sender()) >= power.to_redact())
}

#[cfg(test)]
mod tests {
    use ruma::room_version_rules::RoomVersionRules;
    use serde_json::json;

    use super::{applies, event, takes_what_is_read};
    use crate::{
        laws::{Room, sample},
        version::SUPPORTED,
    };

    #[test]
    fn message_loses_its_body_and_keeps_its_id() {
        for version in SUPPORTED {
            let rules = crate::version::rules(&version).unwrap();
            let (rules, _, pdu) = sample(rules);
            let redacted = event(rules, &pdu).unwrap();
            assert_eq!(redacted.event_id(), pdu.event_id());
            assert_eq!(redacted.content().get(), "{}");
        }
    }

    #[test]
    fn own_server_or_power_redacts_nobody_else() {
        for rules in [&RoomVersionRules::V1, &RoomVersionRules::V3, &RoomVersionRules::V11] {
            let mut room = Room::new(rules, "@a:a.example");
            let target = room.say("@b:b.example", "oops");
            let by = |room: &mut Room, who: &str| room.redact(who, target.event_id());
            let (admin, own, other) =
                (by(&mut room, "@a:a.example"), by(&mut room, "@c:b.example"), by(&mut room, "@d:d.example"));
            let power = room.power();
            assert!(applies(rules, &admin, &target, &power));
            assert!(applies(rules, &own, &target, &power));
            assert!(!applies(rules, &other, &target, &power));
            let elsewhere = Room::new(rules, "@z:z.example").say("@b:b.example", "other room");
            assert!(!applies(rules, &admin, &elsewhere, &power));
        }
    }

    #[test]
    fn redaction_takes_what_authorization_reads_only_of_some_state() {
        const ALICE: &str = "@a:a.example";
        let signed = json!({ "mxid": "@b:b.example", "token": "t", "signatures": {} });
        let third_party = json!({ "display_name": "b", "signed": signed });
        let versions = [
            &RoomVersionRules::V1,
            &RoomVersionRules::V6,
            &RoomVersionRules::V8,
            &RoomVersionRules::V9,
            &RoomVersionRules::V11,
        ];
        for (kind, content, taken) in [
            ("m.room.create", json!({ "creator": ALICE, "m.federate": false }), 4),
            ("m.room.create", json!({ "creator": ALICE }), 0),
            ("m.room.join_rules", json!({ "join_rule": "restricted", "allow": [] }), 0),
            ("m.room.power_levels", json!({ "users": { ALICE: 100 }, "ban": 60 }), 0),
            ("m.room.power_levels", json!({ "invite": 50 }), 4),
            ("m.room.power_levels", json!({ "notifications": { "room": 50 } }), 5),
            ("m.room.member", json!({ "membership": "join", "displayname": "Alice" }), 0),
            ("m.room.member", json!({ "membership": "invite", "third_party_invite": third_party }), 4),
            ("m.room.member", json!({ "membership": "join", "join_authorised_via_users_server": ALICE }), 3),
            ("m.room.third_party_invite", json!({ "display_name": "b", "public_key": "k" }), 5),
            ("m.room.topic", json!({ "topic": "of no weight" }), 0),
        ] {
            let found = versions.map(|rules| {
                let event = Room::new(rules, ALICE).send(ALICE, kind, Some("@b:b.example"), &content);
                takes_what_is_read(rules, &event)
            });
            let first = [0, 1, 2, 3, 4].map(|version| version < taken);
            assert_eq!(found, first, "{kind} {content}");
        }
    }

    #[test]
    fn state_redacts_nothing_whatever_its_type() {
        let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
        let target = room.say("@b:b.example", "said");
        let content = serde_json::json!({ "redacts": target.event_id() });
        let state = room.send("@a:a.example", "m.room.redaction", Some("x"), &content);
        assert!(
            state.redacts().is_none() && !applies(&RoomVersionRules::V11, &state, &target, &room.power())
        );
    }
}
