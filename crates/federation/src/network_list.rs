//! The signed list of a network's servers: its form, its signatures, what may stand in it. Pure.
//!
//! A list is JSON, signed like everything in Matrix, by the name of the network and one of its trust roots:
//!
//! ```json
//! {
//!   "network": "example.gouv.fr", "sequence": 7, "issued_at": 1790000000000, "expires_at": 1798000000000,
//!   "servers": {
//!     "agent.dinum.example.gouv.fr": { "verify_keys": { "ed25519:a_1": { "key": "…" } }, "valid_until": 1795000000000 }
//!   },
//!   "addresses": { "dinum.gouv.fr": { "hs": "agent.dinum.example.gouv.fr" } },
//!   "patterns": [{ "regex": ".*@.*\\.fr", "target": { "hs": "agent.dinum.example.gouv.fr" } }],
//!   "signatures": { "example.gouv.fr": { "ed25519:root_1": "…" } }
//! }
//! ```

mod book;
mod signatures;

use std::collections::{BTreeMap, BTreeSet};

use chappe_identity::{MapLayer, MapPattern, MapTarget, moment};
use chappe_rules::{build::SigningKey, check::WeakKeys, json, names};
use ruma::{CanonicalJsonObject, OwnedServerName, OwnedServerSigningKeyId, ServerName};
use serde::{Deserialize, Serialize};

pub(crate) use self::book::PATH as LIST_PATH;
pub use self::book::{Applied, Held, ListBook, ListDeps, ListError, ListStatus};
use crate::{NetworkConfig, OldKey, PinnedKey, keys::public_key};

/// Longest list, in bytes.
pub(crate) const MAX_BYTES: usize = 8 << 20;
/// Most servers.
const MOST_SERVERS: usize = 10_000;
/// Most keys of one server.
const MOST_KEYS: usize = 20;

/// A list of the servers of a network. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkList {
    /// What the network is called.
    pub network: OwnedServerName,
    /// Each list has a higher one than the list before it.
    pub sequence: u64,
    /// When it was signed.
    pub issued_at: u64,
    /// Until when it is good.
    pub expires_at: u64,
    /// The servers.
    pub servers: BTreeMap<OwnedServerName, Member>,
    /// Where addresses belong, by address, domain, `*.` and a domain, or `*`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<String, MapTarget>,
    /// The same by pattern, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<MapPattern>,
}

/// What is said of a server. With keys, these are believed and no others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Keys that it signs with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub verify_keys: BTreeMap<OwnedServerSigningKeyId, VerifyKey>,
    /// Keys that it signed with before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub old_verify_keys: BTreeMap<OwnedServerSigningKeyId, OldKey>,
    /// From when on it belongs to the network; absent: from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<u64>,
    /// Until when, that moment no more; absent: as long as it is on the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<u64>,
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyKey {
    /// The public key, unpadded base64.
    pub key: String,
}

/// Why a text is no list that may be signed, or that is believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidList {
    /// It is not of the form, or says what cannot be.
    #[error("not a list of a network: {0}")]
    Malformed(String),
    /// It is of another network.
    #[error("it is the list of the network {0}")]
    OtherNetwork(OwnedServerName),
    /// None of the trust roots has signed it.
    #[error("no trust root has signed it")]
    Unsigned,
}

impl Member {
    /// Its keys as they are pinned.
    pub(crate) fn pinned(&self) -> BTreeMap<OwnedServerSigningKeyId, PinnedKey> {
        let old = self.old_verify_keys.iter().map(|(id, old)| (id.clone(), PinnedKey::Old(old.clone())));
        let now = self.verify_keys.iter();
        old.chain(now.map(|(id, key)| (id.clone(), PinnedKey::Current(key.key.clone())))).collect()
    }

    /// Whether it belongs to the network at a time.
    fn is_valid(&self, now: u64) -> bool {
        self.valid_from.is_none_or(|from| from <= now) && self.valid_until.is_none_or(|until| now < until)
    }

    fn check(&self, weak: &WeakKeys) -> Result<(), String> {
        if self.valid_from.zip(self.valid_until).is_some_and(|(from, until)| from >= until) {
            return Err("ends before it begins".to_owned());
        }
        if self.verify_keys.is_empty() && !self.old_verify_keys.is_empty() {
            return Err("has old keys alone".to_owned());
        }
        if self.verify_keys.len() + self.old_verify_keys.len() > MOST_KEYS {
            return Err("has too many keys".to_owned());
        }
        for (id, pinned) in self.pinned() {
            if public_key(pinned.text()).is_none_or(|key| weak.contains(&key)) {
                return Err(format!("{id} is no key, or one that the whole world has"));
            }
        }
        Ok(())
    }
}

impl NetworkList {
    /// A list with nobody on it, before it is signed for the first time.
    pub fn new(network: OwnedServerName) -> Self {
        let (servers, addresses, patterns) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { network, sequence: 0, issued_at: 0, expires_at: 0, servers, addresses, patterns }
    }

    /// Reads a list, signed or not, without a look at who signed it.
    pub fn read(bytes: &[u8]) -> Result<Self, InvalidList> {
        Self::of(object(bytes)?)
    }

    fn of(mut object: CanonicalJsonObject) -> Result<Self, InvalidList> {
        object.remove("signatures");
        serde_json::from_str(&json::canonical(&object)).map_err(|error| malformed(&error))
    }

    /// Reads a list that one of the network's trust roots has signed; with it, what it says of addresses, and its text with
    /// the signatures that are kept.
    pub(crate) fn verify(
        bytes: &[u8],
        config: &NetworkConfig,
        weak: &WeakKeys,
    ) -> Result<(Self, MapLayer, String), InvalidList> {
        let mut object = object(bytes)?;
        if !signatures::prune(&mut object, config, weak) {
            let network = object.get("network").and_then(|name| ServerName::parse(name.as_str()?).ok());
            let other = network.filter(|network| *network != config.name);
            return Err(other.map_or(InvalidList::Unsigned, InvalidList::OtherNetwork));
        }
        let text = json::canonical(&object);
        let list = Self::of(object)?;
        if list.network != config.name {
            return Err(InvalidList::OtherNetwork(list.network));
        }
        let layer = list.check(weak)?;
        Ok((list, layer, text))
    }

    /// Whether it says what can be; gives what it says of addresses.
    pub fn check(&self, weak: &WeakKeys) -> Result<MapLayer, InvalidList> {
        let wrong = |what: String| InvalidList::Malformed(what);
        if self.servers.len() > MOST_SERVERS {
            return Err(wrong("too many servers".to_owned()));
        }
        for (server, member) in &self.servers {
            let lower = !server.as_str().bytes().any(|byte| byte.is_ascii_uppercase());
            if !names::is_strict(server) || !lower {
                return Err(wrong(format!("{server} is not a server name in lower case")));
            }
            member.check(weak).map_err(|why| wrong(format!("{server} {why}")))?;
        }
        let targets = self.addresses.values().chain(self.patterns.iter().map(|pattern| &pattern.target));
        for target in targets {
            let named = [Some(&target.hs), target.shadow_hs.as_ref()];
            if let Some(stranger) = named.into_iter().flatten().find(|hs| !self.servers.contains_key(*hs)) {
                return Err(wrong(format!("addresses belong to {stranger}, which is not on it")));
            }
        }
        MapLayer::read(&self.addresses, &self.patterns).map_err(|error| malformed(&error))
    }

    /// Who belongs to the network at a time; none when the list is over.
    pub(crate) fn members(&self, now: u64) -> Option<BTreeSet<OwnedServerName>> {
        let valid = self.servers.iter().filter(|(_, member)| member.is_valid(now));
        (now < self.expires_at).then(|| valid.map(|(server, _)| server.clone()).collect())
    }

    /// The next list, signed: good from `now` until `expires_at`.
    pub fn sign(&self, key: &SigningKey, now: u64, expires_at: u64) -> Result<String, InvalidList> {
        let next = Self { sequence: self.sequence + 1, issued_at: now, expires_at, ..self.clone() };
        cosign(next.unsigned().as_bytes(), key)
    }

    /// The list without signatures, for people to read.
    pub fn unsigned(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// What each line of it says, by what the line is about.
    pub fn lines(&self) -> BTreeMap<String, String> {
        let servers = self.servers.iter().map(|(server, member)| {
            let keys: Vec<String> = member.pinned().iter().map(|(id, key)| told_key(id, key)).collect();
            let keys = if keys.is_empty() { "any keys".to_owned() } else { keys.join(", ") };
            let from = member.valid_from.map(|from| format!(", from {}", told_time(from)));
            let until = member.valid_until.map(|until| format!(", until {}", told_time(until)));
            (format!("server {server}"), [Some(keys), from, until].into_iter().flatten().collect::<String>())
        });
        let addresses =
            self.addresses.iter().map(|(whom, target)| (format!("addresses {whom}"), told(target)));
        let patterns = self.patterns.iter().enumerate();
        let patterns = patterns.map(|(place, pattern)| {
            (format!("pattern {:3} {}", place + 1, pattern.regex), told(&pattern.target))
        });
        servers.chain(addresses).chain(patterns).collect()
    }
}

/// For people, and to the millisecond for whoever compares.
fn told_time(ms: u64) -> String {
    format!("{} ({ms})", moment(ms))
}

fn told_key(id: &OwnedServerSigningKeyId, key: &PinnedKey) -> String {
    match key {
        PinnedKey::Current(key) => format!("{id} {key}"),
        PinnedKey::Old(OldKey { key, expired_ts }) => format!("{id} {key} until {expired_ts}"),
    }
}

fn told(target: &MapTarget) -> String {
    let condition = if target.requires_invite { " on invitation" } else { "" };
    let shadow = target.shadow_hs.as_ref().map_or_else(String::new, |hs| format!(" ({hs} from outside)"));
    format!("{}{shadow}{condition}", target.hs)
}

/// Adds a signature to a list that may have others, and is left as it is.
pub fn cosign(list: &[u8], key: &SigningKey) -> Result<String, InvalidList> {
    let mut object = object(list)?;
    let read = NetworkList::of(object.clone())?;
    key.sign_json(&read.network, &mut object);
    serde_json::to_string_pretty(&object).map_err(|error| malformed(&error))
}

fn object(bytes: &[u8]) -> Result<CanonicalJsonObject, InvalidList> {
    if bytes.len() > MAX_BYTES {
        return Err(InvalidList::Malformed("it is too long".to_owned()));
    }
    json::object(bytes).map_err(|error| malformed(&error))
}

fn malformed(error: &dyn std::fmt::Display) -> InvalidList {
    InvalidList::Malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use ruma::server_name;
    use serde_json::json;

    use super::*;
    use crate::weak_keys;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed([seed; 32], &format!("root_{seed}")).unwrap()
    }

    fn config(roots: &[u8]) -> NetworkConfig {
        let roots = roots.iter().map(|seed| key(*seed));
        NetworkConfig {
            name: server_name!("net.example").to_owned(),
            trust_roots: roots.map(|key| (key.id().try_into().unwrap(), key.public_base64())).collect(),
            publishers: Vec::new(),
            fetch_seconds: 60,
        }
    }

    fn list(value: &serde_json::Value) -> NetworkList {
        let mut whole = json!({ "network": "net.example", "sequence": 3, "issued_at": 0, "expires_at": 0, "servers": {} });
        whole.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        NetworkList::read(whole.to_string().as_bytes()).unwrap()
    }

    fn good() -> NetworkList {
        list(&json!({
            "servers": { "a.example": { "verify_keys": { "ed25519:1": { "key": key(9).public_base64() } } }, "b.example": {} },
            "addresses": { "x.fr": { "hs": "a.example" }, "*": { "hs": "b.example", "requires_invite": true } },
            "patterns": [{ "regex": ".*@y.fr", "target": { "hs": "a.example", "shadow_hs": "b.example" } }],
        }))
    }

    fn verify(text: &str, roots: &[u8]) -> Result<NetworkList, InvalidList> {
        NetworkList::verify(text.as_bytes(), &config(roots), &weak_keys()).map(|(list, ..)| list)
    }

    #[test]
    fn any_trust_root_is_enough_and_nobody_else() {
        let signed = good().sign(&key(1), 5, 10).unwrap();
        let read = verify(&signed, &[1]).unwrap();
        assert_eq!((read.sequence, read.issued_at, read.expires_at), (4, 5, 10));
        assert_eq!(read.lines(), good().lines());
        assert!(verify(&signed, &[2, 1]).is_ok());
        assert_eq!(verify(&signed, &[2]).unwrap_err(), InvalidList::Unsigned);
        assert_eq!(verify(&signed, &[]).unwrap_err(), InvalidList::Unsigned);
        // While a root is replaced, both sign: whoever knows one of them is content.
        let both = cosign(signed.as_bytes(), &key(2)).unwrap();
        for roots in [&[1][..], &[2], &[1, 2]] {
            assert_eq!(verify(&both, roots).unwrap(), read);
        }
        assert_eq!(verify(&good().unsigned(), &[1]).unwrap_err(), InvalidList::Unsigned);
    }

    #[test]
    fn its_lines_tell_all_of_a_key() {
        let with = |expired_ts: u64| {
            let (now, old) = (key(9).public_base64(), key(8).public_base64());
            let member = json!({
                "verify_keys": { "ed25519:1": { "key": now } },
                "old_verify_keys": { "ed25519:0": { "key": old, "expired_ts": expired_ts } },
            });
            list(&json!({ "servers": { "a.example": member } })).lines()
        };
        assert_ne!(with(5), with(6));
        assert!(with(5)["server a.example"].ends_with(&format!("ed25519:1 {}", key(9).public_base64())));
    }

    #[test]
    fn a_member_belongs_to_the_network_for_its_time_and_that_is_told() {
        let with = |validity| {
            list(&json!({ "servers": { "a.example": validity, "b.example": {} }, "expires_at": 100 }))
        };
        let both = with(json!({ "valid_from": 10, "valid_until": 20 }));
        for (now, expected) in [
            (9, Some(&["b.example"][..])),
            (10, Some(&["a.example", "b.example"])),
            (19, Some(&["a.example", "b.example"])),
            (20, Some(&["b.example"])),
            (100, None),
        ] {
            let members = both.members(now);
            let names =
                members.as_ref().map(|names| names.iter().map(|name| name.as_str()).collect::<Vec<_>>());
            assert_eq!(names.as_deref(), expected, "{now}");
        }
        assert_eq!(
            both.lines()["server a.example"],
            "any keys, from 1970-01-01 00:00 UTC (10), until 1970-01-01 00:00 UTC (20)"
        );
        assert_eq!(NetworkList::read(both.unsigned().as_bytes()).unwrap(), both);
        for (validity, right) in [
            (json!({ "valid_from": 10 }), true),
            (json!({ "valid_until": 10 }), true),
            (json!({ "valid_from": 10, "valid_until": 10 }), false),
            (json!({ "valid_from": 11, "valid_until": 10 }), false),
        ] {
            assert_eq!(with(validity.clone()).check(&weak_keys()).is_ok(), right, "{validity}");
        }
    }

    #[test]
    fn nothing_in_it_can_be_changed() {
        let signed = good().sign(&key(1), 5, 10).unwrap();
        for (right, wrong) in [
            ("\"a.example\"", "\"evil.example\""),
            ("\"sequence\": 4", "\"sequence\": 5"),
            ("\"expires_at\": 10", "\"expires_at\": 100"),
            ("x.fr", "z.fr"),
            ("\"requires_invite\": true", "\"requires_invite\": false"),
            ("net.example\": {", "other.example\": {"),
            ("ed25519:root_1", "ed25519:root_2"),
        ] {
            assert!(signed.contains(right), "{right}");
            assert!(verify(&signed.replace(right, wrong), &[1, 2]).is_err(), "{wrong}");
        }
        let twice = signed.replacen("\"sequence\": 4", "\"sequence\": 4, \"sequence\": 9", 1);
        assert!(matches!(verify(&twice, &[1]), Err(InvalidList::Malformed(_))));
        let other = NetworkList { network: server_name!("other.example").to_owned(), ..good() };
        let other = other.sign(&key(1), 5, 10).unwrap();
        assert!(matches!(verify(&other, &[1]), Err(InvalidList::OtherNetwork(_))));
    }

    #[test]
    fn what_cannot_be_is_refused_though_it_is_signed() {
        assert!(good().check(&weak_keys()).is_ok());
        let keys = |value| json!({ "servers": { "a.example": value } });
        let weak = "l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og";
        for wrong in [
            json!({ "servers": { "A.example": {} } }),
            json!({ "servers": { "a.example.": {} } }),
            json!({ "addresses": { "x.fr": { "hs": "a.example" } } }),
            json!({ "servers": { "a.example": {} }, "addresses": { "x": { "hs": "a.example" } } }),
            json!({ "servers": { "a.example": {} }, "patterns": [{ "regex": "a)|(b", "target": { "hs": "a.example" } }] }),
            keys(json!({ "verify_keys": { "ed25519:1": { "key": "AAAA" } } })),
            keys(json!({ "verify_keys": { "ed25519:1": { "key": weak } } })),
            keys(
                json!({ "old_verify_keys": { "ed25519:1": { "key": key(9).public_base64(), "expired_ts": 1 } } }),
            ),
        ] {
            let signed = list(&wrong).sign(&key(1), 5, 10).unwrap();
            assert!(matches!(verify(&signed, &[1]), Err(InvalidList::Malformed(_))), "{wrong}");
        }
        for text in ["", "[]", "{}", r#"{"network":"net.example","sequence":1.0}"#] {
            assert!(NetworkList::read(text.as_bytes()).is_err(), "{text}");
        }
        let unknown = good().unsigned().replacen("\"servers\"", "\"comment\": 1, \"servers\"", 1);
        assert!(
            NetworkList::read(unknown.as_bytes()).is_err(),
            "what is not understood may have been a restriction"
        );
    }
}
