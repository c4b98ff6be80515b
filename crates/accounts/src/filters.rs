//! Filters, stored by hash: the same filter has the same id.

use ruma::{UserId, api::client::filter::FilterDefinition};

use crate::{Accounts, Error, soon};

impl Accounts {
    /// Stores a filter; gives its id.
    pub async fn store_filter(&self, user: &UserId, filter: &FilterDefinition) -> Result<String, Error> { soon() }
    /// A stored filter, answered from memory when it was used lately.
    pub async fn filter(&self, user: &UserId, id: &str) -> Result<Option<FilterDefinition>, Error> { soon() }
}
