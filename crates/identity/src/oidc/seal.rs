//! What this process gives a browser to keep for a while: encrypted, so that it comes back as it was or not at all.
//!
//! The key lives as long as the process: after a restart whoever was on their way begins again, and what was used before
//! cannot be used again.

use std::collections::{HashSet, VecDeque};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chappe_world::World;
use parking_lot::Mutex;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
};
use serde::{Serialize, de::DeserializeOwned};

/// Bytes of a sealed text that are looked at.
const LONGEST: usize = 8 << 10;

pub(super) struct Seal {
    key: LessSafeKey,
    world: World,
}

impl Seal {
    /// A seal of this process alone.
    pub(super) fn new(world: &World) -> Self {
        let bytes = world.bytes::<32>();
        let key = UnboundKey::new(&AES_256_GCM, &bytes).expect("a key of 32 bytes is what AES-256 takes");
        Self { key: LessSafeKey::new(key), world: world.clone() }
    }

    /// Seals a value for one use; `None` when it cannot be written.
    pub(super) fn close(&self, purpose: &str, value: &impl Serialize) -> Option<String> {
        let mut text = serde_json::to_vec(value).ok()?;
        let nonce = self.world.bytes::<NONCE_LEN>();
        let aad = Aad::from(purpose.as_bytes());
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text).ok()?;
        Some(BASE64.encode([&nonce[..], &text].concat()))
    }

    /// What was sealed for this use.
    pub(super) fn open<T: DeserializeOwned>(&self, purpose: &str, sealed: &str) -> Option<T> {
        if sealed.len() > LONGEST {
            return None;
        }
        let mut bytes = BASE64.decode(sealed).ok()?;
        let (nonce, text) = bytes.split_first_chunk_mut::<NONCE_LEN>()?;
        let aad = Aad::from(purpose.as_bytes());
        let text = self.key.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, text).ok()?;
        serde_json::from_slice(text).ok()
    }
}

/// Whether two secrets are the same; how long it takes tells nothing of where they differ, as their hashes are compared.
pub(super) fn same(one: &str, other: &str) -> bool {
    digest(&SHA256, one.as_bytes()).as_ref() == digest(&SHA256, other.as_bytes()).as_ref()
}

/// What was used and may not be used again, until it would have ended anyway.
#[derive(Default)]
pub(super) struct Used(Mutex<Known>);

#[derive(Default)]
struct Known {
    values: HashSet<String>,
    /// In the order of their first use, with when they end.
    order: VecDeque<(u64, String)>,
}

/// Values kept at most; beyond, the oldest are forgotten: the provider takes no code twice either.
const MOST: usize = 100_000;

impl Used {
    /// Notes a use; `false` when it is not the first.
    pub(super) fn first(&self, value: &str, ends: u64, now: u64) -> bool {
        let mut known = self.0.lock();
        while known.order.front().is_some_and(|(end, _)| *end <= now || known.values.len() >= MOST) {
            if let Some((_, oldest)) = known.order.pop_front() {
                known.values.remove(&oldest);
            }
        }
        let first = known.values.insert(value.to_owned());
        if first {
            known.order.push_back((ends, value.to_owned()));
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use chappe_world::{Fake, FakeNet, World};

    use super::{Seal, Used};

    #[tokio::test]
    async fn what_comes_back_is_what_was_given_for_that_use() {
        let world = World::fake(Fake::new("hs1", 1, &FakeNet::new()));
        let (seal, other) = (Seal::new(&world), Seal::new(&world));
        let sealed = seal.close("a", &("text", 7)).unwrap();
        assert_eq!(seal.open::<(String, u64)>("a", &sealed), Some(("text".to_owned(), 7)));
        assert_eq!(seal.open::<(String, u64)>("b", &sealed), None);
        assert_eq!(other.open::<(String, u64)>("a", &sealed), None);
        assert_ne!(seal.close("a", &("text", 7)).unwrap(), sealed);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(seal.open::<(String, u64)>("a", &changed), None, "{at}");
        }
        for text in ["", "A", "AAAAAAAAAAAAAAAA", "=", "é"] {
            assert_eq!(seal.open::<(String, u64)>("a", text), None, "{text}");
        }
    }

    #[test]
    fn a_value_is_used_once() {
        let used = Used::default();
        assert!(used.first("a", 10, 0));
        assert!(!used.first("a", 10, 5));
        assert!(used.first("b", 20, 5));
        assert!(used.first("a", 30, 10), "the first has ended");
    }
}
