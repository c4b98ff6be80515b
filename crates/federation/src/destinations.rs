//! What an operator may want to know of the servers that this one sends to.

use std::collections::BTreeSet;

use chappe_store::{Direction, Error, Json, Reader, Store, members::RoomServers, outbox::Destinations};
use ruma::{OwnedServerName, ServerName};

use crate::Network;

/// Rows of a queue that are counted at most.
const COUNTED: usize = 10_000;

/// A server that this one sends to, or tries to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its name.
    pub server: OwnedServerName,
    /// How much waits for it, up to 10,000.
    pub queue: usize,
    /// Attempts in a row that failed.
    pub failures: u32,
    /// When the first of them was, in milliseconds since 1970; 0 for none.
    pub failing_since: u64,
    /// Not to be tried before this time; 0 for at once.
    pub retry_at: u64,
}

/// Servers that something waits for or that were not reached, in the order of names after `after`.
pub async fn destinations(
    store: &Store,
    after: Option<&ServerName>,
    limit: usize,
) -> Result<Vec<Destination>, Error> {
    let reader = store.read();
    let mut names = BTreeSet::new();
    let mut last = after.map(ToOwned::to_owned);
    while names.len() < limit
        && let Some(next) = reader.next_outbox_destination(last.as_deref()).await?
    {
        names.insert(next.clone());
        last = Some(next);
    }
    let failing = match after {
        None => reader.scan::<Destinations>(&(), Direction::Forward, limit).await?,
        Some(after) => reader.scan_from::<Destinations>(&(), &after.to_owned(), limit + 1).await?,
    };
    names.extend(failing.into_iter().map(|(server, _)| server).filter(|server| Some(&**server) != after));
    let mut found = Vec::new();
    for server in names.into_iter().take(limit) {
        found.push(destination(&reader, server).await?);
    }
    Ok(found)
}

/// Every server that shares a room with `own`, that something waits for or that was not reached, by name.
pub async fn all_destinations(store: &Store, own: &ServerName) -> Result<Vec<Destination>, Error> {
    let reader = store.read();
    let mut names: BTreeSet<OwnedServerName> = BTreeSet::new();
    let shared = reader.scan_all::<RoomServers>(&()).await?;
    names.extend(shared.into_iter().filter(|(_, joined)| *joined > 0).map(|((_, server), _)| server));
    let mut last: Option<OwnedServerName> = None;
    while let Some(next) = reader.next_outbox_destination(last.as_deref()).await? {
        names.insert(next.clone());
        last = Some(next);
    }
    names.extend(reader.scan_all::<Destinations>(&()).await?.into_iter().map(|(server, _)| server));
    let mut found = Vec::new();
    for server in names.into_iter().filter(|server| server != own) {
        found.push(destination(&reader, server).await?);
    }
    Ok(found)
}

async fn destination(reader: &Reader<'_>, server: OwnedServerName) -> Result<Destination, Error> {
    let state = reader.get::<Destinations>(&server).await?.map(|Json(state)| state).unwrap_or_default();
    let queue = reader.outbox(&server, COUNTED).await?.len();
    Ok(Destination {
        server,
        queue,
        failures: state.failures,
        failing_since: state.failing_since,
        retry_at: state.retry_at,
    })
}

impl Network {
    /// When a server was last reached since this one started, in milliseconds since 1970.
    pub fn reached_at(&self, server: &ServerName) -> Option<u64> {
        self.backoff().reached_at(server)
    }
}

#[cfg(test)]
mod tests {
    use chappe_store::{
        Tx,
        outbox::{DestinationState, OutboxItem},
    };
    use ruma::server_name;

    use super::*;
    use crate::tests::memory;

    #[tokio::test]
    async fn queues_and_failures_are_listed_together_page_by_page() {
        let store = memory();
        let (a, b, c) = (server_name!("a.example"), server_name!("b.example"), server_name!("c.example"));
        let mut tx = Tx::new();
        for event in 0..3 {
            tx.enqueue(c, &OutboxItem::Pdu { room: 1, event });
        }
        tx.enqueue(a, &OutboxItem::Pdu { room: 1, event: 9 });
        let failing = DestinationState { failures: 4, retry_at: 70, failing_since: 7, tried: None };
        for server in [b, c] {
            tx.put::<Destinations>(&server.to_owned(), &Json(failing.clone()));
        }
        store.commit(tx).await.unwrap();
        let of = |found: &[Destination]| -> Vec<(String, usize, u32)> {
            found.iter().map(|one| (one.server.to_string(), one.queue, one.failures)).collect()
        };
        let all =
            [("a.example".to_owned(), 1, 0), ("b.example".to_owned(), 0, 4), ("c.example".to_owned(), 3, 4)];
        assert_eq!(of(&destinations(&store, None, 10).await.unwrap()), all);
        assert_eq!(of(&destinations(&store, None, 2).await.unwrap()), all[..2]);
        assert_eq!(of(&destinations(&store, Some(a), 2).await.unwrap()), all[1..]);
        assert_eq!(of(&destinations(&store, Some(b), 2).await.unwrap()), all[2..]);
        assert!(destinations(&store, Some(c), 2).await.unwrap().is_empty());
    }
}
