//! The form of an event of unknown origin.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
    state_res::check_pdu_format,
};

use super::{MAX_ID_BYTES, malformed, text};
use crate::{Error, owned_state};

/// The longest event in canonical JSON, in bytes.
///
/// Specification: client-server API, "Size limits".
pub(super) const MAX_BYTES: usize = 65_536;

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
    let Some(CanonicalJsonValue::Object(signatures)) = object.get("signatures") else {
        return Err(malformed("signatures is not an object"));
    };
    let texts = |keys: &CanonicalJsonValue| {
        keys.as_object().is_some_and(|keys| keys.values().all(CanonicalJsonValue::is_string))
    };
    if signatures.values().all(texts) { Ok(()) } else { Err(malformed("signatures are not strings")) }
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
