//! What an operator may want to know of the servers that this one sends to.

use std::collections::BTreeSet;

use chappe_store::{
    Direction, Error, Json, Reader, Store,
    members::RoomServers,
    outbox::{DestinationState, Destinations},
};
use ruma::{OwnedServerName, ServerName};

use crate::Network;

/// Rows of a queue that are counted at most.
const COUNTED: usize = 10_000;

/// A server that this one sends to, or tries to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its name.
    pub server: OwnedServerName,
    /// How reaching it went.
    pub state: DestinationState,
}

impl Destination {
    /// Since when it is not reached or takes nothing, in milliseconds since 1970; none if all is well.
    pub fn failing_since(&self) -> Option<u64> {
        let DestinationState { failures, failing_since, refused, .. } = self.state;
        let since = [(failures, failing_since), (refused.count, refused.since)];
        since.into_iter().filter(|(times, _)| *times > 0).map(|(_, since)| since).min()
    }
}

/// How much waits for a server, up to 10,000.
pub async fn queue_length(store: &Store, server: &ServerName) -> Result<usize, Error> {
    store.read().outbox_length(server, COUNTED).await
}

/// Servers that something waits for, in the order of names after `after`; as they are known to `running`, if it is.
pub async fn destinations(
    store: &Store,
    running: Option<&Network>,
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
        found.push(destination(&reader, running, server).await?);
    }
    Ok(found)
}

/// Every server that shares a room with this one or that something waits for, by name.
pub async fn all_destinations(network: &Network) -> Result<Vec<Destination>, Error> {
    let reader = network.store().read();
    let mut names: BTreeSet<OwnedServerName> = BTreeSet::new();
    let shared = reader.scan_all::<RoomServers>(&()).await?;
    names.extend(shared.into_iter().filter(|(_, joined)| *joined > 0).map(|((_, server), _)| server));
    names.extend(reader.outbox_destinations().await?);
    names.extend(reader.scan_all::<Destinations>(&()).await?.into_iter().map(|(server, _)| server));
    let mut found = Vec::new();
    for server in names.into_iter().filter(|server| server != network.server()) {
        found.push(destination(&reader, Some(network), server).await?);
    }
    Ok(found)
}

async fn destination(
    reader: &Reader<'_>,
    running: Option<&Network>,
    server: OwnedServerName,
) -> Result<Destination, Error> {
    let state = match running.and_then(|network| network.backoff().at_hand(&server)) {
        Some(state) => state,
        None => reader.get::<Destinations>(&server).await?.map(|Json(state)| state).unwrap_or_default(),
    };
    Ok(Destination { server, state })
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
        outbox::{OutboxItem, Refusals},
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
        let failing = DestinationState { failures: 4, retry_at: 70, failing_since: 7, ..Default::default() };
        for server in [b, c] {
            tx.put::<Destinations>(&server.to_owned(), &Json(failing.clone()));
        }
        store.commit(tx).await.unwrap();
        let of = async |after: Option<&ServerName>, limit| -> Vec<(String, u32)> {
            let found = destinations(&store, None, after, limit).await.unwrap();
            found.iter().map(|one| (one.server.to_string(), one.state.failures)).collect()
        };
        let all = [("a.example".to_owned(), 0), ("b.example".to_owned(), 4), ("c.example".to_owned(), 4)];
        assert_eq!(of(None, 10).await, all);
        assert_eq!(of(None, 2).await, all[..2]);
        assert_eq!(of(Some(a), 2).await, all[1..]);
        assert_eq!(of(Some(b), 2).await, all[2..]);
        assert!(of(Some(c), 2).await.is_empty());
        assert_eq!((queue_length(&store, a).await.unwrap(), queue_length(&store, c).await.unwrap()), (1, 3));
    }

    #[test]
    fn trouble_begins_with_the_first_failure_or_refusal() {
        let since = |failing: (u32, u64), refused: (u32, u64)| {
            let refused = Refusals { count: refused.0, since: refused.1, retry_at: 0 };
            let state = DestinationState {
                failures: failing.0,
                failing_since: failing.1,
                refused,
                ..DestinationState::default()
            };
            Destination { server: server_name!("a.example").to_owned(), state }.failing_since()
        };
        assert_eq!(since((0, 0), (0, 0)), None);
        assert_eq!(since((1, 5), (0, 0)), Some(5));
        assert_eq!(since((0, 0), (1, 6)), Some(6));
        assert_eq!(since((1, 5), (1, 4)), Some(4));
    }
}
