//! Redaction: what remains of an event, and whether a redaction takes effect.

use ruma::{events::TimelineEventType, room_version_rules::RoomVersionRules};

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

    use super::{applies, event};
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
