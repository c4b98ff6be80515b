//! Whom a user ignores: nothing that they say is told, but what they make the state of the room is.
//!
//! Specification: client-server API, "Ignoring Users".

use std::{collections::BTreeSet, sync::Arc};

use chappe_rules::Pdu;
use ruma::{EventId, OwnedUserId, UserId};

use crate::{Error, Result, read::view::View, visible::Seen};

/// Whom a user ignores.
pub(crate) type Ignored = Arc<BTreeSet<OwnedUserId>>;

/// Whether an event is not told to somebody who ignores these users.
pub(crate) fn is_hidden(event: &Pdu, ignored: &BTreeSet<OwnedUserId>) -> bool {
    event.state_key().is_none() && ignored.contains(event.sender())
}

fn not_read(error: chappe_accounts::Error) -> Error {
    match error {
        chappe_accounts::Error::Store(error) => error.into(),
        _ => Error::Retry,
    }
}

impl View<'_> {
    /// Whom a user ignores. Read once.
    pub(crate) async fn ignored_by(&self, user: &UserId) -> Result<Ignored> {
        if let Some((_, ignored)) = self.ignored.lock().as_ref().filter(|(whose, _)| whose == user) {
            return Ok(ignored.clone());
        }
        let read = self.inner.accounts.ignored_users(&self.reader, user).await;
        let ignored = Arc::new(read.map_err(not_read)?);
        self.ignores(user, ignored.clone());
        Ok(ignored)
    }

    /// Says whom a user ignores, where that was read before.
    pub fn ignores(&self, user: &UserId, ignored: Arc<BTreeSet<OwnedUserId>>) {
        *self.ignored.lock() = Some((user.to_owned(), ignored));
    }

    /// One event by id, if `user` may see it and it is told: [`Error::NotFound`] otherwise.
    pub(crate) async fn told(&self, user: &UserId, event: &EventId) -> Result<Seen> {
        let seen = self.seen_by(user, event).await?;
        let ignored = self.ignored_by(user).await?;
        let hidden = is_hidden(&seen.event.pdu, &ignored);
        if hidden { Err(Error::NotFound("event")) } else { Ok(seen) }
    }
}
