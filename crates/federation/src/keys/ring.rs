//! The keys of other servers: kept, fetched from them or from notaries when needed, each server once at a time.

mod bounds;
mod fetches;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use bytes::Bytes;
use chappe_rooms::{KeysWanted, WantedKeys};
use chappe_rules::check::{KeyRing as Known, ServerKey as KnownKey, WeakKeys, check_json};
use chappe_store::{
    Direction, Error, Json, Store, Tx,
    server_keys::{KeyDocument, KeyDocuments, ServerKey, ServerKeys},
};
use chappe_world::{Limits, World};
use futures_util::future::join_all;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{CanonicalJsonValue, OwnedServerName, ServerName};
use serde_json::json;
use tokio::sync::{Notify, Semaphore};

use self::fetches::{Errand, FOR_EVENTS, FOR_REQUESTS, Fetch, Pause, Purpose, Wanted};
use super::{Document, Pins, document::MAX_DOCUMENT, is_plain, public_key, time, weak_keys};
use crate::{
    AllowList, Config,
    link::{Link, LinkError},
};

/// The answer of a notary is at most this long, in bytes.
const MAX_ANSWER: u64 = 256 * 1024;
/// Documents of a notary's answer that are looked at.
const MAX_DOCUMENTS: usize = 20;
/// Servers that are asked to check some events together, all of them and at the same time, and for how long: an answer may name
/// any number, and is held meanwhile. The others count as servers without keys.
const MOST_ASKED: usize = 5_000;
const ASKED_AT_ONCE: usize = FOR_EVENTS / 2;
const ASKED_FOR: Duration = Duration::from_secs(90);
/// The same for the answer to a join, for which as many are asked at the same time as for all events.
const ASKED_FOR_JOIN: Duration = Duration::from_mins(5);

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
    allowed: AllowList,
    notaries: Vec<OwnedServerName>,
    timeout: Duration,
    weak: WeakKeys,
    pins: Pins,
    under_way: Mutex<HashMap<Errand, (Fetch, Wanted)>>,
    pauses: Cache<OwnedServerName, Pause>,
    for_events: Semaphore,
    for_requests: Semaphore,
    /// Documents kept since the start, and word that many came.
    kept: AtomicUsize,
    surge: Notify,
}

/// Where a document came from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Itself,
    Notary,
}

/// Keys of a server that are not here.
struct Missing<'a> {
    server: &'a ServerName,
    ids: BTreeSet<String>,
    /// Whether others of its keys are.
    is_met: bool,
    /// How many events it has to have signed.
    events: usize,
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

impl From<LinkError> for Lack {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Busy => Self::Busy,
            other => Self::Other(other.to_string()),
        }
    }
}

impl KeyRing {
    pub(crate) fn new(store: Store, link: Link, allowed: AllowList, pins: Pins, config: &Config) -> Self {
        let inner = Inner {
            world: link.world.clone(),
            store,
            link,
            allowed,
            notaries: config.notaries.clone(),
            timeout: config.timeout(),
            weak: weak_keys(),
            pins,
            under_way: Mutex::default(),
            pauses: Cache::new(20_000),
            for_events: Semaphore::new(FOR_EVENTS),
            for_requests: Semaphore::new(FOR_REQUESTS),
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
        self.fetch(server, BTreeSet::new(), Purpose::Requests).await;
        self.at_hand(server, id).await
    }

    /// The keys among `wanted` (key ids by server) that are known or could be fetched. One that is known to end before
    /// `at` (milliseconds since the Unix epoch) is fetched again first, and given as it is then.
    pub async fn for_events(&self, wanted: &KeysWanted, at: u64) -> Known {
        self.look_for(wanted, at, Haste::Told).await
    }

    /// The same, as the events are waited for.
    pub(crate) async fn look_for(&self, wanted: &KeysWanted, at: u64, haste: Haste) -> Known {
        let (at_once, limit) = match haste {
            Haste::Told => (ASKED_AT_ONCE, ASKED_FOR),
            Haste::Join => (FOR_EVENTS, ASKED_FOR_JOIN),
        };
        let mut missing = self.missing(wanted, at).await;
        // Those that were met before come first, as others may be made up, then those without whose keys most would be missing.
        missing.sort_by_key(|missing| (!missing.is_met, Reverse(missing.events)));
        let servers = missing.len();
        missing.truncate(MOST_ASKED);
        let turns = Semaphore::new(at_once);
        let asked = join_all(missing.into_iter().map(async |Missing { server, ids, .. }| {
            let _turn = turns.acquire().await;
            self.fetch(server, ids, Purpose::Events).await;
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
    async fn missing<'a>(&self, wanted: &'a KeysWanted, at: u64) -> Vec<Missing<'a>> {
        let all: Vec<_> = wanted.iter().collect();
        let mut missing = Vec::new();
        for some in all.chunks(ASKED_AT_ONCE) {
            let looked_up = join_all(some.iter().copied().map(async |(server, keys)| {
                let (ids, events) = (BTreeSet::new(), keys.events);
                let mut missing = Missing { server, ids, is_met: false, events };
                for id in &keys.ids {
                    let known = self.known(server, id).await.ok().flatten();
                    missing.is_met |= known.is_some();
                    if !known.is_some_and(|key| key.old || key.valid_until >= at) {
                        missing.ids.insert(id.clone());
                    }
                }
                missing
            }));
            let lacking = looked_up.await.into_iter().filter(|missing| !missing.ids.is_empty());
            missing.extend(lacking.filter(|missing| self.would_fetch(missing.server, &missing.ids)));
        }
        missing
    }

    /// All keys of `server` that are known, its document fetched again if it ends before `valid_until`.
    pub(crate) async fn document(&self, server: &ServerName, valid_until: u64) -> Option<KeyDocument> {
        let kept = self.kept_document(server).await;
        if kept.as_ref().is_some_and(|kept| kept.valid_until >= valid_until) {
            return kept;
        }
        self.fetch(server, BTreeSet::new(), Purpose::Requests).await;
        self.kept_document(server).await
    }

    /// The document that `server` published when its keys were fetched last.
    pub(crate) async fn kept_document(&self, server: &ServerName) -> Option<KeyDocument> {
        let kept = self.0.store.read().get::<KeyDocuments>(&server.to_owned()).await.ok()?;
        kept.map(|Json(document)| document)
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
            match self.fetch_direct(server).await {
                Ok(document) => {
                    found = Some(document.ids().collect());
                    self.keep(document, Source::Itself).await?;
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
            match self.fetch_from(notary, server).await {
                Ok(documents) => {
                    for document in documents {
                        found.get_or_insert_default().extend(document.ids());
                        self.keep(document, Source::Notary).await?;
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

    /// Asks a notary, which is trusted as far as its own signature, learned from itself, goes; the newest document comes first.
    async fn fetch_from(&self, notary: &ServerName, server: &ServerName) -> Result<Vec<Document>, Lack> {
        let now = self.0.world.now();
        let own = self.notary_keys(notary).await?;
        let body = json!({ "server_keys": { server.as_str(): {} } }).to_string();
        let http = http::Request::post("/_matrix/key/v2/query")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(body))
            .map_err(|error| error.to_string())?;
        let limits = self.limits(MAX_ANSWER);
        let answer = self.0.link.exchange(notary, http, limits).await?;
        let mut answer = chappe_rules::json::object(answer.body()).map_err(|error| error.to_string())?;
        let Some(CanonicalJsonValue::Array(documents)) = answer.remove("server_keys") else {
            return Err(Lack::Other("there are no server_keys in the answer".to_owned()));
        };
        let trusted = |document: CanonicalJsonValue| {
            let CanonicalJsonValue::Object(document) = document else { return None };
            check_json(&document, notary, &own, time(now), &self.0.weak).ok()?;
            Document::from_object(document, server, now, &self.0.weak).ok()
        };
        let mut found: Vec<Document> =
            documents.into_iter().take(MAX_DOCUMENTS).filter_map(trusted).collect();
        found.sort_by_key(|document| Reverse(document.valid_until));
        if found.is_empty() {
            return Err(Lack::Other("no document in the answer can be trusted".to_owned()));
        }
        Ok(found)
    }

    async fn notary_keys(&self, notary: &ServerName) -> Result<Known, Lack> {
        let now = self.0.world.now();
        if let Some(pinned) = self.0.pins.of(notary) {
            let good = |(id, key): (String, ServerKey)| {
                let known = KnownKey { public: self.sound(&key)?, until: time(key.valid_until) };
                (!key.old).then_some((id, known))
            };
            return Ok(Known::from([(notary.to_owned(), pinned.into_iter().filter_map(good).collect())]));
        }
        let current = |rows: Vec<((OwnedServerName, String), Json<ServerKey>)>| {
            let good = |((_, id), Json(key)): ((_, String), Json<ServerKey>)| {
                let known = KnownKey { public: self.sound(&key)?, until: time(key.valid_until) };
                (!key.old && key.valid_until > now).then_some((id, known))
            };
            rows.into_iter().filter_map(good).collect::<BTreeMap<String, KnownKey>>()
        };
        let rows = async || {
            let reader = self.0.store.read();
            reader.scan::<ServerKeys>(&notary.to_owned(), Direction::Forward, 100).await
        };
        let mut keys = current(rows().await.map_err(|error| error.to_string())?);
        if keys.is_empty() {
            self.keep(self.fetch_direct(notary).await?, Source::Itself).await?;
            keys = current(rows().await.map_err(|error| error.to_string())?);
        }
        Ok(Known::from([(notary.to_owned(), keys)]))
    }

    /// Takes in what a document says. What a server says itself counts. Of a notary's document that is outdated only unknown keys
    /// are taken, as old ones.
    async fn keep(&self, document: Document, source: Source) -> Result<(), String> {
        let now = self.0.world.now();
        let outdated = source == Source::Notary
            && self.is_outdated(&document).await.map_err(|error| error.to_string())?;
        let mut tx = Tx::new();
        for (id, mut key) in document.keys {
            let place = (document.server.clone(), id);
            if outdated {
                let known = self.0.store.read().get::<ServerKeys>(&place).await;
                if known.map_err(|error| error.to_string())?.is_some() {
                    continue;
                }
                key = ServerKey { valid_until: key.valid_until.min(now), old: true, ..key };
            }
            tx.put::<ServerKeys>(&place, &Json(key));
        }
        if !outdated {
            // The text is for those who ask this server as a notary: others get nothing under which it does not sign.
            let plain = is_plain(&document.object);
            let json = if plain { super::text_of(&document.object) } else { String::new() };
            let kept = KeyDocument { fetched_at: now, valid_until: document.valid_until, json };
            tx.put::<KeyDocuments>(&document.server, &Json(kept));
        }
        self.0.store.commit(tx).await.map_err(|error| error.to_string())?;
        self.note_kept();
        Ok(())
    }

    /// Whether more is known of the server: by a newer document, or because a key that signed this one is old by now.
    async fn is_outdated(&self, document: &Document) -> Result<bool, Error> {
        let kept = self.kept_document(&document.server).await;
        if kept.is_some_and(|kept| kept.valid_until > document.valid_until) {
            return Ok(true);
        }
        let reader = self.0.store.read();
        for (id, _) in document.keys.iter().filter(|(_, key)| !key.old) {
            let known = reader.get::<ServerKeys>(&(document.server.clone(), id.clone())).await?;
            if known.is_some_and(|Json(known)| known.old) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Which of these servers' keys are known without asking anybody.
    #[cfg(test)]
    pub(crate) async fn ids(&self, server: &ServerName) -> BTreeSet<String> {
        let rows = self.0.store.read().scan::<ServerKeys>(&server.to_owned(), Direction::Forward, 100).await;
        rows.unwrap_or_default().into_iter().map(|((_, id), _)| id).collect()
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyRing")
    }
}
