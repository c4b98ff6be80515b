//! The queue of a destination on disk, read from where it was left. What was delivered leaves marks there for a while, and a scan
//! from the beginning goes through all of them.

use chappe_store::{
    Error, Index, OutboxItem, Tx,
    outbox::{Outbox, OutboxKey, behind},
};
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};

use super::Sender;

/// Destination → position and index of the last row that left its queue from the front. No row ever comes before one that is
/// there: it has the position of its commit, and positions become visible in order. So this is right for ever, for as many
/// destinations as it is remembered.
pub(super) struct Delivered(Cache<OwnedServerName, (u64, Index)>);

impl Default for Delivered {
    fn default() -> Self {
        Self(Cache::new(10_000))
    }
}

impl Sender {
    /// The first `limit` rows of a destination's queue, oldest first.
    pub(super) async fn queued(
        &self,
        destination: &ServerName,
        limit: usize,
    ) -> Result<Vec<(OutboxKey, OutboxItem)>, Error> {
        let from = self.queue_from(destination);
        self.0.network.store().read().scan_from::<Outbox>(&destination.to_owned(), &from, limit).await
    }

    /// Where a destination's queue begins at the earliest.
    pub(super) fn queue_from(&self, destination: &ServerName) -> OutboxKey {
        match self.0.delivered.0.get(destination) {
            Some(last) => behind(destination, last),
            None => (destination.to_owned(), 0, Index(0)),
        }
    }

    /// Rows leave the front of a queue.
    pub(super) async fn leave_queue(&self, rows: &[OutboxKey]) -> Result<(), Error> {
        let Some((destination, position, index)) = rows.last() else { return Ok(()) };
        let mut tx = Tx::new();
        for key in rows {
            tx.delete::<Outbox>(key);
        }
        self.0.network.store().commit(tx).await?;
        self.0.delivered.0.insert(destination.clone(), (*position, *index));
        Ok(())
    }
}
