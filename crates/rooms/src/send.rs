//! `send`: a local user's draft becomes an event.

use ruma::{OwnedEventId, RoomId};

use crate::{Actor, Draft, Error, Result, Rooms, Transaction};

impl Rooms {
    /// Makes `draft` an event of `room`, once per transaction id: committed and durable when it answers.
    /// Redactions and state events (memberships included) go this way too.
    pub async fn send(
        &self,
        _actor: &Actor,
        _room: &RoomId,
        _draft: Draft,
        _txn: Option<Transaction>,
    ) -> Result<OwnedEventId> {
        Err(Error::Retry)
    }
}
