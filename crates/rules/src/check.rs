//! Signatures and hash of a received event: the specification's "checks performed on receipt of a PDU", steps 2 and 3.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName,
    room_version_rules::RoomVersionRules,
    serde::Base64,
    signatures::{PublicKeyMap, Verified, to_canonical_json_string_for_signing},
};

use crate::{
    Error, Pdu,
    opened::{check_signatures, signers},
    policy_server, redact,
};

/// A server's public key as this server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKey {
    /// The ed25519 public key.
    pub public: [u8; 32],
    /// Signatures made up to this moment count: `valid_until_ts` of a current key, but at most seven days after it was
    /// fetched; `expired_ts` of an old one.
    pub until: MilliSecondsSinceUnixEpoch,
}

/// What is known of servers' keys: server → key id (`ed25519:…`) → key.
pub type KeyRing = BTreeMap<OwnedServerName, BTreeMap<String, ServerKey>>;

/// Public keys that the whole world can sign with: refused whoever shows them.
pub type WeakKeys = BTreeSet<[u8; 32]>;

/// An event whose signatures are right.
#[derive(Clone, Debug)]
pub struct Checked {
    pdu: Pdu,
    intact: bool,
}

impl Checked {
    /// The event to go on with: its redacted form if its content hash was wrong.
    pub fn pdu(&self) -> &Pdu {
        &self.pdu
    }

    /// As [`Checked::pdu`].
    pub fn into_pdu(self) -> Pdu {
        self.pdu
    }

    /// Whether the content hash was right.
    pub fn is_intact(&self) -> bool {
        self.intact
    }
}

/// Which servers must have signed the event, and by which of their keys they did: what a key ring has to fetch.
pub fn keys_needed(
    rules: &RoomVersionRules,
    pdu: &Pdu,
) -> Result<BTreeMap<OwnedServerName, BTreeSet<String>>, Error> {
    let object = pdu.to_object();
    let servers = signers(rules, &object).map_err(|error| Error::Malformed(error.to_string()))?;
    // The key of a policy server is in no key document: the room's state names it.
    let published = |server: &ServerName| {
        key_ids(&object, server).into_iter().filter(|id| id != policy_server::KEY_ID).collect()
    };
    Ok(servers.into_iter().map(|server| (server.clone(), published(&server))).collect())
}

/// The ed25519 key ids with which `server` has signed `object`.
pub fn key_ids(object: &CanonicalJsonObject, server: &ServerName) -> BTreeSet<String> {
    let signatures = object.get("signatures").and_then(|all| all.as_object());
    let own = signatures.and_then(|all| all.get(server.as_str())).and_then(|own| own.as_object());
    own.into_iter().flat_map(|own| own.keys()).filter(|id| id.starts_with("ed25519:")).cloned().collect()
}

/// Verifies all required signatures, then the content hash.
///
/// A wrong or missing signature is [`Error::BadSignature`], one that cannot be checked [`Error::UnknownKey`]: drop the
/// event. A wrong hash leaves the redacted form. Where the room version enforces key validity, keys that had expired when the event claims to be made do not count.
pub fn check(rules: &RoomVersionRules, pdu: &Pdu, ring: &KeyRing, weak: &WeakKeys) -> Result<Checked, Error> {
    let at = rules.enforce_key_validity.then(|| pdu.origin_server_ts());
    let keys = usable(ring, at, weak);
    match verify(rules, pdu, &keys)? {
        Verified::All => Ok(Checked { pdu: pdu.clone(), intact: true }),
        Verified::Signatures => {
            let left = redact::event(rules, pdu)?;
            // What was said of a third party may be why its sender's server need not have signed, and is gone now.
            verify(rules, &left, &keys)?;
            Ok(Checked { pdu: left, intact: false })
        }
    }
}

/// Whether an event says what its sender said, as far as its content hash tells. Its signatures are not looked at.
pub fn is_intact(pdu: &Pdu) -> bool {
    pdu.opened().has_its_hash()
}

fn verify(rules: &RoomVersionRules, pdu: &Pdu, keys: &PublicKeyMap) -> Result<Verified, Error> {
    pdu.opened().verify(rules, keys).map_err(|error| match error {
        Error::BadSignature(why) if lacks_keys(rules, pdu, keys) => Error::UnknownKey(why),
        other => other,
    })
}

/// Whether all have signed who must, one of them with unknown keys alone.
fn lacks_keys(rules: &RoomVersionRules, pdu: &Pdu, keys: &PublicKeyMap) -> bool {
    let needed = keys_needed(rules, pdu).unwrap_or_default();
    let is_known = |server: &ServerName, id: &String| {
        keys.get(server.as_str()).is_some_and(|known| known.contains_key(id))
    };
    needed.values().all(|ids| !ids.is_empty())
        && needed.iter().any(|(server, ids)| !ids.iter().any(|id| is_known(server, id)))
}

/// Verifies that `server` has signed any other JSON object with a key that is valid at `at`.
pub fn check_json(
    object: &CanonicalJsonObject,
    server: &ServerName,
    ring: &KeyRing,
    at: MilliSecondsSinceUnixEpoch,
    weak: &WeakKeys,
) -> Result<(), Error> {
    let signed =
        to_canonical_json_string_for_signing(object).map_err(|error| Error::Malformed(error.to_string()))?;
    check_signatures(object, server, usable(ring, Some(at), weak).get(server.as_str()), &signed)
}

fn usable(ring: &KeyRing, at: Option<MilliSecondsSinceUnixEpoch>, weak: &WeakKeys) -> PublicKeyMap {
    let good = |key: &ServerKey| at.is_none_or(|at| at <= key.until) && !weak.contains(&key.public);
    ring.iter()
        .map(|(server, keys)| {
            let keys = keys.iter().filter(|(_, key)| good(key));
            (
                server.to_string(),
                keys.map(|(id, key)| (id.clone(), Base64::new(key.public.to_vec()))).collect(),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ruma::{
        CanonicalJsonValue, MilliSecondsSinceUnixEpoch, room_version_rules::RoomVersionRules, server_name,
        uint,
    };
    use serde_json::{Value, json};

    use super::{Checked, KeyRing, ServerKey, check, check_json, is_intact, keys_needed};
    use crate::{
        Error, Pdu,
        build::{SigningKey, countersign},
        json,
        laws::{Room, sample},
    };

    fn json_value(value: Value) -> CanonicalJsonValue {
        value.try_into().unwrap()
    }

    fn ring(key: &SigningKey, until: u32) -> KeyRing {
        let until = MilliSecondsSinceUnixEpoch(until.into());
        let known = ServerKey { public: key.public_key(), until };
        KeyRing::from([(server_name!("a.example").to_owned(), [(key.id().to_owned(), known)].into())])
    }

    #[test]
    fn good_event_passes_and_names_its_keys() {
        let (rules, key, pdu) = sample(&RoomVersionRules::V11);
        let needed = keys_needed(rules, &pdu).unwrap();
        assert_eq!(needed[server_name!("a.example")], BTreeSet::from([key.id().to_owned()]));
        assert!(check(rules, &pdu, &ring(&key, 2_000), &BTreeSet::new()).unwrap().is_intact());
    }

    #[test]
    fn expired_unknown_and_weak_keys_do_not_count() {
        let (rules, key, pdu) = sample(&RoomVersionRules::V11);
        let unknown = |answer: Result<Checked, Error>| matches!(answer, Err(Error::UnknownKey(_)));
        assert!(unknown(check(rules, &pdu, &ring(&key, 10), &BTreeSet::new())));
        assert!(unknown(check(rules, &pdu, &KeyRing::new(), &BTreeSet::new())));
        assert!(unknown(check(rules, &pdu, &ring(&key, 2_000), &BTreeSet::from([key.public_key()]))));
        let wrong = |answer: Result<Checked, Error>| matches!(answer, Err(Error::BadSignature(_)));
        let other = SigningKey::from_seed([9; 32], "k").unwrap();
        assert!(wrong(check(rules, &pdu, &ring(&other, 2_000), &BTreeSet::new())));
        let unsigned = pdu.json().replace(key.id(), "rsa:k");
        let unsigned = Pdu::parse(rules, unsigned.as_bytes()).unwrap();
        assert!(wrong(check(rules, &unsigned, &KeyRing::new(), &BTreeSet::new())));
    }

    #[test]
    fn wrong_hash_leaves_the_redacted_form() {
        let (rules, key, pdu) = sample(&RoomVersionRules::V11);
        let changed = Pdu::parse(rules, pdu.json().replace("hello", "hullo").as_bytes()).unwrap();
        assert_eq!(changed.event_id(), pdu.event_id());
        let checked = check(rules, &changed, &ring(&key, 2_000), &BTreeSet::new()).unwrap();
        assert!(!checked.is_intact());
        assert_eq!(checked.pdu().content().get(), "{}");
        assert!(is_intact(&pdu) && !is_intact(checked.pdu()));
    }

    #[test]
    fn nobody_invites_in_anothers_name_with_a_third_party_that_redaction_takes_away() {
        for rules in [&RoomVersionRules::V1, &RoomVersionRules::V6, &RoomVersionRules::V10] {
            let mut room = Room::new(rules, "@admin:victim.example");
            let invite = room.member("@admin:victim.example", "@x:a.example", "invite");
            let mut object = invite.to_object();
            let content = json!({ "membership": "invite", "third_party_invite": {} });
            object.insert("content".to_owned(), json_value(content));
            object.insert("hashes".to_owned(), json_value(json!({ "sha256": "AAAA" })));
            object.insert("signatures".to_owned(), json_value(json!({})));
            if object.contains_key("event_id") {
                object.insert("event_id".to_owned(), json_value(json!("$forged:a.example")));
            }
            let unsigned = Pdu::from_object(rules, object).unwrap();
            let key = SigningKey::from_seed([1; 32], "k").unwrap();
            let forged = countersign(rules, &unsigned, server_name!("a.example"), &key).unwrap();
            let checked = check(rules, &forged, &ring(&key, 20_000), &BTreeSet::new());
            assert!(matches!(checked, Err(Error::BadSignature(_))), "{checked:?}");
        }
    }

    #[test]
    fn only_a_join_asks_for_the_signature_of_whoever_let_somebody_in() {
        let by = |kind: &str, key: Option<&str>, content: Value| {
            let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
            let pdu = room.send("@a:a.example", kind, key, &content);
            let needed = keys_needed(&RoomVersionRules::V11, &pdu).unwrap();
            let key = SigningKey::from_seed([1; 32], "k").unwrap();
            let passes = check(&RoomVersionRules::V11, &pdu, &ring(&key, 20_000), &BTreeSet::new()).is_ok();
            (needed.contains_key(server_name!("b.example")), passes)
        };
        let named = |field: &str, value: &str| json!({ field: value, "join_authorised_via_users_server": "@b:b.example" });
        assert_eq!(by("m.room.member", Some("@a:a.example"), named("membership", "join")), (true, false));
        assert_eq!(by("m.room.member", Some("@c:a.example"), named("membership", "invite")), (false, true));
        assert_eq!(by("m.room.message", None, named("body", "x")), (false, true));
        let odd = json!({ "body": "x", "join_authorised_via_users_server": 5 });
        assert_eq!(by("m.room.message", None, odd), (false, true));
    }

    #[test]
    fn signed_json_needs_the_named_server() {
        let key = SigningKey::from_seed([1; 32], "k").unwrap();
        let mut object = json::object(br#"{"a":1}"#).unwrap();
        key.sign_json(server_name!("a.example"), &mut object);
        let at = MilliSecondsSinceUnixEpoch(uint!(5));
        let ring = ring(&key, 10);
        assert!(check_json(&object, server_name!("a.example"), &ring, at, &BTreeSet::new()).is_ok());
        assert!(check_json(&object, server_name!("b.example"), &ring, at, &BTreeSet::new()).is_err());
        let late = MilliSecondsSinceUnixEpoch(uint!(11));
        assert!(check_json(&object, server_name!("a.example"), &ring, late, &BTreeSet::new()).is_err());
    }

    /// The text in the other alphabet, and with characters of none.
    fn otherwise(base64: &str) -> String {
        format!("!!!!{}", base64.replace('+', "-").replace('/', "_"))
    }

    #[test]
    fn hash_and_signature_count_however_their_base64_is_written() {
        let (rules, key, pdu) = sample(&RoomVersionRules::V11);
        let (server, none) = (server_name!("a.example"), BTreeSet::new());
        let hash = pdu.to_object()["hashes"].as_object().unwrap()["sha256"].as_str().unwrap().to_owned();
        let written = pdu.json().replace(&hash, &otherwise(&hash));
        let written = Pdu::parse(rules, written.as_bytes()).unwrap();
        let signed = countersign(rules, &written, server, &key).unwrap();
        let signature = signed.opened().signature(server, key.id()).unwrap().to_owned();
        let with = |other: &str| {
            let pdu = Pdu::parse(rules, signed.json().replace(&signature, other).as_bytes()).unwrap();
            check(rules, &pdu, &ring(&key, 2_000), &none)
        };
        assert!(with(&otherwise(&signature)).unwrap().is_intact());
        // What is skipped counts as written, so that there is too little padding.
        assert!(matches!(with(&format!("{signature}!")), Err(Error::BadSignature(_))));
    }

    #[test]
    fn signed_json_counts_however_its_base64_is_written() {
        let key = SigningKey::from_seed([1; 32], "k").unwrap();
        let (server, none) = (server_name!("a.example"), BTreeSet::new());
        let mut object = json::object(br#"{"a":1}"#).unwrap();
        key.sign_json(server, &mut object);
        let text = json::canonical(&object);
        let (_, signature) = text.split_once(r#""ed25519:k":""#).unwrap();
        let (signature, _) = signature.split_once('"').unwrap();
        for (other, counts) in
            [(otherwise(signature), true), (format!("{signature}=="), true), (format!("{signature}!"), false)]
        {
            let object = json::object(text.replace(signature, &other).as_bytes()).unwrap();
            let at = MilliSecondsSinceUnixEpoch(uint!(5));
            assert_eq!(check_json(&object, server, &ring(&key, 10), at, &none).is_ok(), counts, "{other}");
        }
    }
}
