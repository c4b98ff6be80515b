//! The form of an event of unknown origin.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
    state_res::check_pdu_format,
};

use super::{MAX_ID_BYTES, MAX_RAW_BYTES, Pdu, id_of, malformed, text};
use crate::{Error, opened::Opened, owned_state};

/// The longest event in canonical JSON, in bytes.
///
/// Specification: client-server API, "Size limits".
pub(super) const MAX_BYTES: usize = 65_536;
/// How many events may be named as previous ones, and as those that justify an event.
const MOST_NAMED: [(&str, usize); 2] = [("prev_events", 20), ("auth_events", 10)];

impl Pdu {
    /// As [`Pdu::parse`], of an event of old history, which names as many others as it likes: once there was no limit.
    ///
    /// Specification: server-server API, `GET /_matrix/federation/v1/backfill/{roomId}`.
    pub fn parse_old(rules: &RoomVersionRules, bytes: &[u8]) -> Result<Self, Error> {
        let parsed = Self::parse(rules, bytes);
        if parsed.is_ok() || bytes.len() > MAX_RAW_BYTES {
            return parsed;
        }
        let mut whole = Opened::read(rules, bytes)?;
        let Some(few) = naming_few(&whole) else { return parsed };
        // All the rest is as it must be.
        Self::parse(rules, few.text()?.as_bytes())?;
        whole.object.remove("unsigned");
        if rules.event_id_format != EventIdFormatVersion::V1 {
            whole.object.remove("event_id");
        }
        let json = whole.text()?;
        if json.len() > MAX_BYTES {
            return Err(malformed("event is too large"));
        }
        let id = id_of(rules, json.as_bytes()).ok_or_else(|| malformed("the event has no id"))?;
        Self::assemble(rules, id.clone(), &whole.nearest()?)?;
        Self::restore(rules, id, &json)
    }
}

/// The event with as many of those that it names as may be named; `None` if it names no more.
fn naming_few(whole: &Opened) -> Option<Opened> {
    let (mut few, mut names_more) = (whole.clone(), false);
    for (field, most) in MOST_NAMED {
        if let Some(CanonicalJsonValue::Array(named)) = few.object.get_mut(field) {
            names_more |= named.len() > most;
            named.truncate(most);
        }
    }
    names_more.then_some(few)
}

/// Checks an event without `unsigned`, and without `event_id` where it is derived; not how long the whole is.
pub(super) fn check(rules: &RoomVersionRules, object: &mut CanonicalJsonObject) -> Result<(), Error> {
    // Ruma's longest event is a byte shorter; without these every event that may be is.
    let proofs = ["hashes", "signatures"].map(|field| object.remove_entry(field));
    let checked = check_pdu_format(object, &rules.event_format);
    object.extend(proofs.into_iter().flatten());
    checked.map_err(Error::Malformed)
}

/// `hashes` and `signatures` have the right shape. Whether they are right is asked in [`crate::check`].
pub(super) fn check_proofs(object: &CanonicalJsonObject) -> Result<(), Error> {
    let Some(CanonicalJsonValue::Object(hashes)) = object.get("hashes") else {
        return Err(malformed("hashes is not an object"));
    };
    text(hashes, "sha256")?;
    if !hashes.values().all(CanonicalJsonValue::is_string) {
        return Err(malformed("hashes are not strings"));
    }
    let Some(CanonicalJsonValue::Object(signatures)) = object.get("signatures") else {
        return Err(malformed("signatures is not an object"));
    };
    if signatures.values().all(are_texts) { Ok(()) } else { Err(malformed("signatures are not strings")) }
}

/// Whether it is an object of strings.
pub(super) fn are_texts(value: &CanonicalJsonValue) -> bool {
    value.as_object().is_some_and(|texts| texts.values().all(CanonicalJsonValue::is_string))
}

/// Where state belongs to users, a state key may be longer than elsewhere. An event with such a key comes back with a
/// placeholder that is not too long, to be checked in its stead; how long which part may be is for the auth rules to say.
pub(super) fn with_owned_key(
    rules: &RoomVersionRules,
    object: &CanonicalJsonObject,
) -> Option<CanonicalJsonObject> {
    let key = object.get("state_key").and_then(|key| key.as_str()).unwrap_or_default();
    if !owned_state::has_owners(rules) || !(256..=owned_state::LONGEST_KEY).contains(&key.len()) {
        return None;
    }
    let mut shortened = object.clone();
    shortened.insert("state_key".to_owned(), CanonicalJsonValue::String("x".repeat(MAX_ID_BYTES)));
    Some(shortened)
}

/// Before version 11 servers counted the characters of a type or state key, not its bytes, and rooms hold such events. One
/// that is too long only in bytes comes back with a placeholder of as many bytes as are allowed, to be checked in its stead;
/// that it counts for nothing is for the auth rules to say.
pub(super) fn counted_in_characters(
    rules: &RoomVersionRules,
    object: &CanonicalJsonObject,
) -> Option<CanonicalJsonObject> {
    if rules.authorization.use_room_create_sender {
        return None;
    }
    let long = |field: &&str| {
        let text = object.get(*field).and_then(|value| value.as_str());
        text.is_some_and(|text| text.len() > MAX_ID_BYTES && text.chars().count() <= MAX_ID_BYTES)
    };
    let fields: Vec<&str> = ["type", "state_key"].into_iter().filter(long).collect();
    if fields.is_empty() {
        return None;
    }
    let mut shortened = object.clone();
    shortened.remove("unsigned");
    if rules.event_id_format != EventIdFormatVersion::V1 {
        shortened.remove("event_id");
    }
    for field in fields {
        shortened.insert(field.to_owned(), CanonicalJsonValue::String("x".repeat(MAX_ID_BYTES)));
    }
    Some(shortened)
}

#[cfg(test)]
mod tests {
    use ruma::room_version_rules::RoomVersionRules;
    use serde_json::{Value, json};

    use super::{MAX_BYTES, Pdu};
    use crate::laws::sample;

    /// A message that names so many events, otherwise than usual.
    fn naming(rules: &'static RoomVersionRules, (prev, auth): (usize, usize), changes: &Value) -> String {
        let mut event: Value = serde_json::from_str(sample(rules).2.json()).unwrap();
        for (field, count) in [("prev_events", prev), ("auth_events", auth)] {
            let one = event[field][0].clone();
            event[field] = vec![one; count].into();
        }
        for (field, value) in changes.as_object().unwrap() {
            event[field] = value.clone();
        }
        event.to_string()
    }

    #[test]
    fn of_old_history_an_event_names_as_many_others_as_it_likes() {
        for rules in [&RoomVersionRules::V1, &RoomVersionRules::V5, &RoomVersionRules::V11] {
            for (prev, auth) in [(21, 1), (1, 11), (300, 30)] {
                let text = naming(rules, (prev, auth), &json!({}));
                assert!(Pdu::parse(rules, text.as_bytes()).is_err());
                let pdu = Pdu::parse_old(rules, text.as_bytes()).unwrap();
                assert_eq!((pdu.prev_events().len(), pdu.auth_events().len()), (prev, auth));
                assert_eq!(pdu.json(), text);
            }
            let usual = naming(rules, (2, 3), &json!({ "unsigned": { "age": 5 } }));
            let parsed = Pdu::parse(rules, usual.as_bytes()).unwrap();
            assert_eq!(Pdu::parse_old(rules, usual.as_bytes()).unwrap(), parsed);
        }
    }

    #[test]
    fn of_old_history_too_an_event_is_otherwise_as_it_must_be() {
        let (old, new) = (&RoomVersionRules::V5, &RoomVersionRules::V11);
        let parse = |rules, changes: &Value| {
            let text = naming(rules, (25, 4), changes);
            Pdu::parse_old(rules, text.as_bytes())
        };
        assert!(parse(old, &json!({ "content": { "n": 1.5 } })).unwrap().json().contains("1.5"));
        let more = json!({ "unsigned": { "age": 5 }, "event_id": "$other" });
        assert_eq!(parse(new, &more).unwrap(), parse(new, &json!({})).unwrap());
        let mut names_none = vec!["$e"; 24];
        names_none.push("e");
        for changes in [
            json!({ "content": { "n": 1.5 } }),
            json!({ "depth": -1 }),
            json!({ "sender": "nobody" }),
            json!({ "hashes": {} }),
            json!({ "type": "x".repeat(256) }),
            json!({ "content": { "pad": "p".repeat(MAX_BYTES) } }),
            json!({ "prev_events": names_none }),
            json!({ "prev_events": vec![format!("${}", "e".repeat(255)); 25] }),
        ] {
            assert!(parse(new, &changes).is_err(), "{changes}");
        }
    }
}
