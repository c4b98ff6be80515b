//! Filters, stored by hash: the same filter has the same id.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chappe_store::{Direction, Tx, accounts_data::Filters};
use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedUserId, UserId, api::client::filter::FilterDefinition};

use crate::{Accounts, Error, tokens::sha256};

/// Bytes of one filter.
const LONGEST: usize = 32_768;
/// Bytes that filters in memory may have together, about.
const BYTES: u64 = 16 << 20;
/// Filters in memory, if they are as long as clients usually have them.
const KEPT: usize = 1_000;
/// Bytes in memory for one of a filter's text at most: a list of short names.
const PARSED: usize = 10;
/// Users' filters of which is known in memory that they are stored.
const KNOWN: usize = 50_000;

/// Filters used lately, each once for all who use it, and who has stored which. What an id stands for never changes, and is the
/// same for everybody.
pub(crate) struct FilterCache {
    filters: Cache<String, Shared, BySize>,
    stored: Cache<(OwnedUserId, String), ()>,
}

impl Default for FilterCache {
    fn default() -> Self {
        Self { filters: Cache::with_weighter(KEPT, BYTES, BySize), stored: Cache::new(KNOWN) }
    }
}

impl FilterCache {
    /// The filter, whose text is so long, as others have it.
    fn share(&self, id: &str, length: usize, filter: FilterDefinition) -> Arc<FilterDefinition> {
        if let Some(shared) = self.filters.get(id) {
            return shared.filter;
        }
        let size = size_of::<FilterDefinition>() + PARSED * length;
        let shared = Shared { filter: Arc::new(filter), size: size as u64 };
        self.filters.insert(id.to_owned(), shared.clone());
        shared.filter
    }
}

/// A filter, and the bytes that it takes at most, about.
#[derive(Clone)]
struct Shared {
    filter: Arc<FilterDefinition>,
    size: u64,
}

/// Weighs filters by their bytes.
#[derive(Clone)]
struct BySize;

impl Weighter<String, Shared> for BySize {
    fn weight(&self, _: &String, shared: &Shared) -> u64 {
        shared.size
    }
}

fn id_of(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(&sha256(text)[..12])
}

impl Accounts {
    /// Stores a filter; gives its id. [`Error::TooLarge`], [`Error::TooMany`].
    pub async fn store_filter(&self, user: &UserId, filter: &FilterDefinition) -> Result<String, Error> {
        let text = serde_json::to_string(filter).map_err(|error| Error::BadJson(error.to_string()))?;
        if text.len() > LONGEST {
            return Err(Error::TooLarge("filter"));
        }
        let key = (user.to_owned(), id_of(&text));
        let reader = self.store().read();
        if reader.get::<Filters>(&key).await?.is_none() {
            let most = self.config().limits.filters;
            if reader.scan::<Filters>(&key.0, Direction::Forward, most).await?.len() >= most {
                return Err(Error::TooMany("filters"));
            }
            drop(reader);
            let mut tx = Tx::new();
            tx.put::<Filters>(&key, &text.into_bytes());
            self.store().commit(tx).await?;
        }
        Ok(key.1)
    }

    /// A filter that is not stored, in memory once for all who use it: requests wait with theirs.
    pub fn shared_filter(&self, filter: FilterDefinition) -> Arc<FilterDefinition> {
        match serde_json::to_string(&filter) {
            Ok(text) => self.inner.filters.share(&id_of(&text), text.len(), filter),
            Err(_) => Arc::new(filter),
        }
    }

    /// A stored filter, answered from memory when it was used lately.
    pub async fn filter(&self, user: &UserId, id: &str) -> Result<Option<Arc<FilterDefinition>>, Error> {
        let (cache, key) = (&self.inner.filters, (user.to_owned(), id.to_owned()));
        if cache.stored.get(&key).is_some()
            && let Some(shared) = cache.filters.get(id)
        {
            return Ok(Some(shared.filter));
        }
        let Some(text) = self.store().read().get::<Filters>(&key).await? else { return Ok(None) };
        let filter: FilterDefinition =
            serde_json::from_slice(&text).map_err(|_| chappe_store::Error::Corrupt("filter"))?;
        let filter = cache.share(id, text.len(), filter);
        cache.stored.insert(key, ());
        Ok(Some(filter))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ruma::api::client::filter::FilterDefinition;

    use super::{BYTES, FilterCache, LONGEST};

    #[test]
    fn filters_have_so_much_room_and_the_longest_fits() {
        let cache = FilterCache::default();
        for id in 0..200 {
            let share = || cache.share(&id.to_string(), LONGEST, FilterDefinition::default());
            assert!(Arc::ptr_eq(&share(), &share()));
        }
        assert!(cache.filters.weight() <= BYTES);
    }
}
