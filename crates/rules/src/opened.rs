//! The JSON of an event as an object, to be changed, hashed and signed, whatever numbers it holds.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use ring::digest::{Digest, SHA256, digest};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName, SigningKeyAlgorithm,
    canonical_json::{RedactingSerializer, redact_in_place},
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
    serde::Base64,
    signatures::{
        PublicKeyMap, VerificationError, Verified, required_server_signatures_to_verify_event,
        verify_canonical_json_bytes,
    },
};

use crate::{Error, json, numbers::Numbers, unpadded};

/// What no signature covers, and not the hash by which an event is known.
const NOT_SIGNED: &[&str] = &["signatures", "unsigned"];
/// What the content hash does not cover.
const NOT_HASHED: &[&str] = &["hashes", "signatures", "unsigned"];

/// An event taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    /// Its members. With `numbers`, each integer is the place of a number there.
    pub(crate) object: CanonicalJsonObject,
    /// Only where there is a number that canonical JSON does not have.
    numbers: Option<Numbers>,
}

impl Opened {
    /// What is canonical JSON.
    pub(crate) fn canonical(object: CanonicalJsonObject) -> Self {
        Self { object, numbers: None }
    }

    /// Reads what may be an event of the room version, without its `unsigned`; only those before 6 have numbers that canonical
    /// JSON does not have.
    pub(crate) fn read(rules: &RoomVersionRules, bytes: &[u8]) -> Result<Self, Error> {
        if rules.authorization.strict_canonical_json {
            return json::event(bytes).map(Self::canonical);
        }
        let mut opened = Self::read_any(bytes)?;
        opened.object.remove("unsigned");
        Ok(opened)
    }

    /// Reads any object, with any numbers.
    pub(crate) fn read_any(bytes: &[u8]) -> Result<Self, Error> {
        if let Ok(object) = json::object(bytes) {
            return Ok(Self::canonical(object));
        }
        let (object, numbers) = Numbers::take_out(bytes)?;
        Ok(Self { object, numbers: Some(numbers) })
    }

    /// The object itself, if it is canonical JSON; otherwise `self` again.
    pub(crate) fn into_canonical(self) -> Result<CanonicalJsonObject, Self> {
        if self.numbers.is_none() { Ok(self.object) } else { Err(self) }
    }

    /// What is hashed, sent and stored.
    pub(crate) fn text(&self) -> Result<String, Error> {
        match &self.numbers {
            Some(numbers) => numbers.put_back(&self.object),
            None => Ok(json::canonical(&self.object)),
        }
    }

    /// The canonical JSON that comes nearest.
    pub(crate) fn nearest(self) -> Result<CanonicalJsonObject, Error> {
        match self.numbers {
            Some(numbers) => numbers.nearest(&self.object),
            None => Ok(self.object),
        }
    }

    /// Takes away what redaction takes away. What is hashed and signed is what it leaves.
    ///
    /// Specification: the room version's "Redactions".
    pub(crate) fn redact(&mut self, rules: &RoomVersionRules) -> Result<(), Error> {
        if self.has_shapeless_third_party(rules)
            && let Some(CanonicalJsonValue::Object(content)) = self.object.get_mut("content")
        {
            content.remove("third_party_invite");
        }
        redact_in_place(&mut self.object, &rules.redaction, None)
            .map_err(|error| Error::Malformed(error.to_string()))
    }

    /// Of what a membership says of a third party only `signed` outlasts redaction, and so nothing of what is no object. Ruma
    /// leaves that as it is, other servers do not.
    fn has_shapeless_third_party(&self, rules: &RoomVersionRules) -> bool {
        let content = self.object.get("content").and_then(CanonicalJsonValue::as_object);
        rules.redaction.keep_room_member_third_party_invite_signed
            && self.object.get("type").and_then(CanonicalJsonValue::as_str) == Some("m.room.member")
            && content
                .and_then(|content| content.get("third_party_invite"))
                .is_some_and(|said| !said.is_object())
    }

    /// What servers sign of the event.
    ///
    /// Specification: server-server API, "Signing Events".
    pub(crate) fn text_to_sign(&self, rules: &RoomVersionRules) -> Result<String, Error> {
        if self.numbers.is_none() && !self.has_shapeless_third_party(rules) {
            // Nearly every event goes this way, which copies none of it.
            let left =
                RedactingSerializer::new().rules(&rules.redaction).custom_redacted_root_fields(NOT_SIGNED);
            return left.serialize(&self.object).map_err(|error| Error::Malformed(error.to_string()));
        }
        let mut left = self.clone();
        left.redact(rules)?;
        left.object.retain(|field, _| !NOT_SIGNED.contains(&field.as_str()));
        left.text()
    }

    /// The hash by which the event is known, in the base64 of the room version.
    ///
    /// Specification: server-server API, "Calculating the reference hash for an event".
    pub(crate) fn reference_hash(&self, rules: &RoomVersionRules) -> Result<String, Error> {
        let base64 = match rules.event_id_format {
            EventIdFormatVersion::V1 | EventIdFormatVersion::V2 => STANDARD_NO_PAD,
            _ => URL_SAFE_NO_PAD,
        };
        Ok(base64.encode(digest(&SHA256, self.text_to_sign(rules)?.as_bytes())))
    }

    /// Verifies all signatures that the event must have, then says whether the content hash is right. An event without one that
    /// can be read is no event, as for other servers.
    ///
    /// Specification: server-server API, "Validating hashes and signatures on received events".
    pub(crate) fn verify(&self, rules: &RoomVersionRules, keys: &PublicKeyMap) -> Result<Verified, Error> {
        let hash = self.hash_said().ok_or_else(|| Error::BadSignature("no content hash".to_owned()))?;
        let signed = self.text_to_sign(rules)?;
        let servers = signers(rules, &self.object).map_err(|error| Error::BadSignature(error.to_string()))?;
        for server in servers {
            check_signatures(&self.object, &server, keys.get(server.as_str()), &signed)?;
        }
        Ok(if self.has_hash(&hash) { Verified::All } else { Verified::Signatures })
    }

    /// Whether the content hash is right.
    pub(crate) fn has_its_hash(&self) -> bool {
        self.hash_said().is_some_and(|said| self.has_hash(&said))
    }

    fn hash_said(&self) -> Option<Vec<u8>> {
        unpadded::decode(self.object.get("hashes")?.as_object()?.get("sha256")?.as_str()?)
    }

    fn has_hash(&self, said: &[u8]) -> bool {
        self.content_hash().is_ok_and(|hash| said == hash.as_ref())
    }

    /// The hash of the whole event.
    ///
    /// Specification: server-server API, "Calculating the content hash for an event".
    pub(crate) fn content_hash(&self) -> Result<Digest, Error> {
        let text = match &self.numbers {
            Some(numbers) => {
                let mut object = self.object.clone();
                object.retain(|field, _| !NOT_HASHED.contains(&field.as_str()));
                numbers.put_back(&object)?
            }
            None => RedactingSerializer::new()
                .custom_redacted_root_fields(NOT_HASHED)
                .serialize(&self.object)
                .map_err(|error| Error::Malformed(error.to_string()))?,
        };
        Ok(digest(&SHA256, text.as_bytes()))
    }

    /// Puts the content hash into the event.
    pub(crate) fn add_content_hash(&mut self) -> Result<(), Error> {
        let hash = STANDARD_NO_PAD.encode(self.content_hash()?);
        let hashes = CanonicalJsonObject::from([("sha256".to_owned(), hash.into())]);
        self.object.insert("hashes".to_owned(), hashes.into());
        Ok(())
    }

    /// The signature of a server under the id of its key, if there is one.
    pub(crate) fn signature(&self, server: &ServerName, key_id: &str) -> Option<&str> {
        let signatures = self.object.get("signatures")?.as_object()?;
        signatures.get(server.as_str())?.as_object()?.get(key_id)?.as_str()
    }

    /// Adds a signature; `None` if the event's `signatures` have another shape.
    pub(crate) fn add_signature(&mut self, server: &ServerName, key_id: &str, signature: &str) -> Option<()> {
        let none = || CanonicalJsonObject::new().into();
        let all = self.object.entry("signatures".to_owned()).or_insert_with(none).as_object_mut()?;
        let own = all.entry(server.to_string()).or_insert_with(none).as_object_mut()?;
        own.insert(key_id.to_owned(), signature.into());
        Some(())
    }
}

/// The servers that must have signed an event.
///
/// Specification: server-server API, "Validating hashes and signatures on received events".
pub(crate) fn signers(
    rules: &RoomVersionRules,
    event: &CanonicalJsonObject,
) -> Result<BTreeSet<OwnedServerName>, VerificationError> {
    required_server_signatures_to_verify_event(event, &with_signers_of(rules, event).signatures)
}

/// The rules, where only a join has to be signed by the server of the user who let somebody in: whatever else names one, a
/// message too, needs no such signature elsewhere.
fn with_signers_of<'a>(
    rules: &'a RoomVersionRules,
    event: &CanonicalJsonObject,
) -> Cow<'a, RoomVersionRules> {
    let content = event.get("content").and_then(CanonicalJsonValue::as_object);
    let said = |field: &str| content.and_then(|content| content.get(field));
    let is_join = event.get("type").and_then(CanonicalJsonValue::as_str) == Some("m.room.member")
        && said("membership").and_then(CanonicalJsonValue::as_str) == Some("join");
    if is_join || said("join_authorised_via_users_server").is_none() {
        return Cow::Borrowed(rules);
    }
    let mut rules = rules.clone();
    rules.signatures.check_join_authorised_via_users_server = false;
    Cow::Owned(rules)
}

/// Each signature of the server with a key that is known must be right, and there must be one.
pub(crate) fn check_signatures(
    object: &CanonicalJsonObject,
    server: &ServerName,
    keys: Option<&BTreeMap<String, Base64>>,
    signed: &str,
) -> Result<(), Error> {
    let all = object.get("signatures").and_then(|all| all.as_object()?.get(server.as_str())?.as_object());
    let known = |(id, signature): (&String, &CanonicalJsonValue)| {
        let key = keys?.get(id).filter(|_| id.starts_with("ed25519:"))?;
        Some(signature.as_str().is_some_and(|signature| is_signature(key.as_bytes(), signature, signed)))
    };
    let checked: Vec<bool> = all.into_iter().flatten().filter_map(known).collect();
    if !checked.is_empty() && checked.into_iter().all(|is_right| is_right) {
        return Ok(());
    }
    Err(Error::BadSignature(format!("no right signature of {server}")))
}

/// The points of small order on the curve, without the bit of their sign: those that are written in one way, then in the other.
/// Whoever names one as a key, or begins a signature with one, has signed more than one text.
const SMALL_ORDER: [&str; 7] = [
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "JuiVj8KyJ7BFw/SJ8u+Y8NXfrAXTxjM5sTgCiG1T/AU",
    "xxdqcD1N2E+6PAt2DRBnDyogU/osOczGTsf9d5KsA3o",
    "7P///////////////////////////////////////38",
    "7f///////////////////////////////////////38",
    "7v///////////////////////////////////////38",
];

/// Whether a signature in base64 is that of the ed25519 key. Points of small order are refused, as libsodium does for other servers.
pub(crate) fn is_signature(key: &[u8], signature: &str, signed: &str) -> bool {
    let Some(signature) = unpadded::decode(signature) else { return false };
    if is_of_small_order(key) || signature.get(..32).is_some_and(is_of_small_order) {
        return false;
    }
    verify_canonical_json_bytes(&SigningKeyAlgorithm::Ed25519, key, &signature, signed.as_bytes()).is_ok()
}

pub(crate) fn is_of_small_order(point: &[u8]) -> bool {
    let mut unsigned = point.to_vec();
    if let Some(last) = unsigned.last_mut() {
        *last &= 0x7f;
    }
    let unsigned = STANDARD_NO_PAD.encode(unsigned);
    SMALL_ORDER.contains(&unsigned.as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ruma::{
        MilliSecondsSinceUnixEpoch, UInt, int, room_version_rules::RoomVersionRules, server_name, user_id,
    };

    use super::Opened;
    use crate::{
        Error, Pdu,
        build::{Reference, SigningKey, countersign},
        check::{KeyRing, ServerKey, check},
        laws::{Room, sample},
        power::Power,
        redact,
    };

    const OLD: [&RoomVersionRules; 5] = [
        &RoomVersionRules::V1,
        &RoomVersionRules::V2,
        &RoomVersionRules::V3,
        &RoomVersionRules::V4,
        &RoomVersionRules::V5,
    ];
    /// What Python's `hashlib` and `base64` answer for the text of [`event`].
    const HASH: &str = "h+l0RExvNhhnyNvdwF2rcAYaTUNvkZzBDK5LbggvK2c";
    const HASH_WITHOUT_ID: &str = "m2blweLAl9gV/B3SbVXz1ZwxkDuFZZ6wpaVnSkB04UU";
    const REFERENCE: &str = "kjadm9QyqjMPtSiK9HQMK05GJI8TjMMKDTCmpWV+PvQ";
    const REFERENCE_WITHOUT_ID: &str = "dsUqMFxucOFrGIPNSP0uCoTa46tUMbqK70PPNWLZSdE";

    fn event(id: &str, hash: &str) -> String {
        format!(
            r#"{{"auth_events":[],"content":{{"ban":50.0,"big":1e+22,"small":1.2e-07,"users":{{"@a:a.example":18446744073709551617}}}},"depth":9223372036854775807,{id}"hashes":{{"sha256":"{hash}"}},"origin":"a.example","origin_server_ts":1000000,"prev_events":[],"room_id":"!r:a.example","sender":"@a:a.example","signatures":{{}},"state_key":"","type":"m.room.power_levels"}}"#
        )
    }

    /// The event as it is in rooms of these rules.
    fn event_of(rules: &RoomVersionRules) -> String {
        if has_own_id(rules) {
            event(r#""event_id":"$e:a.example","#, HASH)
        } else {
            event("", HASH_WITHOUT_ID)
        }
    }

    fn has_own_id(rules: &RoomVersionRules) -> bool {
        rules.events_reference_format == RoomVersionRules::V1.events_reference_format
    }

    fn ring(key: &SigningKey) -> KeyRing {
        let known = ServerKey { public: key.public_key(), until: MilliSecondsSinceUnixEpoch(UInt::MAX) };
        KeyRing::from([(server_name!("a.example").to_owned(), [(key.id().to_owned(), known)].into())])
    }

    #[test]
    fn old_rooms_hash_and_sign_every_number_as_it_was_sent() {
        let key = SigningKey::from_seed([1; 32], "k").unwrap();
        for rules in OLD {
            let text = event_of(rules);
            let pdu = Pdu::parse(rules, text.as_bytes()).unwrap();
            assert_eq!(pdu.json(), text);
            let hash = if has_own_id(rules) { REFERENCE } else { REFERENCE_WITHOUT_ID };
            assert_eq!(pdu.opened().reference_hash(rules).unwrap(), hash);
            assert_eq!(pdu.depth(), 9_223_372_036_854_775_807);
            assert!(check(rules, &pdu, &ring(&key), &BTreeSet::new()).is_err(), "signed by nobody");
            let signed = countersign(rules, &pdu, server_name!("a.example"), &key).unwrap();
            assert_eq!(signed.event_id(), pdu.event_id());
            assert!(check(rules, &signed, &ring(&key), &BTreeSet::new()).unwrap().is_intact());
            let other = SigningKey::from_seed([2; 32], "k").unwrap();
            let refused = check(rules, &signed, &ring(&other), &BTreeSet::new());
            assert!(matches!(refused, Err(Error::BadSignature(_))));
            let again = Pdu::parse(rules, signed.json().as_bytes()).unwrap();
            assert_eq!(again, signed);
            assert_eq!(Pdu::restore(rules, signed.event_id().to_owned(), signed.json()).unwrap(), signed);
            assert!(
                again.is_same(rules, &signed)
                    && Reference::to(rules, &signed) == Reference::to(rules, &again)
            );
        }
    }

    /// Signatures that fit, and that libsodium refuses: any text by the neutral point, `{}` beginning with it.
    #[test]
    fn points_of_small_order_sign_nothing() {
        let neutral = [[1].as_slice(), &[0; 31]].concat();
        let base = "WGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmYBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert!(!super::is_signature(&neutral, base, "anything"));
        let key = crate::unpadded::decode("b2ylRirlYCNav8S/GPdi7dcrwafenknuwK617KqNN84").unwrap();
        let short = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADxkGoKlfCOSEUF8BUhnQgwBbIf+EdWWEPEYhIyG60cCA";
        assert!(!super::is_signature(&key, short, "{}"));
    }

    #[test]
    fn one_changed_digit_leaves_the_redacted_form() {
        let key = SigningKey::from_seed([1; 32], "k").unwrap();
        for rules in OLD {
            let pdu = Pdu::parse(rules, event_of(rules).as_bytes()).unwrap();
            let signed = countersign(rules, &pdu, server_name!("a.example"), &key).unwrap();
            let changed = signed.json().replace("1.2e-07", "1.3e-07");
            let changed = Pdu::parse(rules, changed.as_bytes()).unwrap();
            let checked = check(rules, &changed, &ring(&key), &BTreeSet::new()).unwrap();
            assert!(!checked.is_intact());
            let left = r#"{"ban":50.0,"users":{"@a:a.example":18446744073709551617}}"#;
            assert_eq!(checked.pdu().content().get(), left);
            assert_eq!(redact::event(rules, &signed).unwrap().json(), checked.pdu().json());
            let changed = Pdu::parse(rules, signed.json().replace("50.0", "51.0").as_bytes()).unwrap();
            assert!(
                check(rules, &changed, &ring(&key), &BTreeSet::new()).is_err(),
                "what is signed was changed"
            );
        }
    }

    #[test]
    fn from_version_6_on_every_number_is_canonical() {
        let good = sample(&RoomVersionRules::V6).2.json().replace("hello", "4");
        for number in ["1.5", "1e3", "-0", "9007199254740992", "123456789012345678901"] {
            let text = good.replace(r#""4""#, number);
            let refused = Pdu::parse(&RoomVersionRules::V6, text.as_bytes());
            assert!(matches!(refused, Err(Error::Malformed(_))), "{number}");
            assert!(Pdu::parse(&RoomVersionRules::V5, text.as_bytes()).is_ok(), "{number}");
        }
    }

    #[test]
    fn depth_and_time_stay_integers() {
        let event = event_of(&RoomVersionRules::V4);
        let parse =
            |from: &str, to: &str| Pdu::parse(&RoomVersionRules::V4, event.replace(from, to).as_bytes());
        for depth in ["9223372036854775808", "1e30", "5.0", "-9223372036854775807", "-1.5"] {
            assert!(parse("9223372036854775807", depth).is_err(), "{depth}");
        }
        for time in ["5.0", "-5.5", "1e3"] {
            assert!(parse("1000000", time).is_err(), "{time}");
        }
        let late = parse("1000000", "9007199254740995").unwrap();
        assert_eq!(late.origin_server_ts(), MilliSecondsSinceUnixEpoch(UInt::MAX));
        assert!(late.json().contains("9007199254740995"));
    }

    #[test]
    fn power_is_compared_as_integers() {
        let pdu = Pdu::parse(&RoomVersionRules::V4, event_of(&RoomVersionRules::V4).as_bytes()).unwrap();
        let create =
            Room::new(&RoomVersionRules::V4, "@a:a.example").state_event(&"m.room.create".into(), "");
        let power = Power::new(&RoomVersionRules::V4, &create.unwrap(), Some(&pdu));
        assert_eq!(power.to_ban(), int!(50));
        assert_eq!(power.of(user_id!("@a:a.example")), ruma::Int::MAX);
        assert!(pdu.content().get().contains("50.0"));
        assert_eq!(pdu.content_object()["ban"].as_integer(), Some(int!(50)));
    }

    #[test]
    fn what_ruma_hashes_and_what_is_hashed_here_is_the_same() {
        for version in crate::version::known() {
            let (rules, key, pdu) = sample(crate::version::rules(&version).unwrap());
            let opened = pdu.opened();
            let hash = ruma::signatures::reference_hash(&opened.object, rules).unwrap();
            let (object, numbers) = crate::numbers::Numbers::take_out(pdu.json().as_bytes()).unwrap();
            let with_any_numbers = Opened { object, numbers: Some(numbers) };
            let keys = super::PublicKeyMap::from([(
                "a.example".to_owned(),
                [(key.id().to_owned(), super::Base64::new(key.public_key().to_vec()))].into(),
            )]);
            let all = super::Verified::All;
            assert_eq!(ruma::signatures::verify_event(&keys, &opened.object, rules).unwrap(), all);
            for here in [opened, with_any_numbers] {
                assert_eq!(here.reference_hash(rules).unwrap(), hash);
                assert_eq!(here.verify(rules, &keys).unwrap(), all);
            }
        }
    }

    /// A join that says this of a third party, with what Python's `hashlib` and `cryptography` answer for what redaction leaves
    /// if that is nothing. The content hash is that of `null`.
    fn join_saying(third_party: &str) -> String {
        format!(
            r#"{{"auth_events":["$create","$levels","$member"],"content":{{"displayname":"Ann","membership":"join","third_party_invite":{third_party}}},"depth":7,"hashes":{{"sha256":"1QjFJYdr68Vwgds7RGEXjl33FLBWpnh+Csu48I9lRYE"}},"origin_server_ts":1000000,"prev_events":["$before"],"room_id":"!r:a.example","sender":"@ann:a.example","signatures":{{"a.example":{{"ed25519:k":"kh2Z43M7sN3FQee2CJxFw3NzyoMfwgSaJOQbFi2kGo+e0q/eFeUnHkz6dorgiEt3CJmju6eZOGKsGTmWaH/SDw"}}}},"state_key":"@ann:a.example","type":"m.room.member"}}"#
        )
    }

    #[test]
    fn of_a_third_party_that_is_no_object_redaction_leaves_nothing() {
        const ID: &str = "$cF2VVyOYVmKentvj-zM1_4yXHESH1yehJH8uQ462UzE";
        let key = SigningKey::from_seed([1; 32], "k").unwrap();
        let with_such_ids = crate::version::known().into_iter().skip(3);
        for rules in with_such_ids.map(|version| crate::version::rules(&version).unwrap()) {
            for third_party in ["null", "5", r#""x""#, "[]", "true"] {
                let pdu = Pdu::parse(rules, join_saying(third_party).as_bytes()).unwrap();
                assert_eq!(pdu.event_id().as_str(), ID, "{third_party}");
                let checked = check(rules, &pdu, &ring(&key), &BTreeSet::new()).unwrap();
                assert_eq!(checked.is_intact(), third_party == "null", "the content hash covers it");
                let redacted = redact::event(rules, &pdu).unwrap();
                assert_eq!(redacted.content().get(), r#"{"membership":"join"}"#);
                let again = countersign(rules, &pdu, server_name!("a.example"), &key).unwrap();
                assert_eq!(again, pdu, "its server signs what was signed in its name");
            }
        }
    }

    #[test]
    fn of_a_third_party_redaction_leaves_what_was_signed() {
        for rules in [&RoomVersionRules::V11, &RoomVersionRules::V12] {
            for (third_party, id, left) in [
                ("{}", "$TL8dxtfgyW06jn5Zal6o5rjakMIXO9rFcWsTN7sKHD4", "{}"),
                (r#"{"display_name":"Ann"}"#, "$TL8dxtfgyW06jn5Zal6o5rjakMIXO9rFcWsTN7sKHD4", "{}"),
                (
                    r#"{"display_name":"Ann","signed":5}"#,
                    "$aazKGJEbjXHBDas-NihjsVAQ_n9GZI1M9XW2NU-AQdo",
                    r#"{"signed":5}"#,
                ),
            ] {
                let pdu = Pdu::parse(rules, join_saying(third_party).as_bytes()).unwrap();
                assert_eq!(pdu.event_id().as_str(), id, "{third_party}");
                let left = format!(r#"{{"membership":"join","third_party_invite":{left}}}"#);
                assert_eq!(redact::event(rules, &pdu).unwrap().content().get(), left);
            }
        }
    }
}
