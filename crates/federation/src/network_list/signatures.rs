//! The signatures of a list. Whoever passes a list on can add to them, so only what may be worth something is kept.

use std::collections::BTreeSet;

use chappe_rules::{check::WeakKeys, json};
use ruma::{CanonicalJsonObject, CanonicalJsonValue};

use super::MAX_BYTES;
use crate::{
    NetworkConfig,
    keys::{public_key, signed_by},
};

/// Signatures that are kept beside those of today's trust roots: the trust roots of tomorrow may be among them.
const MOST_OTHERS: usize = 20;
/// Longest id of a key, in bytes.
const LONGEST_ID: usize = 255;
/// How long an ed25519 signature is in base64, without and with padding.
const LENGTHS: std::ops::RangeInclusive<usize> = 86..=88;

/// Which trust roots of the configuration have signed.
pub(super) fn standing(
    object: &CanonicalJsonObject,
    config: &NetworkConfig,
    weak: &WeakKeys,
) -> BTreeSet<String> {
    let roots = config.trust_roots.iter().filter(|(id, key)| {
        let key = public_key(key).filter(|key| !weak.contains(key));
        key.is_some_and(|key| signed_by(object, &config.name, id.as_str(), key))
    });
    roots.map(|(id, _)| id.to_string()).collect()
}

/// Leaves the right signatures of today's trust roots, and a few that others made in the name of the network. Whether there
/// is one of a trust root.
pub(super) fn prune(object: &mut CanonicalJsonObject, config: &NetworkConfig, weak: &WeakKeys) -> bool {
    let own = of_network(object, config);
    put(object, config, own.clone());
    let right = standing(object, config, weak);
    let (mut kept, mut others) = (CanonicalJsonObject::new(), CanonicalJsonObject::new());
    for (id, signature) in own {
        if right.contains(&id) {
            kept.insert(id, signature);
        } else if !is_root(config, &id) && others.len() < MOST_OTHERS {
            others.insert(id, signature);
        }
    }
    kept.extend(others);
    put(object, config, kept);
    !right.is_empty()
}

/// A list with the signatures of two texts of it; `new` has been verified.
pub(super) fn joined(old: &str, new: &str, config: &NetworkConfig, weak: &WeakKeys) -> String {
    let read = |text: &str| json::object(text.as_bytes()).ok();
    let (Some(mut both), Some(new_object)) = (read(old), read(new)) else { return new.to_owned() };
    let mut all = of_network(&both, config);
    for (id, signature) in of_network(&new_object, config) {
        // Those of trust roots were found to be right; of others the first counts.
        if is_root(config, &id) {
            all.insert(id, signature);
        } else if all.len() < MOST_OTHERS {
            all.entry(id).or_insert(signature);
        }
    }
    put(&mut both, config, all);
    prune(&mut both, config, weak);
    let text = json::canonical(&both);
    if text.len() > MAX_BYTES { new.to_owned() } else { text }
}

/// What has the form of a signature in the name of the network.
fn of_network(object: &CanonicalJsonObject, config: &NetworkConfig) -> CanonicalJsonObject {
    let all = object.get("signatures").and_then(CanonicalJsonValue::as_object);
    let own = all.and_then(|all| all.get(config.name.as_str())?.as_object());
    let is_one = |(id, signature): &(&String, &CanonicalJsonValue)| {
        let text = signature.as_str().unwrap_or_default();
        id.starts_with("ed25519:") && id.len() <= LONGEST_ID && LENGTHS.contains(&text.len())
    };
    let own = own.into_iter().flatten().filter(is_one);
    own.map(|(id, signature)| (id.clone(), signature.clone())).collect()
}

fn put(object: &mut CanonicalJsonObject, config: &NetworkConfig, own: CanonicalJsonObject) {
    let all = CanonicalJsonObject::from([(config.name.to_string(), CanonicalJsonValue::Object(own))]);
    object.insert("signatures".to_owned(), CanonicalJsonValue::Object(all));
}

fn is_root(config: &NetworkConfig, id: &str) -> bool {
    config.trust_roots.keys().any(|root| root.as_str() == id)
}
