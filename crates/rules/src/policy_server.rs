//! Policy servers: the server that a room has every event shown to before it is sent.
//!
//! Specification: server-server API, "Policy Servers". Whether the named server is in the room is the caller's to know.

use ruma::{
    OwnedServerName, ServerName,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
};
use serde::Deserialize;

use crate::{
    Pdu,
    build::{self, SigningKey},
    opened::{Opened, is_signature},
    unpadded,
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
        let key = unpadded::decode(&public_keys.ed25519);
        Some(Self { via, key: key.and_then(|key| key.try_into().ok()) })
    }

    /// The server.
    pub fn via(&self) -> &ServerName {
        &self.via
    }

    /// Whether the event carries its signature, made with the key that the room names.
    pub fn has_signed(&self, rules: &RoomVersionRules, pdu: &Pdu) -> bool {
        let opened = pdu.opened();
        opened.signature(&self.via, KEY_ID).is_some_and(|signature| self.verifies(rules, &opened, signature))
    }

    /// The event with this signature of the policy server added; `None` if it is no such signature.
    pub fn countersigned(&self, rules: &RoomVersionRules, pdu: &Pdu, signature: &str) -> Option<Pdu> {
        let mut opened = pdu.opened();
        if !self.verifies(rules, &opened, signature) {
            return None;
        }
        opened.add_signature(&self.via, KEY_ID, signature)?;
        pdu.with(rules, opened).ok()
    }

    fn verifies(&self, rules: &RoomVersionRules, opened: &Opened, signature: &str) -> bool {
        let Some(key) = self.key else { return false };
        opened.text_to_sign(rules).is_ok_and(|signed| is_signature(&key, signature, &signed))
    }
}

/// The signature of a policy server on an event that it has judged.
pub fn sign(rules: &RoomVersionRules, pdu: &Pdu, server: &ServerName, key: &SigningKey) -> Option<String> {
    let signed = build::countersign(rules, pdu, server, key).ok()?.opened();
    signed.signature(server, KEY_ID).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use ruma::{events::TimelineEventType, room_version_rules::RoomVersionRules, server_name};

    use serde_json::json;

    use super::{PolicyServer, judges, sign};
    use crate::{
        Pdu,
        build::SigningKey,
        laws::{Room, sample},
    };

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
            let otherwise = format!("!!!!{}", good.replace('+', "-").replace('/', "_"));
            let signed_otherwise = policy(&key).countersigned(rules, &pdu, &otherwise).unwrap();
            assert!(policy(&key).has_signed(rules, &signed_otherwise), "in the other alphabet");
            assert!(!policy(&other).has_signed(rules, &signed), "the key was replaced");
            assert!(PolicyServer { key: None, ..policy(&key) }.countersigned(rules, &pdu, &good).is_none());
            let bad = signature(rules, &pdu, &other);
            assert!(policy(&key).countersigned(rules, &pdu, &bad).is_none());
            assert!(policy(&key).countersigned(rules, &pdu, "nonsense").is_none());
        }
    }

    #[test]
    fn the_key_that_a_room_names_counts_however_its_base64_is_written() {
        let key = SigningKey::from_seed([5; 32], "policy_server").unwrap();
        let text = key.public_base64();
        let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
        let mut named = |key: &str| {
            let content = json!({ "via": "p.example", "public_keys": { "ed25519": key } });
            PolicyServer::of(&room.send("@a:a.example", "m.room.policy", Some(""), &content)).unwrap()
        };
        let otherwise = format!("!!!!{}", text.replace('+', "-").replace('/', "_"));
        for right in [text.clone(), format!("{text}="), otherwise] {
            assert_eq!(named(&right), policy(&key), "{right}");
        }
        for none in ["", "AAAA", &format!("{text}!")] {
            assert_eq!(named(none).key, None, "{none}");
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
