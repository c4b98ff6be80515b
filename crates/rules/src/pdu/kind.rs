//! The type of an event, as it is written.
//!
//! Ruma reads some types as others that came after them. To other servers they are two, with levels and state of their own.

use std::fmt::{self, Write as _};

use ruma::events::{MessageLikeEventType, StateEventType, TimelineEventType};

/// What is put before a type that ruma would read as another one.
const AS_WRITTEN: &str = "as written: ";

/// The type that is written like this.
pub fn kind_of(text: &str) -> TimelineEventType {
    let read = TimelineEventType::from(text);
    if is_written(&read, text) {
        return read;
    }
    // What ruma has another name for in one of its two lists it leaves as it is in the other.
    let of_state = TimelineEventType::from(StateEventType::from(text));
    if is_written(&of_state, text) { of_state } else { MessageLikeEventType::from(text).into() }
}

/// The type that is written like this, and [`kind_to_judge`] of it.
pub(super) fn read_kind(text: &str) -> (TimelineEventType, Option<TimelineEventType>) {
    let read = TimelineEventType::from(text);
    if is_written(&read, text) && !text.starts_with(AS_WRITTEN) {
        return (read, None);
    }
    (kind_of(text), text_to_judge(text).map(TimelineEventType::from))
}

/// Whether a type is written like this. Asked of every event that is read, it builds no text.
fn is_written(kind: &TimelineEventType, text: &str) -> bool {
    struct Rest<'a>(&'a str);
    impl fmt::Write for Rest<'_> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    let mut rest = Rest(text);
    write!(rest, "{kind}").is_ok() && rest.0.is_empty()
}

/// What authorization reads instead of a type that ruma would read as another one: what it reads as nothing else, for each
/// type something of its own.
pub(crate) fn kind_to_judge(kind: &TimelineEventType) -> Option<TimelineEventType> {
    text_to_judge(&kind.to_string()).map(TimelineEventType::from)
}

/// As [`kind_to_judge`], where types are texts.
pub(crate) fn text_to_judge(text: &str) -> Option<String> {
    let is_read_as_another = !is_written(&TimelineEventType::from(text), text);
    (is_read_as_another || text.starts_with(AS_WRITTEN)).then(|| format!("{AS_WRITTEN}{text}"))
}

/// The type in whose place [`text_to_judge`] has put this one, if it has.
pub(crate) fn text_judged(text: &str) -> Option<&str> {
    text.strip_prefix(AS_WRITTEN)
}

#[cfg(test)]
mod tests {
    use ruma::{
        events::{StateEventType, TimelineEventType},
        int,
        room_version_rules::RoomVersionRules,
    };
    use serde_json::{Value, json};

    use super::{AS_WRITTEN, is_written, kind_of, kind_to_judge, read_kind, text_judged, text_to_judge};
    use crate::{Error, Pdu, auth::allowed_by_state, laws::Room, owned_state};

    const ALICE: &str = "@alice:a.example";
    const BOB: &str = "@bob:b.example";
    const OLD: &str = "org.matrix.call.sdp_stream_metadata_changed";
    const NEW: &str = "m.call.sdp_stream_metadata_changed";
    static VERSIONS: [&RoomVersionRules; 5] = [
        &RoomVersionRules::V1,
        &RoomVersionRules::V6,
        &RoomVersionRules::V10,
        &RoomVersionRules::V12,
        &owned_state::V11,
    ];
    /// The aliases of types of events of rooms in `enums.rs` of ruma-events, those of features that are off too.
    const ALIASES: [&str; 19] = [
        OLD,
        "m.audio",
        "m.beacon",
        "m.beacon_info",
        "m.call.member",
        "m.call.notify",
        "m.emote",
        "m.encrypted",
        "m.file",
        "m.image",
        "m.member_hints",
        "m.message",
        "m.room.language",
        "m.room.presence_sharing",
        "m.room.retention",
        "m.rtc.decline",
        "m.rtc.notification",
        "m.video",
        "m.voice",
    ];

    #[test]
    fn every_type_stays_as_it_is_written() {
        let versions = include_str!("../../../../Cargo.lock");
        let is_read = versions.contains("name = \"ruma-events\"\nversion = \"0.35.2\"\n");
        assert!(is_read, "another ruma-events: has its enums.rs new aliases?");
        for text in ALIASES.into_iter().chain([NEW, "m.room.message", "m.room.member", "x", "", AS_WRITTEN]) {
            let kind = kind_of(text);
            assert_eq!(kind.to_string(), text);
            assert_eq!(read_kind(text), (kind.clone(), kind_to_judge(&kind)));
            assert_eq!(StateEventType::from(text).to_string(), text, "and so in the key of a state");
            let judged = kind_to_judge(&kind).unwrap_or(kind);
            assert_eq!(TimelineEventType::from(judged.to_string()), judged, "in levels too");
            let text_of_judged = judged.to_string();
            assert_eq!(text_judged(&text_of_judged).unwrap_or(&text_of_judged), text);
        }
        assert_eq!(text_to_judge("m.room.topic"), None);
        for other in ["m.room.topi", "m.room.topic2", "m.room.name", ""] {
            assert!(!is_written(&kind_of("m.room.topic"), other), "{other}");
        }
    }

    /// Power levels with Bob's own, and those of the two types.
    fn levels(bob: u8, new: u8, old: u8) -> Value {
        json!({ "users": { BOB: bob }, "events": { NEW: new, OLD: old, "m.room.power_levels": bob } })
    }

    fn room_of_two(rules: &'static RoomVersionRules) -> Room {
        let mut room = Room::new(rules, ALICE);
        room.member(BOB, BOB, "join");
        room
    }

    #[test]
    fn a_type_and_the_one_it_was_called_before_have_levels_of_their_own() {
        for rules in VERSIONS {
            let mut room = room_of_two(rules);
            let before = room.send(ALICE, "m.room.power_levels", Some(""), &levels(50, 10, 20));
            let mut set = |new: u8, old: u8| -> Result<(), Error> {
                let after = room.send(BOB, "m.room.power_levels", Some(""), &levels(50, new, old));
                allowed_by_state(rules, &after, |kind, key| match kind {
                    StateEventType::RoomPowerLevels => Some(before.clone()),
                    kind => room.state_event(kind, key),
                })
            };
            assert_eq!(set(50, 20), Ok(()));
            assert_eq!(set(10, 50), Ok(()));
            assert!(set(99, 20).is_err(), "more than Bob has, for the new name");
            assert!(set(10, 99).is_err(), "and for the old one");
        }
    }

    #[test]
    fn who_may_send_one_type_may_not_send_the_other() {
        for rules in VERSIONS {
            let mut room = room_of_two(rules);
            room.send(ALICE, "m.room.power_levels", Some(""), &levels(15, 10, 20));
            let power = room.power();
            assert_eq!(power.to_send(&kind_of(NEW), None), int!(10));
            assert_eq!(power.to_send(&kind_of(OLD), None), int!(20));
            for (kind, may) in [(NEW, true), (OLD, false)] {
                for key in [None, Some("")] {
                    let pdu = room.send(BOB, kind, key, &json!({}));
                    let allowed = allowed_by_state(rules, &pdu, |kind, key| room.state_event(kind, key));
                    assert_eq!(allowed.is_ok(), may, "{kind}");
                }
            }
        }
    }

    #[test]
    fn state_of_both_types_is_two() {
        for rules in VERSIONS {
            let mut room = room_of_two(rules);
            for kind in [OLD, NEW] {
                let sent = room.send(ALICE, kind, Some(""), &json!({}));
                let stored = Pdu::restore(rules, sent.event_id().to_owned(), sent.json()).unwrap();
                for pdu in [&sent, &Pdu::parse(rules, sent.json().as_bytes()).unwrap(), &stored] {
                    assert_eq!(pdu.kind().to_string(), kind);
                    assert_eq!(pdu.state(), Some((kind.into(), "")));
                    assert!(pdu.json().contains(&format!(r#""type":"{kind}""#)));
                }
                assert_eq!(room.state[&(kind.into(), String::new())], sent.event_id());
            }
        }
    }
}
