//! Policy servers: the server that a room has every event shown to before it is sent.
//!
//! Specification: server-server API, "Policy Servers". Whether the named server is in the room is the caller's to know.

use std::collections::BTreeMap;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName,
    canonical_json::redact_in_place,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
    serde::Base64,
    signatures::verify_json,
};
use serde::Deserialize;

use crate::{
    Pdu,
    build::{self, SigningKey},
};

/// The id of every policy server's key: which key it is, the room says.
pub const KEY_ID: &str = "ed25519:policy_server";

/// The policy server that a room names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyServer {
    via: OwnedServerName,
    /// What the room says its key is; none that can be read: nothing it signs counts.
    key: Option<[u8; 32]>,
}

#[derive(Deserialize)]
struct Content {
    via: OwnedServerName,
    public_keys: PublicKeys,
}

#[derive(Deserialize)]
struct PublicKeys {
    ed25519: String,
}

/// Where a room names its policy server.
pub fn state_key() -> (StateEventType, String) {
    (StateEventType::RoomPolicy, String::new())
}

/// Whether a policy server is asked about an event: about all but the one that names it, so that no room is held by it.
pub fn judges(kind: &TimelineEventType, state_key: Option<&str>) -> bool {
    *kind != TimelineEventType::RoomPolicy || state_key != Some("")
}

impl PolicyServer {
    /// The one that an `m.room.policy` event names; `None` where something is missing.
    pub fn of(event: &Pdu) -> Option<Self> {
        let Content { via, public_keys } = event.content_as()?;
        let key = Base64::<ruma::serde::base64::Standard>::parse(&public_keys.ed25519).ok();
        Some(Self { via, key: key.and_then(|key| key.into_inner().try_into().ok()) })
    }

    /// The server.
    pub fn via(&self) -> &ServerName {
        &self.via
    }

    /// Whether the event carries its signature, made with the key that the room names.
    pub fn has_signed(&self, rules: &RoomVersionRules, pdu: &Pdu) -> bool {
        let object = pdu.to_object();
        let signature = of_policy(&object, &self.via).cloned();
        signature.is_some_and(|signature| self.verifies(rules, object, signature))
    }

    /// The event with this signature of the policy server added; `None` if it is no such signature.
    pub fn countersigned(&self, rules: &RoomVersionRules, pdu: &Pdu, signature: &str) -> Option<Pdu> {
        let signature = CanonicalJsonValue::String(signature.to_owned());
        let mut object = pdu.to_object();
        if !self.verifies(rules, object.clone(), signature.clone()) {
            return None;
        }
        let all = object.get_mut("signatures")?.as_object_mut()?;
        let own = all.entry(self.via.to_string()).or_insert_with(|| CanonicalJsonObject::new().into());
        own.as_object_mut()?.insert(KEY_ID.to_owned(), signature);
        pdu.with_object(rules, &object).ok()
    }

    fn verifies(
        &self,
        rules: &RoomVersionRules,
        mut object: CanonicalJsonObject,
        signature: CanonicalJsonValue,
    ) -> bool {
        let Some(key) = self.key else { return false };
        if redact_in_place(&mut object, &rules.redaction, None).is_err() {
            return false;
        }
        let own = CanonicalJsonObject::from([(KEY_ID.to_owned(), signature)]);
        let all = CanonicalJsonObject::from([(self.via.to_string(), own.into())]);
        object.insert("signatures".to_owned(), all.into());
        let key = BTreeMap::from([(KEY_ID.to_owned(), Base64::new(key.to_vec()))]);
        verify_json(&BTreeMap::from([(self.via.to_string(), key)]), &object).is_ok()
    }
}

/// The signature of a policy server on an event that it has judged.
pub fn sign(rules: &RoomVersionRules, pdu: &Pdu, server: &ServerName, key: &SigningKey) -> Option<String> {
    let signed = build::countersign(rules, pdu, server, key).ok()?.to_object();
    of_policy(&signed, server)?.as_str().map(str::to_owned)
}

/// `to` with the signatures of policy servers that the same event has in `from`.
pub fn carry_over(rules: &RoomVersionRules, from: &Pdu, to: &Pdu) -> Option<Pdu> {
    let (from, mut object) = (from.to_object(), to.to_object());
    for server in from.get("signatures")?.as_object()?.keys() {
        let server = ServerName::parse(server).ok()?;
        let Some(signature) = of_policy(&from, &server).cloned() else { continue };
        let all = object.get_mut("signatures")?.as_object_mut()?;
        let own = all.entry(server.to_string()).or_insert_with(|| CanonicalJsonObject::new().into());
        own.as_object_mut()?.insert(KEY_ID.to_owned(), signature);
    }
    to.with_object(rules, &object).ok()
}

fn of_policy<'a>(object: &'a CanonicalJsonObject, via: &ServerName) -> Option<&'a CanonicalJsonValue> {
    object.get("signatures")?.as_object()?.get(via.as_str())?.as_object()?.get(KEY_ID)
}

#[cfg(test)]
mod tests {
    use ruma::{events::TimelineEventType, room_version_rules::RoomVersionRules, server_name};

    use super::{PolicyServer, judges, sign};
    use crate::{Pdu, build::SigningKey, laws::sample};

    fn policy(key: &SigningKey) -> PolicyServer {
        PolicyServer { via: server_name!("p.example").to_owned(), key: Some(key.public_key()) }
    }

    fn signature(rules: &RoomVersionRules, pdu: &Pdu, key: &SigningKey) -> String {
        sign(rules, pdu, server_name!("p.example"), key).unwrap()
    }

    #[test]
    fn only_the_key_that_the_room_names_counts() {
        let key = SigningKey::from_seed([5; 32], "policy_server").unwrap();
        let other = SigningKey::from_seed([6; 32], "policy_server").unwrap();
        for version in crate::version::SUPPORTED {
            let Some(rules) = crate::version::rules(&version) else { continue };
            let (rules, _, pdu) = sample(rules);
            assert!(!policy(&key).has_signed(rules, &pdu));
            let good = signature(rules, &pdu, &key);
            let signed = policy(&key).countersigned(rules, &pdu, &good).unwrap();
            assert_eq!(signed.event_id(), pdu.event_id());
            assert!(policy(&key).has_signed(rules, &signed));
            assert!(!policy(&other).has_signed(rules, &signed), "the key was replaced");
            assert!(PolicyServer { key: None, ..policy(&key) }.countersigned(rules, &pdu, &good).is_none());
            let bad = signature(rules, &pdu, &other);
            assert!(policy(&key).countersigned(rules, &pdu, &bad).is_none());
            assert!(policy(&key).countersigned(rules, &pdu, "nonsense").is_none());
        }
    }

    #[test]
    fn a_room_can_always_be_rid_of_its_policy_server() {
        let kind = TimelineEventType::RoomPolicy;
        assert!(!judges(&kind, Some("")));
        assert!(judges(&kind, Some("x")) && judges(&kind, None));
        assert!(judges(&TimelineEventType::RoomMember, Some("")));
    }
}
