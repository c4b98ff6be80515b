//! What authorization reads of power levels, join rules, members and invited addresses that peers wrote loosely.
//!
//! Rooms hold such state: other servers take it, and whoever rejects it rejects all that rests on it. So what is judged is the
//! content as they read it; what is stored, hashed and sent stays as it is.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, UserId, events::TimelineEventType,
    room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use super::{Pdu, content_object, integer::integer, raw, text_to_judge};
use crate::third_party;

/// The levels that have a default.
const NAMED: [&str; 7] =
    ["users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"];
/// The levels by key.
const MAPS: [&str; 3] = ["users", "events", "notifications"];
/// A level that nobody reads.
const NO_LEVEL: &str = "none";
/// What a user id that stands for none ends with: no server is called that.
pub(crate) const NOBODY: &str = ":nobody.invalid";

/// The content to be judged, where it is not the one that was sent.
pub(super) fn content_to_judge(
    rules: &RoomVersionRules,
    kind: &TimelineEventType,
    content: &RawValue,
) -> Option<Box<RawValue>> {
    let changed = |change: fn(&RoomVersionRules, &mut CanonicalJsonObject)| {
        let mut read = content_object(content);
        change(rules, &mut read);
        read
    };
    let read = match kind {
        TimelineEventType::RoomPowerLevels => changed(power_levels),
        TimelineEventType::RoomJoinRules => changed(join_rules),
        TimelineEventType::RoomMember => third_party::member_to_judge(content)?,
        TimelineEventType::RoomThirdPartyInvite => third_party::address_to_judge(&content_object(content)),
        _ => return None,
    };
    let read = raw(&read);
    (read.get() != content.get()).then_some(read)
}

/// Levels are integers already. Until room version 9 they may be texts and truth values too, or left out by `null` but for those
/// of `users`, and until version 5 nobody looks at `notifications`. In every version, `users` may hold names that are nobody's,
/// and `events` types that ruma would read as others.
fn power_levels(rules: &RoomVersionRules, content: &mut CanonicalJsonObject) {
    let rules = &rules.authorization;
    if !rules.integer_power_levels {
        content.retain(|field, level| !(NAMED.contains(&field.as_str()) && is_null(level)));
        for (field, level) in content.iter_mut() {
            match level {
                CanonicalJsonValue::Object(levels) if MAPS.contains(&field.as_str()) => {
                    levels.retain(|_, level| field == "users" || !is_null(level));
                    levels.values_mut().for_each(as_number);
                }
                level if NAMED.contains(&field.as_str()) => as_number(level),
                _ => {}
            }
        }
    }
    if !rules.limit_notifications_power_levels {
        content.remove("notifications");
    }
    if let Some(CanonicalJsonValue::Object(users)) = content.get_mut("users") {
        *users = std::mem::take(users).into_iter().map(|(user, level)| (with_a_name(user), level)).collect();
    }
    if let Some(CanonicalJsonValue::Object(events)) = content.get_mut("events") {
        let judged = |kind: String| text_to_judge(&kind).unwrap_or(kind);
        *events = std::mem::take(events).into_iter().map(|(kind, level)| (judged(kind), level)).collect();
    }
}

fn is_null(level: &CanonicalJsonValue) -> bool {
    *level == CanonicalJsonValue::Null
}

/// Whether power levels hold a `null` where levels are compared with those before: other servers do not get over it.
pub(crate) fn has_null_level(rules: &RoomVersionRules, levels: &Pdu) -> bool {
    let has_one = |(field, level): (&String, &CanonicalJsonValue)| match level {
        CanonicalJsonValue::Object(levels) => {
            let is_compared = match field.as_str() {
                "notifications" => rules.authorization.limit_notifications_power_levels,
                field => MAPS.contains(&field),
            };
            is_compared && levels.values().any(is_null)
        }
        level => NAMED.contains(&field.as_str()) && is_null(level),
    };
    levels.content_object().iter().any(has_one)
}

/// The number that other servers read in a text or a truth value. Where they read none in a text, ruma finds one in which it
/// reads none either.
fn as_number(level: &mut CanonicalJsonValue) {
    let number = match level {
        CanonicalJsonValue::Bool(truth) => Some(i32::from(*truth).into()),
        CanonicalJsonValue::String(text) => integer(text),
        _ => return,
    };
    *level = number.map_or_else(|| NO_LEVEL.into(), CanonicalJsonValue::Integer);
}

/// The key itself, if it is a user id or is refused by everybody. One that merely looks like a user id counts elsewhere as an
/// entry that may not be given more than one has: here as that of a user there can never be.
fn with_a_name(user: String) -> String {
    if user.starts_with('@') { stand_in(&user).unwrap_or(user) } else { user }
}

/// The state key to be judged, where it is not the one that was sent: who is put out of a room need not be a user, elsewhere
/// a colon is all that such a name needs.
pub(super) fn state_key_to_judge(kind: &TimelineEventType, key: &str) -> Option<String> {
    if *kind == TimelineEventType::RoomMember { stand_in(key) } else { None }
}

/// The id of a user there can never be, another one for every text that looks like a user id and is none.
pub(crate) fn stand_in(text: &str) -> Option<String> {
    let may_be_one = UserId::parse(text).is_ok() && !text.ends_with(NOBODY);
    if may_be_one || !text.contains(':') {
        return None;
    }
    let mut name = "@".to_owned();
    for byte in digest(&SHA256, text.as_bytes()).as_ref() {
        write!(name, "{byte:02x}").ok();
    }
    Some(name + NOBODY)
}

/// A join rule that is missing is `invite`; one that is no text lets nobody in.
fn join_rules(_: &RoomVersionRules, content: &mut CanonicalJsonObject) {
    let rule = content.entry("join_rule".to_owned()).or_insert_with(|| "invite".to_owned().into());
    if !rule.is_string() {
        *rule = "private".to_owned().into();
    }
}

#[cfg(test)]
mod tests {
    use ruma::{events::StateEventType, room_version_rules::RoomVersionRules};
    use serde_json::{Value, json, value::to_raw_value};

    use super::{TimelineEventType, content_to_judge};
    use crate::{Error, Pdu, auth::allowed_by_state, laws::Room};

    fn read(rules: &RoomVersionRules, kind: &TimelineEventType, content: Value) -> Value {
        let sent = to_raw_value(&content).unwrap();
        content_to_judge(rules, kind, &sent).map_or(content, |read| serde_json::from_str(read.get()).unwrap())
    }

    #[test]
    fn loose_levels_are_read_as_other_servers_read_them() {
        let loose = json!({
            "ban": null, "invite": true, "kick": " +5_0", "events": { "m.room.name": null, "x": "25" },
            "notifications": { "room": "50", "x": "++5", "y": null },
            "users": {
                "@a:a.example": "\u{ff11}00", "@b:a.example": false, "@c:a.example": "-9999999999999999",
            },
        });
        let power = &TimelineEventType::RoomPowerLevels;
        let lowest = ruma::Int::MIN;
        let users = json!({ "@a:a.example": 100, "@b:a.example": 0, "@c:a.example": lowest });
        let old = read(&RoomVersionRules::V5, power, loose.clone());
        assert_eq!(old, json!({ "events": { "x": 25 }, "invite": 1, "kick": 50, "users": users }));
        let later = read(&RoomVersionRules::V9, power, loose.clone());
        assert_eq!(later["notifications"], json!({ "room": 50, "x": "none" }));
        assert_eq!((&later["users"], &later["ban"]), (&users, &Value::Null));
        let nobodys = json!({ "users": { "@a:a.example": null } });
        assert_eq!(read(&RoomVersionRules::V9, power, nobodys.clone()), nobodys, "refused by everybody");
        assert_eq!(read(&RoomVersionRules::V10, power, loose.clone()), loose, "refused by everybody");
    }

    #[test]
    fn a_missing_join_rule_is_invite_and_an_unreadable_one_lets_nobody_in() {
        let rules = &TimelineEventType::RoomJoinRules;
        for (sent, said) in [
            (json!({}), json!("invite")),
            (json!({ "join_rule": null }), json!("private")),
            (json!({ "join_rule": 5 }), json!("private")),
            (json!({ "join_rule": "public" }), json!("public")),
        ] {
            assert_eq!(read(&RoomVersionRules::V11, rules, sent)["join_rule"], said);
        }
        let topic = to_raw_value(&json!({})).unwrap();
        assert!(content_to_judge(&RoomVersionRules::V11, &TimelineEventType::RoomTopic, &topic).is_none());
    }

    /// What the rules say where a moderator of level 50 sets these levels of others after those.
    fn set(rules: &'static RoomVersionRules, before: &Value, after: &Value) -> Result<(), Error> {
        let (creator, moderator) = ("@a:a.example", "@m:a.example");
        let mut room = Room::new(rules, creator);
        room.member(moderator, moderator, "join");
        let levels = |more: &Value| {
            let mut users = json!({ moderator: 50 });
            users.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "users": users })
        };
        let old = room.send(creator, "m.room.power_levels", Some(""), &levels(before));
        let new = room.send(moderator, "m.room.power_levels", Some(""), &levels(after));
        allowed_by_state(rules, &new, |kind, key| match kind {
            StateEventType::RoomPowerLevels => Some(old.clone()),
            kind => room.state_event(kind, key),
        })
    }

    #[test]
    fn a_text_is_a_level_where_it_is_an_integer_to_others() {
        let (none, other) = (json!({}), "@other:b.example");
        for (text, is_one) in [
            ("25", true),
            (" 2_5", true),
            ("\u{ff12}\u{ff15}", true),
            ("-9007199254740992", true),
            ("75", false),
            ("9007199254740992", false),
            ("++5", false),
            ("5.0", false),
            ("\u{1c}25", false),
            ("", false),
        ] {
            for rules in [&RoomVersionRules::V1, &RoomVersionRules::V5, &RoomVersionRules::V9] {
                assert_eq!(set(rules, &none, &json!({ other: text })).is_ok(), is_one, "{text:?}");
            }
            let later = set(&RoomVersionRules::V10, &none, &json!({ other: text }));
            assert!(later.is_err(), "{text:?}");
        }
        let changes = [("75", "+7_5", true), ("75", "0x4b", false), ("75", "74", false)];
        for (before, after, is_allowed) in changes {
            let (before, after) = (json!({ other: before }), json!({ other: after }));
            assert_eq!(set(&RoomVersionRules::V9, &before, &after).is_ok(), is_allowed, "{after}");
        }
    }

    #[test]
    fn an_entry_of_nobody_is_an_entry_as_others_are() {
        for rules in [&RoomVersionRules::V1, &RoomVersionRules::V10, &RoomVersionRules::V12] {
            for nobody in ["@bob:my_host", "@jean:agents.fr "] {
                let (none, low, high) = (json!({}), json!({ nobody: 25 }), json!({ nobody: 75 }));
                assert!(set(rules, &none, &low).is_ok(), "{nobody}");
                assert!(set(rules, &low, &none).is_ok(), "{nobody}");
                assert!(set(rules, &none, &high).is_err(), "more than one has");
                assert!(set(rules, &high, &none).is_err(), "taken from whoever has more");
                assert!(set(rules, &high, &high).is_ok(), "{nobody}");
            }
            for refused in ["bob", "@bob", "#bob:a.example"] {
                assert!(set(rules, &json!({}), &json!({ refused: 0 })).is_err(), "{refused}");
            }
        }
    }

    #[test]
    fn where_the_join_rule_is_missing_who_is_in_may_change_their_name() {
        for content in [json!({}), json!({ "join_rule": 5 })] {
            let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
            room.send("@a:a.example", "m.room.join_rules", Some(""), &content);
            let state = room.state.clone();
            let at = |room: &Room, kind: &StateEventType, key: &str| {
                Some(room.events[state.get(&(kind.clone(), key.to_owned()))?].clone())
            };
            let name = room.member("@a:a.example", "@a:a.example", "join");
            let other = room.member("@b:b.example", "@b:b.example", "join");
            let allowed = |room: &Room, pdu: &Pdu| {
                allowed_by_state(&RoomVersionRules::V11, pdu, |kind, key| at(room, kind, key)).is_ok()
            };
            assert_eq!(allowed(&room, &name), content == json!({}));
            assert!(!allowed(&room, &other));
        }
    }
}
