//! Who access tokens stand for, kept in memory; every change of a user voids what is kept of them.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use quick_cache::sync::Cache;
use ruma::UserId;

use crate::Requester;

const SLOTS: usize = 4096;
const ENTRIES: usize = 200_000;

/// What is known of a token.
pub(crate) struct Entry {
    pub(crate) requester: Requester,
    pub(crate) locked: bool,
    /// When the token or the account ends.
    pub(crate) expires: Option<u64>,
    /// Of the user's slot, before the store was read.
    pub(crate) version: u64,
}

/// Entries by hash of the token, and a version for each slot of users: an entry of an older version is void.
pub(crate) struct TokenCache {
    entries: Cache<[u8; 32], Arc<Entry>>,
    versions: Vec<AtomicU64>,
}

impl Default for TokenCache {
    fn default() -> Self {
        let versions = std::iter::repeat_with(AtomicU64::default).take(SLOTS).collect();
        Self { entries: Cache::new(ENTRIES), versions }
    }
}

impl TokenCache {
    fn slot(&self, user: &UserId) -> &AtomicU64 {
        let mut hasher = DefaultHasher::new();
        user.as_str().hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % SLOTS as u64).unwrap_or(0);
        &self.versions[index]
    }

    /// The version to give an entry that is about to be read from the store.
    pub(crate) fn version(&self, user: &UserId) -> u64 {
        self.slot(user).load(Ordering::SeqCst)
    }

    /// A valid entry.
    pub(crate) fn find(&self, hash: &[u8; 32], now: u64) -> Option<Arc<Entry>> {
        let entry = self.entries.get(hash)?;
        let current = entry.version == self.version(&entry.requester.user_id);
        let lives = entry.expires.is_none_or(|at| now < at);
        if current && lives {
            return Some(entry);
        }
        self.entries.remove(hash);
        None
    }

    /// Keeps an entry.
    pub(crate) fn keep(&self, hash: [u8; 32], entry: Entry) {
        self.entries.insert(hash, Arc::new(entry));
    }

    /// Voids what is kept of a user; to be called after the commit of a change.
    pub(crate) fn forget(&self, user: &UserId) {
        self.slot(user).fetch_add(1, Ordering::SeqCst);
    }

    /// Voids everything.
    pub(crate) fn forget_all(&self) {
        for version in &self.versions {
            version.fetch_add(1, Ordering::SeqCst);
        }
    }
}
