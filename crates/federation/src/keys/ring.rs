//! The keys of other servers: kept, fetched from them or from a notary when needed, each server once at a time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use chappe_rooms::KeysWanted;
use chappe_rules::check::{KeyRing as Known, ServerKey as KnownKey, WeakKeys, check_json};
use chappe_store::{
    Direction, Error, Json, Store, Tx,
    server_keys::{KeyDocument, KeyDocuments, ServerKey, ServerKeys},
};
use chappe_world::{Limits, World};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, join_all},
};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{CanonicalJsonValue, OwnedServerName, ServerName};
use serde_json::json;
use tokio::sync::Semaphore;

use super::{Document, Pins, public_key, time, weak_keys};
use crate::{AllowList, Config, link::Link};

/// A key document and a notary's answer are at most this long, in bytes.
const MAX_BYTES: u64 = 256 * 1024;
/// After fetching, the same server is left alone for so long, in milliseconds; longer with each failure.
const PAUSE: u64 = 30_000;
/// Servers whose keys are fetched at the same time.
const FETCHES: usize = 256;
/// Longest pause, in milliseconds.
const LONGEST_PAUSE: u64 = 3_600_000;

type Fetch = Shared<BoxFuture<'static, ()>>;

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
    under_way: Mutex<HashMap<OwnedServerName, Fetch>>,
    pauses: Cache<OwnedServerName, Pause>,
    places: Semaphore,
}

#[derive(Clone, Copy)]
struct Pause {
    until: u64,
    failures: u32,
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
            places: Semaphore::new(FETCHES),
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
        self.fetch(server).await;
        self.at_hand(server, id).await
    }

    /// The keys among `wanted` (key ids by server) that are known or could be fetched. One that is known to end before
    /// `at` (milliseconds since the Unix epoch) is fetched again first, and given as it is then.
    pub async fn for_events(&self, wanted: &KeysWanted, at: u64) -> Known {
        let missing = join_all(wanted.iter().map(async |(server, ids)| {
            let known = join_all(ids.iter().map(|id| self.known(server, id))).await;
            let lacks = |known: &Result<Option<ServerKey>, Error>| match known {
                Ok(Some(key)) => !key.old && key.valid_until < at,
                _ => true,
            };
            known.iter().any(lacks).then_some(server)
        }));
        let missing: Vec<&OwnedServerName> = missing.await.into_iter().flatten().collect();
        join_all(missing.into_iter().map(|server| self.fetch(server))).await;
        let mut found = Known::new();
        for (server, ids) in wanted {
            for id in ids {
                let Ok(Some(key)) = self.known(server, id).await else { continue };
                let Some(public) = self.sound(&key) else { continue };
                let known = KnownKey { public, until: time(key.valid_until) };
                found.entry(server.clone()).or_default().insert(id.clone(), known);
            }
        }
        found
    }

    /// All keys of `server` that are known, its document fetched again if it ends before `valid_until`.
    pub(crate) async fn document(&self, server: &ServerName, valid_until: u64) -> Option<KeyDocument> {
        let kept = self.kept_document(server).await;
        if kept.as_ref().is_some_and(|kept| kept.valid_until >= valid_until) {
            return kept;
        }
        self.fetch(server).await;
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

    /// Fetches the keys of a server unless that was done just now; whoever asks meanwhile waits for the same fetch.
    async fn fetch(&self, server: &ServerName) {
        let nobody_to_ask = self.0.notaries.is_empty() && !self.0.allowed.permits(server);
        if nobody_to_ask || self.0.pins.of(server).is_some() {
            return;
        }
        let now = self.0.world.now();
        if self.0.pauses.get(server).is_some_and(|pause| pause.until > now) {
            return;
        }
        let fetch = {
            let mut under_way = self.0.under_way.lock();
            under_way
                .entry(server.to_owned())
                .or_insert_with(|| self.clone().begin(server.to_owned()))
                .clone()
        };
        fetch.await;
    }

    fn begin(self, server: OwnedServerName) -> Fetch {
        let fetch = async move {
            let _place = self.0.places.acquire().await;
            let result = self.fetch_anywhere(&server).await;
            if let Err(error) = &result {
                tracing::info!(%server, error, "no keys");
            }
            let failures = match result {
                Ok(()) => 0,
                Err(_) => self.0.pauses.get(&server).map_or(0, |pause| pause.failures) + 1,
            };
            let pause = PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
            self.0.pauses.insert(server.clone(), Pause { until: self.0.world.now() + pause, failures });
            self.0.under_way.lock().remove(&server);
        };
        fetch.boxed().shared()
    }

    async fn fetch_anywhere(&self, server: &ServerName) -> Result<(), String> {
        // What a server signed that is not talked with, or no more, still stands in rooms: notaries may know its keys.
        let mut error = "it is not talked with".to_owned();
        if self.0.allowed.permits(server) {
            match self.fetch_direct(server).await {
                Ok(document) => return self.keep(document).await,
                Err(other) => error = other,
            }
        }
        let permitted = |notary: &&OwnedServerName| *notary != server && self.0.allowed.permits(notary);
        for notary in self.0.notaries.iter().filter(permitted) {
            match self.fetch_from(notary, server).await {
                Ok(document) => return self.keep(document).await,
                Err(other) => error = format!("{error}; {notary}: {other}"),
            }
        }
        Err(error)
    }

    fn limits(&self) -> Limits {
        Limits { max_bytes: MAX_BYTES, deadline: self.0.timeout }
    }

    async fn fetch_direct(&self, server: &ServerName) -> Result<Document, String> {
        let http =
            http::Request::get("/_matrix/key/v2/server").body(Bytes::new()).map_err(|e| e.to_string())?;
        let answer = self.0.link.exchange(server, http, self.limits()).await.map_err(|e| e.to_string())?;
        if answer.status() != http::StatusCode::OK {
            return Err(format!("status {}", answer.status()));
        }
        Document::read(answer.body(), server, self.0.world.now(), &self.0.weak)
    }

    /// Asks a notary, which is trusted as far as its own signature, learned from itself, goes.
    async fn fetch_from(&self, notary: &ServerName, server: &ServerName) -> Result<Document, String> {
        let now = self.0.world.now();
        let own = self.notary_keys(notary).await?;
        let body = json!({ "server_keys": { server.as_str(): {} } }).to_string();
        let http = http::Request::post("/_matrix/key/v2/query")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(body))
            .map_err(|error| error.to_string())?;
        let answer = self.0.link.exchange(notary, http, self.limits()).await.map_err(|e| e.to_string())?;
        let mut answer = chappe_rules::json::object(answer.body()).map_err(|error| error.to_string())?;
        let Some(CanonicalJsonValue::Array(documents)) = answer.remove("server_keys") else {
            return Err("there are no server_keys in the answer".to_owned());
        };
        for document in documents {
            let CanonicalJsonValue::Object(document) = document else { continue };
            if check_json(&document, notary, &own, time(now), &self.0.weak).is_ok()
                && let Ok(document) = Document::from_object(document, server, now, &self.0.weak)
            {
                return Ok(document);
            }
        }
        Err("no document in the answer can be trusted".to_owned())
    }

    async fn notary_keys(&self, notary: &ServerName) -> Result<Known, String> {
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
            self.keep(self.fetch_direct(notary).await?).await?;
            keys = current(rows().await.map_err(|error| error.to_string())?);
        }
        Ok(Known::from([(notary.to_owned(), keys)]))
    }

    async fn keep(&self, document: Document) -> Result<(), String> {
        let mut tx = Tx::new();
        for (id, key) in document.keys {
            tx.put::<ServerKeys>(&(document.server.clone(), id), &Json(key));
        }
        let json = super::text_of(&document.object);
        let kept = KeyDocument { fetched_at: self.0.world.now(), valid_until: document.valid_until, json };
        tx.put::<KeyDocuments>(&document.server, &Json(kept));
        self.0.store.commit(tx).await.map(drop).map_err(|error| error.to_string())
    }

    /// Which of these servers' keys are known without asking anybody.
    #[cfg(test)]
    pub(crate) async fn ids(&self, server: &ServerName) -> std::collections::BTreeSet<String> {
        let rows = self.0.store.read().scan::<ServerKeys>(&server.to_owned(), Direction::Forward, 100).await;
        rows.unwrap_or_default().into_iter().map(|((_, id), _)| id).collect()
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyRing")
    }
}
