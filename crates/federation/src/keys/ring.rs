//! The keys of other servers: kept, fetched from them or from notaries when needed, each server once at a time.

mod bounds;
mod fetches;
mod kept;
mod notaries;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use bytes::Bytes;
use chappe_rooms::{KeysWanted, WantedKeys};
use chappe_rules::check::{KeyRing as Known, ServerKey as KnownKey, WeakKeys};
use chappe_store::{
    Error, Json, Store,
    server_keys::{KeyDocument, KeyDocuments, ServerKey, ServerKeys},
};
use chappe_world::{Limits, World};
use futures_util::future::join_all;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::{Notify, Semaphore};

use self::{
    fetches::{Errand, FOR_EVENTS, FOR_REQUESTS, Fetch, Pause, Purpose, Wanted},
    kept::Source,
};
use super::{Document, Pins, document::MAX_DOCUMENT, public_key, time, weak_keys};
use crate::{
    AllowList, Config,
    backoff::Backoff,
    link::{Link, LinkError},
};

/// Servers that are asked to check some events together, all of them and at the same time, and for how long: an answer may name
/// any number, and is held meanwhile. The others count as servers without keys.
const MOST_ASKED: usize = 5_000;
const ASKED_AT_ONCE: usize = FOR_EVENTS / 2;
const ASKED_FOR: Duration = Duration::from_secs(90);
/// The same for the answer to a join, for which as many are asked at the same time as for all events.
const ASKED_FOR_JOIN: Duration = Duration::from_mins(5);
/// A server that is asked for its own keys, or a notary for those of another, is found and answers within this time.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// Events that are dated further ahead, in milliseconds, count as dated so: no made-up date has a key fetched again that is good
/// for longer.
const AHEAD: u64 = 3_600_000;

/// What events are checked for whose keys are looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Haste {
    /// Somebody waits for a room with many servers.
    Join,
    /// They were told, or asked for of our own accord.
    Told,
}

/// Keys of other servers: a handle, clones share it.
#[derive(Clone)]
pub struct KeyRing(Arc<Inner>);

struct Inner {
    world: World,
    store: Store,
    link: Link,
    backoff: Backoff,
    allowed: AllowList,
    notaries: Vec<OwnedServerName>,
    timeout: Duration,
    weak: WeakKeys,
    pins: Pins,
    under_way: Mutex<HashMap<Errand, (Fetch, Wanted)>>,
    pauses: Cache<Errand, Pause>,
    for_events: Semaphore,
    /// Of servers that this one has reached, and of others, which may be made up.
    for_requests: Semaphore,
    for_strangers: Semaphore,
    /// Documents kept since the start, and word that many came.
    kept: AtomicUsize,
    surge: Notify,
}

/// Keys of a server that are not here, or end too early.
struct Missing<'a> {
    server: &'a ServerName,
    ids: BTreeSet<String>,
    /// Whether some of them are not here at all.
    is_lacking: bool,
    /// Whether any of its keys are.
    is_met: bool,
    /// How many events it has to have signed.
    events: usize,
}

impl<'a> Missing<'a> {
    /// What a server's own document says, whatever that is.
    fn document(server: &'a ServerName) -> Self {
        Self { server, ids: BTreeSet::new(), is_lacking: false, is_met: false, events: 0 }
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
enum Lack {
    /// Too much is under way here: nothing was learned of who was to be asked.
    #[error("too much is under way")]
    Busy,
    /// Anything else, in words for the log.
    #[error("{0}")]
    Other(String),
}

impl From<String> for Lack {
    fn from(why: String) -> Self {
        Self::Other(why)
    }
}

impl From<Error> for Lack {
    fn from(error: Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<LinkError> for Lack {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Busy => Self::Busy,
            other => Self::Other(other.to_string()),
        }
    }
}

impl KeyRing {
    pub(crate) fn new(
        store: Store,
        (link, backoff): (Link, Backoff),
        (allowed, pins): (AllowList, Pins),
        config: &Config,
    ) -> Self {
        let inner = Inner {
            world: link.world.clone(),
            store,
            link,
            backoff,
            allowed,
            notaries: config.notaries.clone(),
            timeout: config.timeout(),
            weak: weak_keys(),
            pins,
            under_way: Mutex::default(),
            pauses: Cache::new(20_000),
            for_events: Semaphore::new(FOR_EVENTS),
            for_requests: Semaphore::new(FOR_REQUESTS),
            for_strangers: Semaphore::new(FOR_REQUESTS),
            kept: AtomicUsize::default(),
            surge: Notify::new(),
        };
        Self(Arc::new(inner))
    }

    /// Keys that are refused whoever shows them.
    pub fn weak(&self) -> &WeakKeys {
        &self.0.weak
    }

    /// The key with which `server` may sign requests now, as far as it is here.
    pub(crate) async fn at_hand(&self, server: &ServerName, id: &str) -> Option<[u8; 32]> {
        let key = self.known(server, id).await.ok()??;
        let usable = !key.old && key.valid_until >= self.0.world.now();
        usable.then(|| self.sound(&key))?
    }

    /// The key with which `server` may sign requests now, fetched if it is not here.
    pub(crate) async fn for_request(&self, server: &ServerName, id: &str) -> Option<[u8; 32]> {
        if let Some(key) = self.at_hand(server, id).await {
            return Some(key);
        }
        // Of the keys with which it signs now its own document says all.
        self.fetch(Missing::document(server), Purpose::Requests).await;
        self.at_hand(server, id).await
    }

    /// The keys among `wanted` (key ids by server) that are known or could be fetched, as the events are waited for. One that is
    /// known to end before the last of its server's events was made is fetched again first, and given as it is then.
    pub(crate) async fn look_for(&self, wanted: &KeysWanted, haste: Haste) -> Known {
        let (at_once, limit) = match haste {
            Haste::Told => (ASKED_AT_ONCE, ASKED_FOR),
            Haste::Join => (FOR_EVENTS, ASKED_FOR_JOIN),
        };
        let mut missing = self.missing(wanted).await;
        // Those that were met before come first, as others may be made up, then those without whose keys most would be missing.
        missing.sort_by_key(|missing| (!missing.is_met, Reverse(missing.events)));
        let servers = missing.len();
        missing.truncate(MOST_ASKED);
        let turns = Semaphore::new(at_once);
        let asked = join_all(missing.into_iter().map(async |missing| {
            let _turn = turns.acquire().await;
            self.fetch(missing, Purpose::Events).await;
        }));
        let in_time = self.0.world.timeout(limit, asked).await.is_some();
        if !in_time || servers > MOST_ASKED {
            tracing::info!(servers, "too many servers were to be asked for their keys: not all were");
        }
        let mut found = Known::new();
        for (server, WantedKeys { ids, .. }) in wanted {
            for id in ids {
                let Ok(Some(key)) = self.known(server, id).await else { continue };
                let Some(public) = self.sound(&key) else { continue };
                let known = KnownKey { public, until: time(key.valid_until) };
                found.entry(server.clone()).or_default().insert(id.clone(), known);
            }
        }
        found
    }

    /// The keys among `wanted` that are to be asked for.
    async fn missing<'a>(&self, wanted: &'a KeysWanted) -> Vec<Missing<'a>> {
        let latest = self.0.world.now() + AHEAD;
        let all: Vec<_> = wanted.iter().collect();
        let mut missing = Vec::new();
        for some in all.chunks(ASKED_AT_ONCE) {
            let looked_up = join_all(some.iter().copied().map(async |(server, keys)| {
                let at = keys.at.min(latest);
                let mut missing = Missing { events: keys.events, ..Missing::document(server) };
                for id in &keys.ids {
                    let known = self.known(server, id).await.ok().flatten();
                    missing.is_lacking |= known.is_none();
                    missing.is_met |= known.is_some();
                    if !known.is_some_and(|key| key.old || key.valid_until >= at) {
                        missing.ids.insert(id.clone());
                    }
                }
                missing
            }));
            for one in looked_up.await.into_iter().filter(|one| !one.ids.is_empty()) {
                if self.would_fetch(one.server, Purpose::Events, one.is_lacking) {
                    missing.push(one);
                }
            }
        }
        missing
    }

    /// The document of `server`, fetched again unless that was done just now.
    pub(crate) async fn document(&self, server: &ServerName) -> Option<KeyDocument> {
        self.fetch(Missing::document(server), Purpose::Requests).await;
        self.kept_document(server).await
    }

    /// Whether it would be.
    pub(crate) fn would_ask(&self, server: &ServerName) -> bool {
        self.would_fetch(server, Purpose::Requests, false)
    }

    /// The document that `server` published when its keys were fetched last.
    pub(crate) async fn kept_document(&self, server: &ServerName) -> Option<KeyDocument> {
        self.kept_documents(&[server.to_owned()]).await.pop()
    }

    /// The same of several servers, without those of which there is none.
    pub(crate) async fn kept_documents(&self, servers: &[OwnedServerName]) -> Vec<KeyDocument> {
        let kept = self.0.store.read().get_many::<KeyDocuments>(servers).await.unwrap_or_default();
        kept.into_iter().flatten().map(|Json(document)| document).collect()
    }

    async fn known(&self, server: &ServerName, id: &str) -> Result<Option<ServerKey>, Error> {
        if let Some(mut pinned) = self.0.pins.of(server) {
            return Ok(pinned.remove(id));
        }
        let key = self.0.store.read().get::<ServerKeys>(&(server.to_owned(), id.to_owned())).await?;
        Ok(key.map(|Json(key)| key))
    }

    fn sound(&self, key: &ServerKey) -> Option<[u8; 32]> {
        public_key(&key.key).filter(|key| !self.0.weak.contains(key))
    }

    /// Asks the server, then notaries, until all that is wanted was found; says whether everybody was asked.
    async fn fetch_anywhere(&self, server: &ServerName, wanted: &Wanted) -> Result<bool, Lack> {
        let mut found: Option<BTreeSet<String>> = None;
        // What a server signed that is not talked with, or no more, still stands in rooms: notaries may know its keys.
        let mut error = "it is not talked with".to_owned();
        let (mut is_busy, mut has_failed) = (false, false);
        if self.0.allowed.permits(server) {
            match self.in_time(self.fetch_direct(server)).await {
                Ok(document) => {
                    found = Some(document.ids().collect());
                    self.keep(&document, Source::Itself).await?;
                }
                Err(lack) => {
                    is_busy = matches!(lack, Lack::Busy);
                    (has_failed, error) = (!is_busy, lack.to_string());
                }
            }
        }
        let permitted = |notary: &&OwnedServerName| *notary != server && self.0.allowed.permits(notary);
        for notary in self.0.notaries.iter().filter(permitted) {
            // A server that was set up anew does not know its earlier keys, and they stand in rooms as well.
            if found.as_ref().is_some_and(|found| wanted.lock().is_subset(found)) {
                return Ok(false);
            }
            match self.in_time(self.fetch_from(notary, server)).await {
                Ok(documents) => {
                    for document in documents {
                        found.get_or_insert_default().extend(document.ids());
                        self.keep(&document, Source::Notary).await?;
                    }
                }
                Err(lack) => {
                    is_busy |= matches!(lack, Lack::Busy);
                    error = format!("{error}; {notary}: {lack}");
                }
            }
        }
        match found {
            Some(_) => Ok(!is_busy),
            None if is_busy && !has_failed => Err(Lack::Busy),
            None => Err(Lack::Other(error)),
        }
    }

    /// What is found out within [`ANSWERED_WITHIN`].
    async fn in_time<T>(&self, asked: impl Future<Output = Result<T, Lack>>) -> Result<T, Lack> {
        let found = self.0.world.timeout(ANSWERED_WITHIN, asked).await;
        found.unwrap_or_else(|| Err(Lack::Other("it takes too long".to_owned())))
    }

    fn limits(&self, max_bytes: u64) -> Limits {
        Limits { max_bytes, deadline: self.0.timeout }
    }

    async fn fetch_direct(&self, server: &ServerName) -> Result<Document, Lack> {
        let http =
            http::Request::get("/_matrix/key/v2/server").body(Bytes::new()).map_err(|e| e.to_string())?;
        let limits = self.limits(MAX_DOCUMENT as u64);
        let answer = self.0.link.exchange(server, http, limits).await?;
        if answer.status() != http::StatusCode::OK {
            return Err(Lack::Other(format!("status {}", answer.status())));
        }
        Document::read(answer.body(), server, self.0.world.now(), &self.0.weak).map_err(Lack::Other)
    }

    /// The keys for events of the time `at` (milliseconds since the Unix epoch).
    #[cfg(test)]
    pub(crate) async fn for_events(&self, wanted: &KeysWanted, at: u64) -> Known {
        let dated = |(server, keys): (&OwnedServerName, &WantedKeys)| {
            (server.clone(), WantedKeys { at, ..keys.clone() })
        };
        self.look_for(&wanted.iter().map(dated).collect(), Haste::Told).await
    }

    /// Which of these servers' keys are known without asking anybody.
    #[cfg(test)]
    pub(crate) async fn ids(&self, server: &ServerName) -> BTreeSet<String> {
        let forward = chappe_store::Direction::Forward;
        let rows = self.0.store.read().scan::<ServerKeys>(&server.to_owned(), forward, 100).await;
        rows.unwrap_or_default().into_iter().map(|((_, id), _)| id).collect()
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyRing")
    }
}
