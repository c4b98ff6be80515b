//! Media that nothing names any more: events that did have expired. What may go is decided by `rooms`, see ADR 21.

use std::sync::atomic::Ordering::Relaxed;

use chappe_store::{
    Direction, Json, Tx,
    media::{Media as Table, MediaUnused, MediaUses},
};
use ruma::OwnedServerName;

use crate::{Error, Media};

/// Media looked at in one round trip.
const PAGE: usize = 200;

impl Media {
    /// Removes media that only events named which have expired; meant to be called every few minutes. Gives how many.
    pub async fn remove_unnamed(&self) -> Result<usize, Error> {
        let (mut removed, mut from) = (0, None::<(OwnedServerName, String)>);
        loop {
            let reader = self.0.store.read();
            let page = match &from {
                None => reader.scan::<MediaUnused>(&(), Direction::Forward, PAGE).await?,
                Some(from) => reader.scan_from::<MediaUnused>(&(), from, PAGE).await?,
            };
            drop(reader);
            for (key, ()) in &page {
                match self.remove_if_unnamed(key).await {
                    Ok(gone) => removed += usize::from(gone),
                    // It is being put under quarantine, or named again, or the like: the next time.
                    Err(Error::Store(chappe_store::Error::Conflict)) => {}
                    Err(error) => return Err(error),
                }
            }
            if page.len() < PAGE {
                break;
            }
            from = page.into_iter().next_back().map(|((server, id), ())| (server, format!("{id}\0")));
        }
        self.0.unnamed.fetch_add(removed as u64, Relaxed);
        Ok(removed)
    }

    /// Keeps media whose time had come: nothing expires any more.
    pub async fn keep_unnamed(&self) -> Result<(), Error> {
        if !self.0.store.read().scan::<MediaUnused>(&(), Direction::Forward, 1).await?.is_empty() {
            let mut tx = Tx::new();
            tx.delete_prefix::<MediaUnused>(&());
            self.0.store.commit(tx).await?;
        }
        Ok(())
    }

    /// Looks at one of them for the last time. Who names it meanwhile takes it off the list, which makes this a conflict.
    async fn remove_if_unnamed(&self, key: &(OwnedServerName, String)) -> Result<bool, Error> {
        let reader = self.0.store.read();
        let is_named = !reader.scan::<MediaUses>(key, Direction::Forward, 1).await?.is_empty();
        let medium = reader.get::<Table>(key).await?.map(|Json(medium)| medium);
        drop(reader);
        let mut tx = Tx::new();
        tx.expect::<MediaUnused>(key, Some(&())).delete::<MediaUnused>(key);
        match medium.filter(|medium| !is_named && medium.may_go_unnamed()) {
            Some(medium) => self.delete_with(tx, key.clone(), medium).await.map(|()| true),
            None => {
                self.0.store.commit(tx).await?;
                Ok(false)
            }
        }
    }

    /// How many media have been removed since the server started because only expired events named them.
    pub fn removed_unnamed(&self) -> u64 {
        self.0.unnamed.load(Relaxed)
    }
}
