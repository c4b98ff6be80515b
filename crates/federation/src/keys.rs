//! Signing keys of servers: publishing our own, finding those of others.

mod document;
mod pins;
mod ring;

use std::collections::BTreeMap;

use chappe_rules::{
    build::SigningKey,
    check::{ServerKey, WeakKeys},
    json, unpadded,
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, ServerName, UInt, serde::Base64,
};

use crate::{Config, OldKey};

pub(crate) use self::document::Document;
pub use self::ring::KeyRing;
pub(crate) use self::{
    document::{is_plain, names_key, signed_by},
    pins::{Pins, laid_aside},
    ring::Haste,
};

/// A published key is relied on for this long at most, in milliseconds (server-server API, "Publishing keys").
const LONGEST_TRUST: u64 = 7 * 24 * 3_600_000;

/// Public keys whose private half is known to the world.
///
/// The first was given to every installation of a deployment kit (CVE-2026-24044), the second is the key of the
/// specification's own test vectors.
const KNOWN_WEAK: [&str; 2] =
    ["l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og", "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI"];

/// The keys that nobody can prove anything with.
pub fn weak_keys() -> WeakKeys {
    KNOWN_WEAK.iter().filter_map(|key| public_key(key)).collect()
}

/// Whether a text is an ed25519 public key in base64 that is not the whole world's, written as every server reads it.
pub fn is_public_key(text: &str) -> bool {
    let all_read_it = Base64::<ruma::serde::base64::Standard>::parse(text.trim_end_matches('=')).is_ok();
    all_read_it && public_key(text).is_some_and(|key| !weak_keys().contains(&key))
}

/// The 32 bytes of an ed25519 public key in base64, in whatever way a server writes it.
pub(crate) fn public_key(text: &str) -> Option<[u8; 32]> {
    unpadded::decode(text)?.try_into().ok()
}

/// The signed document that this server publishes about itself (`GET /_matrix/key/v2/server`).
pub(crate) fn own_document(
    server: &ServerName,
    key: &SigningKey,
    config: &Config,
    now: u64,
) -> CanonicalJsonObject {
    let text = |text: &str| CanonicalJsonValue::String(text.to_owned());
    let object = |entries: Vec<(&str, CanonicalJsonValue)>| {
        let entries = entries.into_iter().map(|(name, value)| (name.to_owned(), value));
        CanonicalJsonValue::Object(entries.collect())
    };
    let public = Base64::<ruma::serde::base64::Standard, _>::new(key.public_key()).encode();
    let old = config.old_keys.iter().filter(|(id, _)| id.as_str() != key.id()).map(|(id, old)| {
        let entry = object(vec![("expired_ts", integer(old.expired_ts)), ("key", text(&old.key))]);
        (id.to_string(), entry)
    });
    let mut document = CanonicalJsonObject::from([
        ("server_name".to_owned(), text(server.as_str())),
        ("verify_keys".to_owned(), object(vec![(key.id(), object(vec![("key", text(&public))]))])),
        ("old_verify_keys".to_owned(), CanonicalJsonValue::Object(old.collect())),
        ("valid_until_ts".to_owned(), integer(now + config.key_validity.saturating_mul(1000))),
    ]);
    key.sign_json(server, &mut document);
    document
}

/// The keys with which this server signed before.
pub(crate) fn old_keys(config: &Config) -> BTreeMap<String, ServerKey> {
    let known = |old: &OldKey| Some(ServerKey { public: public_key(&old.key)?, until: time(old.expired_ts) });
    config.old_keys.iter().filter_map(|(id, old)| Some((id.to_string(), known(old)?))).collect()
}

fn integer(millis: u64) -> CanonicalJsonValue {
    CanonicalJsonValue::Integer(UInt::new_saturating(millis).into())
}

fn time(millis: u64) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::new_saturating(millis))
}

/// The JSON text of a document.
pub(crate) fn text_of(document: &CanonicalJsonObject) -> String {
    json::canonical(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_counts_however_its_base64_is_written_and_is_written_plainly_here() {
        let key = [0xfb_u8; 32];
        let plain = Base64::<ruma::serde::base64::Standard, _>::new(key).encode();
        let other_alphabet = plain.replace('+', "-").replace('/', "_");
        assert_ne!(other_alphabet, plain);
        for (text, all_read_it) in [
            (plain.clone(), true),
            (format!("{plain}="), true),
            (other_alphabet, false),
            (format!("!!!!{plain}"), false),
        ] {
            assert_eq!(public_key(&text), Some(key), "{text}");
            assert_eq!(is_public_key(&text), all_read_it, "{text}");
        }
        for none in ["", "AAAA", &format!("{plain}A"), &format!("{plain}!")] {
            assert!(public_key(none).is_none() && !is_public_key(none), "{none}");
        }
    }
}
