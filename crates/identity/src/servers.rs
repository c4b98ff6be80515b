//! Which servers may take part: the configuration's list, and what operators added while running.

use std::sync::Arc;

use chappe_store::{
    Direction, Json, Store, Tx,
    identity::{AllowRule, AllowedServers},
};
use chappe_world::{Live, World};
use ruma::ServerName;
use tokio::sync::{Mutex, MutexGuard};

use crate::{Error, email::is_domain};

/// Servers that operators may add.
const MANY: usize = 100_000;

/// The list of servers. A handle; it reads the store each time.
#[derive(Clone, Debug)]
pub struct ServerList {
    store: Store,
    world: World,
    configured: Live<Option<Vec<String>>>,
    turn: Arc<Mutex<()>>,
}

/// A server, or all servers under a domain, that may take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedServer {
    /// A server name, or `*.` and a domain.
    pub pattern: String,
    /// Whether the configuration names it; otherwise an operator added it.
    pub configured: bool,
}

impl ServerList {
    /// The list over what the configuration says: `None` is every server, and then nothing can be added.
    pub fn new(store: Store, world: World, configured: Option<Vec<String>>) -> Self {
        Self { store, world, configured: Live::new(configured), turn: Arc::default() }
    }

    /// Whoever changes the list and hands it on holds this meanwhile: what was read last is handed on last.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Goes on with another list of the configuration; what operators added stays.
    pub fn reconfigure(&self, configured: Option<Vec<String>>) {
        self.configured.set(configured);
    }

    /// All patterns; `None` when every server may take part.
    pub async fn patterns(&self) -> Result<Option<Vec<String>>, Error> {
        let Some(listed) = self.list().await? else { return Ok(None) };
        Ok(Some(listed.into_iter().map(|server| server.pattern).collect()))
    }

    /// The list; `None` when every server may take part.
    pub async fn list(&self) -> Result<Option<Vec<ListedServer>>, Error> {
        let Some(configured) = &*self.configured.get() else { return Ok(None) };
        let listed = |pattern: &String| ListedServer { pattern: pattern.clone(), configured: true };
        let mut list: Vec<_> = configured.iter().map(listed).collect();
        let rows = self.store.read().scan::<AllowedServers>(&(), Direction::Forward, MANY).await?;
        list.extend(rows.into_iter().map(|(pattern, _)| ListedServer { pattern, configured: false }));
        Ok(Some(list))
    }

    /// Adds a server or `*.` and a domain; `false` when it was there already.
    pub async fn allow(&self, pattern: &str) -> Result<bool, Error> {
        let pattern = self.closed(pattern)?;
        let mut tx = Tx::default();
        let kept = Json(AllowRule { added_at: self.world.now(), note: String::new() });
        tx.expect_absent::<AllowedServers>(&pattern).put::<AllowedServers>(&pattern, &kept);
        let added = self.commit(tx).await?;
        tracing::info!(pattern, added, "server allowed");
        Ok(added)
    }

    /// Removes what [`ServerList::allow`] added; `false` when it was not there.
    pub async fn deny(&self, pattern: &str) -> Result<bool, Error> {
        let pattern = self.closed(pattern)?;
        if self.configured.get().iter().flatten().any(|configured| configured.eq_ignore_ascii_case(&pattern))
        {
            return Err(Error::Configured(pattern));
        }
        let found = self.store.read().get::<AllowedServers>(&pattern).await?;
        if found.is_none() {
            return Ok(false);
        }
        let mut tx = Tx::default();
        tx.expect::<AllowedServers>(&pattern, found.as_ref()).delete::<AllowedServers>(&pattern);
        let removed = self.commit(tx).await?;
        tracing::info!(pattern, removed, "server no longer allowed");
        Ok(removed)
    }

    /// The pattern in lower case, if there is a list to change and it is one.
    fn closed(&self, pattern: &str) -> Result<String, Error> {
        if self.configured.get().is_none() {
            return Err(Error::OpenFederation);
        }
        let pattern = pattern.to_ascii_lowercase();
        if is_server_pattern(&pattern) { Ok(pattern) } else { Err(Error::NotAServer(pattern)) }
    }

    async fn commit(&self, tx: Tx) -> Result<bool, Error> {
        match self.store.commit(tx).await {
            Ok(_) => Ok(true),
            Err(chappe_store::Error::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a text names a server, or with `*.` before a domain all servers below it.
pub fn is_server_pattern(pattern: &str) -> bool {
    match pattern.to_ascii_lowercase().strip_prefix("*.") {
        Some(domain) => is_domain(domain),
        None => ServerName::parse(pattern).is_ok(),
    }
}
