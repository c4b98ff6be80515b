//! The form of keys: what is looked at before a key is stored or a signature believed.

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use ruma::{CanonicalJsonObject, DeviceId, UserId, signatures::to_canonical_json_string_for_signing};
use serde_json::{Map, Value};

use super::Usage;
use crate::Error;

/// Bytes of the identity keys of a device, or of a cross-signing key.
const KEYS_BYTES: usize = 16_384;
/// Bytes of a one-time or fallback key.
const ONE_TIME_KEY_BYTES: usize = 4_096;
/// Bytes of a key's id.
const ID_BYTES: usize = 255;
/// Algorithms or keys of one device.
const MOST_ENTRIES: usize = 32;

/// Unpadded base64 in the standard alphabet; padding is tolerated.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A JSON object.
pub(super) type Object = Map<String, Value>;

/// `N` bytes in base64.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

fn text_field<'a>(object: &'a Object, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

/// Reads an object of at most the size of a key.
pub(super) fn object(json: &str) -> Result<Object, Error> {
    if json.len() > KEYS_BYTES {
        return Err(Error::TooLarge("key"));
    }
    serde_json::from_str(json).map_err(|error| Error::BadJson(format!("key: {error}")))
}

/// Checks the identity keys of a device: user, device, algorithms, keys, shape of the signature.
pub(super) fn check_device_keys(json: &str, user: &UserId, device: &DeviceId) -> Result<Object, Error> {
    let wrong = |what: &str| Error::invalid(format!("device_keys: {what}"));
    let object = object(json)?;
    if text_field(&object, "user_id") != Some(user.as_str()) {
        return Err(wrong("user_id is not the user's"));
    }
    if text_field(&object, "device_id") != Some(device.as_str()) {
        return Err(wrong("device_id is not the device's"));
    }
    let missing = |what: &str| Error::BadJson(format!("device_keys: {what} missing"));
    let algorithms =
        object.get("algorithms").and_then(Value::as_array).ok_or_else(|| missing("algorithms"))?;
    if algorithms.len() > MOST_ENTRIES || !algorithms.iter().all(Value::is_string) {
        return Err(wrong("algorithms"));
    }
    let keys = object.get("keys").and_then(Value::as_object).ok_or_else(|| missing("keys"))?;
    if keys.len() > MOST_ENTRIES {
        return Err(wrong("too many keys"));
    }
    for (id, key) in keys {
        let key = key.as_str().ok_or_else(|| wrong("keys are strings"))?;
        let (algorithm, name) = id.split_once(':').ok_or_else(|| wrong("key id"))?;
        if name != device.as_str() {
            return Err(wrong("key of another device"));
        }
        if matches!(algorithm, "ed25519" | "curve25519") && bytes::<32>(key).is_none() {
            return Err(wrong("a key has 32 bytes in base64"));
        }
    }
    if !keys.contains_key(&format!("ed25519:{device}")) {
        return Err(wrong("no ed25519 key"));
    }
    let signatures =
        object.get("signatures").and_then(Value::as_object).ok_or_else(|| missing("signatures"))?;
    // Whether the device has signed is for other devices to judge; a signature that is none would break parsers.
    let own = signatures.get(user.as_str()).and_then(|own| own.get(format!("ed25519:{device}")));
    match own.map(|signature| signature.as_str().and_then(bytes::<64>)) {
        Some(None) => Err(wrong("the device's signature has 64 bytes in base64")),
        Some(Some(_)) | None => Ok(object),
    }
}

/// Checks a one-time or fallback key; gives algorithm and id.
pub(super) fn check_one_time_key<'a>(id: &'a str, json: &str) -> Result<(&'a str, &'a str), Error> {
    let wrong = |what: &str| Error::invalid(format!("one-time key {id}: {what}"));
    let (algorithm, name) = id.split_once(':').ok_or_else(|| wrong("no algorithm"))?;
    if algorithm.is_empty() || name.is_empty() || id.len() > ID_BYTES {
        return Err(wrong("id"));
    }
    if json.len() > ONE_TIME_KEY_BYTES {
        return Err(Error::TooLarge("one-time key"));
    }
    let value: Value = serde_json::from_str(json).map_err(|error| Error::BadJson(error.to_string()))?;
    match &value {
        Value::String(_) if !algorithm.starts_with("signed_") => Ok((algorithm, name)),
        Value::Object(fields)
            if text_field(fields, "key").is_some()
                && fields.get("signatures").is_some_and(Value::is_object) =>
        {
            Ok((algorithm, name))
        }
        _ => Err(wrong("shape")),
    }
}

/// The public key of a one-time key, in base64.
pub(super) fn one_time_public(json: &str) -> Option<String> {
    match serde_json::from_str::<Value>(json).ok()? {
        Value::String(key) => Some(key),
        Value::Object(fields) => text_field(&fields, "key").map(str::to_owned),
        _ => None,
    }
}

/// Checks a cross-signing key; gives it with its public key, in base64.
pub(super) fn check_cross_signing(
    json: &str,
    user: &UserId,
    usage: Usage,
) -> Result<(Object, String), Error> {
    let wrong = |what: &str| Error::invalid(format!("{} key: {what}", usage.as_str()));
    let object = object(json)?;
    if text_field(&object, "user_id") != Some(user.as_str()) {
        return Err(wrong("user_id is not the user's"));
    }
    let usages = object.get("usage").and_then(Value::as_array).ok_or_else(|| wrong("usage"))?;
    if !usages.iter().any(|u| u.as_str() == Some(usage.as_str())) {
        return Err(wrong("usage"));
    }
    let public = public_key(&object).ok_or_else(|| wrong("exactly one ed25519 key, named by itself"))?;
    if bytes::<32>(&public).is_none() {
        return Err(wrong("a key has 32 bytes in base64"));
    }
    Ok((object, public))
}

/// The public key of a cross-signing key, in base64.
pub(super) fn public_key(object: &Object) -> Option<String> {
    let keys = object.get("keys")?.as_object()?;
    let (id, key) = keys.iter().next().filter(|_| keys.len() == 1)?;
    let key = key.as_str()?;
    (id.strip_prefix("ed25519:")? == key).then(|| key.to_owned())
}

/// The key of this id among a device's.
pub(super) fn device_key<'a>(object: &'a Object, id: &str) -> Option<&'a str> {
    object.get("keys")?.get(id)?.as_str()
}

/// A signature on an object.
pub(super) fn signature<'a>(object: &'a Object, signer: &UserId, key_id: &str) -> Option<&'a str> {
    object.get("signatures")?.get(signer.as_str())?.get(key_id)?.as_str()
}

/// Whether `signature` is that of `key` (base64, ed25519) on an object.
pub(super) fn verifies(object: &Object, key: &str, signature: &str) -> bool {
    let (Some(key), Some(signature)) = (bytes::<32>(key), bytes::<64>(signature)) else { return false };
    let canonical: Option<CanonicalJsonObject> = serde_json::from_value(Value::Object(object.clone())).ok();
    let Some(text) = canonical.and_then(|object| to_canonical_json_string_for_signing(&object).ok()) else {
        return false;
    };
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key);
    key.verify(text.as_bytes(), &signature).is_ok()
}

/// Whether two objects say the same, signatures and unsigned parts aside.
pub(super) fn same_but_signatures(a: &Object, b: &Object) -> bool {
    let bare = |object: &Object| {
        let mut object = object.clone();
        object.remove("signatures");
        object.remove("unsigned");
        object
    };
    bare(a) == bare(b)
}
