//! Filters, stored by hash: the same filter has the same id.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chappe_store::{Direction, Tx, accounts_data::Filters};
use quick_cache::sync::Cache;
use ruma::{OwnedUserId, UserId, api::client::filter::FilterDefinition};

use crate::{Accounts, Error, tokens::sha256};

/// Bytes of one filter.
const LONGEST: usize = 32_768;
/// Filters kept in memory.
const KEPT: usize = 10_000;

/// Filters used lately; what an id stands for never changes.
pub(crate) struct FilterCache(Cache<(OwnedUserId, String), FilterDefinition>);

impl Default for FilterCache {
    fn default() -> Self {
        Self(Cache::new(KEPT))
    }
}

impl Accounts {
    /// Stores a filter; gives its id. [`Error::TooLarge`], [`Error::TooMany`].
    pub async fn store_filter(&self, user: &UserId, filter: &FilterDefinition) -> Result<String, Error> {
        let text = serde_json::to_string(filter).map_err(|error| Error::BadJson(error.to_string()))?;
        if text.len() > LONGEST {
            return Err(Error::TooLarge("filter"));
        }
        let id = URL_SAFE_NO_PAD.encode(&sha256(&text)[..12]);
        let key = (user.to_owned(), id);
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

    /// A stored filter, answered from memory when it was used lately.
    pub async fn filter(&self, user: &UserId, id: &str) -> Result<Option<FilterDefinition>, Error> {
        let key = (user.to_owned(), id.to_owned());
        if let Some(filter) = self.inner.filters.0.get(&key) {
            return Ok(Some(filter));
        }
        let Some(text) = self.store().read().get::<Filters>(&key).await? else { return Ok(None) };
        let filter: FilterDefinition =
            serde_json::from_slice(&text).map_err(|_| chappe_store::Error::Corrupt("filter"))?;
        self.inner.filters.0.insert(key, filter.clone());
        Ok(Some(filter))
    }
}
