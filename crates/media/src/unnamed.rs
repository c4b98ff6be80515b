//! Media that nothing names any more: events that did have expired. What may go is decided by `rooms`, see ADR 21.

use std::sync::atomic::Ordering::Relaxed;

use chappe_store::{
    Direction, Tx,
    media::{MediaUnused, MediaUses},
};

use crate::{Error, Media};

/// Media looked at in one round trip.
const PAGE: usize = 200;

impl Media {
    /// Removes media that only events named which have expired; meant to be called every few minutes. Gives how many.
    pub async fn remove_unnamed(&self) -> Result<usize, Error> {
        let mut removed = 0;
        loop {
            let reader = self.0.store.read();
            let page = reader.scan::<MediaUnused>(&(), Direction::Forward, PAGE).await?;
            let mut tx = Tx::new();
            for (key, ()) in &page {
                if reader.scan::<MediaUses>(key, Direction::Forward, 1).await?.is_empty() {
                    match self.delete(&key.0, &key.1).await {
                        Ok(()) => removed += 1,
                        Err(Error::NotFound) => {}
                        // It is being put under quarantine, or the like: the next time.
                        Err(Error::Store(chappe_store::Error::Conflict)) => continue,
                        Err(error) => return Err(error),
                    }
                }
                tx.delete::<MediaUnused>(key);
            }
            drop(reader);
            if tx.is_empty() {
                break;
            }
            self.0.store.commit(tx).await?;
            if page.len() < PAGE {
                break;
            }
        }
        self.0.unnamed.fetch_add(removed as u64, Relaxed);
        Ok(removed)
    }

    /// How many media have been removed since the server started because only expired events named them.
    pub fn removed_unnamed(&self) -> u64 {
        self.0.unnamed.load(Relaxed)
    }
}
