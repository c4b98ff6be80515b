//! How many servers' keys are kept: whoever has a domain has names without end, and keys for each.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use chappe_store::{
    Direction, Error, Json, RoomNid, Tx,
    members::RoomServers,
    server_keys::{KeyDocuments, ServerKeys},
};
use ruma::OwnedServerName;

use super::KeyRing;

/// Servers that share no room with this one whose keys are kept.
const STRANGERS: usize = 20_000;
/// How often it is looked whether there are more.
const ROUND: Duration = Duration::from_hours(6);
/// So many documents that are kept cause a round of their own.
const SURGE: usize = 5_000;
/// Rows read at once, and documents removed at once.
const PAGE: usize = 500;
const AT_ONCE: usize = 100;

impl KeyRing {
    /// Removes the keys of strangers of whom there are too many, again and again.
    pub(crate) async fn keep_within_bounds(self) {
        let world = self.0.world.clone();
        loop {
            tokio::select! {
                () = world.stopping() => return,
                () = world.sleep(ROUND) => {}
                () = self.0.surge.notified() => {}
            }
            if let Err(error) = self.drop_surplus(STRANGERS).await {
                tracing::warn!(%error, "keys of servers that nobody meets were not removed");
            }
        }
    }

    /// A document was kept.
    pub(super) fn note_kept(&self) {
        if self.0.kept.fetch_add(1, Ordering::Relaxed) % SURGE == SURGE - 1 {
            self.0.surge.notify_one();
        }
    }

    /// Removes the keys of servers that share no room with this one and never did, those fetched longest ago first, until it has
    /// those of `most` such servers. If they are needed again they are fetched again.
    pub(crate) async fn drop_surplus(&self, most: usize) -> Result<(), Error> {
        let mut documents = self.documents().await?;
        if documents.len() <= most {
            return Ok(());
        }
        let met = self.met().await?;
        documents.retain(|(_, server)| !met.contains(server));
        documents.sort_unstable();
        documents.truncate(documents.len().saturating_sub(most));
        for some in documents.chunks(AT_ONCE) {
            self.drop_documents(some).await?;
        }
        Ok(())
    }

    /// The servers whose documents are kept, and when they were fetched.
    async fn documents(&self) -> Result<Vec<(u64, OwnedServerName)>, Error> {
        let mut found: Vec<(u64, OwnedServerName)> = Vec::new();
        loop {
            let (reader, last) = (self.0.store.read(), found.last().map(|(_, server)| server.clone()));
            let page = match &last {
                None => reader.scan::<KeyDocuments>(&(), Direction::Forward, PAGE).await?,
                Some(last) => reader.scan_from::<KeyDocuments>(&(), last, PAGE).await?,
            };
            let before = found.len();
            let others = page.into_iter().filter(|(server, _)| Some(server) != last.as_ref());
            found.extend(others.map(|(server, Json(document))| (document.fetched_at, server)));
            if found.len() == before {
                return Ok(found);
            }
        }
    }

    /// The servers that are or were in a room of this one.
    async fn met(&self) -> Result<BTreeSet<OwnedServerName>, Error> {
        let mut met = BTreeSet::new();
        let mut last: Option<(RoomNid, OwnedServerName)> = None;
        loop {
            let reader = self.0.store.read();
            let page = match &last {
                None => reader.scan::<RoomServers>(&(), Direction::Forward, PAGE).await?,
                Some(last) => reader.scan_from::<RoomServers>(&(), last, PAGE).await?,
            };
            let end = page.last().map(|(place, _)| place.clone());
            if end.is_none() || end == last {
                return Ok(met);
            }
            met.extend(page.into_iter().map(|((_, server), _)| server));
            last = end;
        }
    }

    async fn drop_documents(&self, some: &[(u64, OwnedServerName)]) -> Result<(), Error> {
        let servers: Vec<_> = some.iter().map(|(_, server)| server.clone()).collect();
        let kept = self.0.store.read().get_many::<KeyDocuments>(&servers).await?;
        let mut tx = Tx::new();
        for ((fetched_at, server), kept) in some.iter().zip(kept) {
            // Not what was fetched again meanwhile.
            if kept.as_ref().is_some_and(|Json(kept)| kept.fetched_at == *fetched_at) {
                tx.expect::<KeyDocuments>(server, kept.as_ref());
                tx.delete::<KeyDocuments>(server).delete_prefix::<ServerKeys>(server);
            }
        }
        match self.0.store.commit(tx).await {
            Ok(_) | Err(Error::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
