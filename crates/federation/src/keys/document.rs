//! A key document as a server publishes it about itself, checked.

use chappe_rules::{
    check::{KeyRing as Known, ServerKey as KnownKey, WeakKeys, check_json, key_ids},
    json,
};
use chappe_store::server_keys::ServerKey;
use ruma::{CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName, serde::Base64};

use super::{LONGEST_TRUST, public_key, time};

/// More current keys than this no server has, nor more old ones.
pub(super) const MAX_KEYS: usize = 100;
/// The longest document, in bytes: room for the keys that a server may have, and for little else.
pub(super) const MAX_DOCUMENT: usize = 32 << 10;
/// What a key document is made of (server-server API, "Publishing keys"; the last one in documents of old servers).
const FIELDS: [&str; 6] =
    ["server_name", "verify_keys", "old_verify_keys", "valid_until_ts", "signatures", "tls_fingerprints"];

/// Whether a document is a key document and nothing that could be read as something else as well.
pub(crate) fn is_plain(document: &CanonicalJsonObject) -> bool {
    document.keys().all(|field| FIELDS.contains(&field.as_str()))
}

/// Whether a document names a key, be it an old one.
pub(crate) fn names_key(document: &CanonicalJsonObject, id: &str) -> bool {
    let fields = ["verify_keys", "old_verify_keys"].map(|field| document.get(field));
    let mut keys = fields.into_iter().flatten().filter_map(CanonicalJsonValue::as_object);
    keys.any(|keys| keys.contains_key(id))
}

/// What a document says, once its own signatures were found right.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) server: OwnedServerName,
    /// Key id → key; trust is already cut to seven days from now, that in old keys to now.
    pub(crate) keys: Vec<(String, ServerKey)>,
    pub(crate) valid_until: u64,
    pub(crate) object: CanonicalJsonObject,
}

impl Document {
    /// Reads a document about `server`; only current keys that signed it themselves are taken.
    pub(crate) fn read(bytes: &[u8], server: &ServerName, now: u64, weak: &WeakKeys) -> Result<Self, String> {
        let object = json::object(bytes).map_err(|error| error.to_string())?;
        Self::from_object(object, server, now, weak)
    }

    pub(crate) fn from_object(
        object: CanonicalJsonObject,
        server: &ServerName,
        now: u64,
        weak: &WeakKeys,
    ) -> Result<Self, String> {
        if object.get("server_name").and_then(|name| name.as_str()) != Some(server.as_str()) {
            return Err("it is about another server".to_owned());
        }
        if json::canonical(&object).len() > MAX_DOCUMENT {
            return Err("it is too long".to_owned());
        }
        let valid_until = millis(object.get("valid_until_ts")).ok_or("valid_until_ts is missing")?;
        let until = valid_until.min(now.saturating_add(LONGEST_TRUST));
        let current = entries(&object, "verify_keys")?;
        let mut keys = Vec::new();
        for (id, entry) in current {
            let key = key_of(entry).ok_or_else(|| format!("{id} is not a key"))?;
            if weak.contains(&key) {
                return Err(format!("{id} is a key that the whole world has"));
            }
            if signed_by(&object, server, id, key) {
                keys.push((id.clone(), ServerKey { key: encode(key), valid_until: until, old: false }));
            }
        }
        if keys.is_empty() {
            return Err("no current key has signed it".to_owned());
        }
        for (id, entry) in entries(&object, "old_verify_keys").unwrap_or_default() {
            let expired = entry.as_object().and_then(|entry| millis(entry.get("expired_ts")));
            let Some((key, expired)) = key_of(entry).zip(expired) else { continue };
            if !weak.contains(&key) && !keys.iter().any(|(known, _)| known == id) {
                keys.push((
                    id.clone(),
                    ServerKey { key: encode(key), valid_until: expired.min(now), old: true },
                ));
            }
        }
        Ok(Self { server: server.to_owned(), keys, valid_until, object })
    }

    /// The ids of its keys.
    pub(crate) fn ids(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(|(id, _)| id.clone())
    }
}

fn entries<'a>(
    object: &'a CanonicalJsonObject,
    field: &str,
) -> Result<Vec<(&'a String, &'a CanonicalJsonValue)>, String> {
    let found = object.get(field).and_then(|keys| keys.as_object()).ok_or(format!("{field} is missing"))?;
    if found.len() > MAX_KEYS {
        return Err(format!("{field} has too many keys"));
    }
    Ok(found.iter().filter(|(id, _)| id.starts_with("ed25519:")).collect())
}

fn key_of(entry: &CanonicalJsonValue) -> Option<[u8; 32]> {
    public_key(entry.as_object()?.get("key")?.as_str()?)
}

fn encode(key: [u8; 32]) -> String {
    Base64::<ruma::serde::base64::Standard, _>::new(key).encode()
}

fn millis(value: Option<&CanonicalJsonValue>) -> Option<u64> {
    u64::try_from(i64::from(value?.as_integer()?)).ok()
}

/// Whether the document carries a right signature of this very key.
pub(crate) fn signed_by(object: &CanonicalJsonObject, server: &ServerName, id: &str, key: [u8; 32]) -> bool {
    if !key_ids(object, server).contains(id) {
        return false;
    }
    let mut alone = object.clone();
    let signatures = alone.get_mut("signatures").and_then(|all| all.as_object_mut());
    if let Some(own) = signatures.and_then(|all| all.get_mut(server.as_str())?.as_object_mut()) {
        own.retain(|name, _| name == id);
    }
    let known = KnownKey { public: key, until: time(u64::MAX) };
    let ring = Known::from([(server.to_owned(), [(id.to_owned(), known)].into())]);
    check_json(&alone, server, &ring, time(0), &WeakKeys::new()).is_ok()
}

#[cfg(test)]
mod tests {
    use chappe_rules::build::SigningKey;
    use ruma::server_name;

    use super::*;
    use crate::{Config, keys::own_document};

    const NOW: u64 = 1_780_000_000_000;

    fn own(key: &SigningKey, config: &Config) -> CanonicalJsonObject {
        own_document(server_name!("a.example"), key, config, NOW)
    }

    fn read(object: &CanonicalJsonObject, weak: &WeakKeys) -> Result<Document, String> {
        let text = json::canonical(object);
        Document::read(text.as_bytes(), server_name!("a.example"), NOW, weak)
    }

    #[test]
    fn what_we_publish_is_accepted_and_trusted_for_seven_days_at_most() {
        let key = SigningKey::from_seed([1; 32], "k").unwrap();
        let config = Config { key_validity: 30 * 24 * 3600, ..Config::default() };
        let document = read(&own(&key, &config), &WeakKeys::new()).unwrap();
        assert_eq!(document.keys.len(), 1);
        assert_eq!(document.keys[0].1.valid_until, NOW + LONGEST_TRUST);
        assert_eq!(document.valid_until, NOW + 30 * 24 * 3_600_000);
    }

    #[test]
    fn old_keys_end_when_the_document_says_and_never_after_now() {
        let [key, old] = [1, 2].map(|seed| SigningKey::from_seed([seed; 32], "k").unwrap());
        for (expired_ts, until) in [(7, 7), (NOW + 1, NOW), (u64::MAX, NOW)] {
            let entry = crate::OldKey { key: encode(old.public_key()), expired_ts };
            let old_keys = [("ed25519:o".try_into().unwrap(), entry)].into();
            let document = own(&key, &Config { old_keys, ..Config::default() });
            let document = read(&document, &WeakKeys::new()).unwrap();
            let (id, read) = &document.keys[1];
            assert_eq!((id.as_str(), read.old, read.valid_until), ("ed25519:o", true, until));
        }
    }

    #[test]
    fn forged_documents_are_refused() {
        let key = SigningKey::from_seed([1; 32], "k").unwrap();
        let good = own(&key, &Config::default());
        let mut other_server = good.clone();
        other_server.insert("server_name".to_owned(), CanonicalJsonValue::String("b.example".to_owned()));
        let mut longer = good.clone();
        longer.insert("valid_until_ts".to_owned(), CanonicalJsonValue::Integer(ruma::int!(9)));
        let mut unsigned = good.clone();
        unsigned.remove("signatures");
        for forged in [other_server, longer, unsigned] {
            assert!(read(&forged, &WeakKeys::new()).is_err());
        }
        assert!(read(&good, &WeakKeys::from([key.public_key()])).is_err());
    }

    #[test]
    fn a_document_has_room_for_keys_and_for_little_else() {
        let key = SigningKey::from_seed([1; 32], "k").unwrap();
        let signed = |pad: usize| {
            let mut document = own(&key, &Config::default());
            document.remove("signatures");
            document.insert("pad".to_owned(), CanonicalJsonValue::String("x".repeat(pad)));
            key.sign_json(server_name!("a.example"), &mut document);
            document
        };
        assert!(read(&signed(MAX_DOCUMENT / 2), &WeakKeys::new()).is_ok());
        assert!(read(&signed(MAX_DOCUMENT), &WeakKeys::new()).is_err());
        assert!(is_plain(&own(&key, &Config::default())) && !is_plain(&signed(1)));
    }

    #[test]
    fn a_key_that_did_not_sign_is_not_taken() {
        let (key, other) =
            (SigningKey::from_seed([1; 32], "k").unwrap(), SigningKey::from_seed([2; 32], "o").unwrap());
        let mut document = own(&key, &Config::default());
        document.remove("signatures");
        let entry = CanonicalJsonObject::from([(
            "key".to_owned(),
            CanonicalJsonValue::String(encode(other.public_key())),
        )]);
        let keys = document.get_mut("verify_keys").and_then(|keys| keys.as_object_mut()).unwrap();
        keys.insert("ed25519:o".to_owned(), CanonicalJsonValue::Object(entry));
        key.sign_json(server_name!("a.example"), &mut document);
        let read = read(&document, &WeakKeys::new()).unwrap();
        assert_eq!(read.keys.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["ed25519:k"]);
    }
}
