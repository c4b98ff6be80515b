//! What notaries say of other servers' keys.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use chappe_rules::check::{KeyRing as Known, ServerKey as KnownKey, check_json, key_ids};
use chappe_store::{
    Direction, Error, Json,
    server_keys::{ServerKey, ServerKeys},
};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, ServerName};
use serde_json::json;

use super::{KeyRing, Lack, Source, fetches::PAUSE};
use crate::keys::{Document, time};

/// The answer of a notary is at most this long, in bytes.
const MAX_ANSWER: u64 = 256 * 1024;
/// Documents of a notary's answer that are looked at.
const MAX_DOCUMENTS: usize = 20;

impl KeyRing {
    /// Asks a notary, which is trusted as far as its own signature, learned from itself, goes; the newest document comes first.
    pub(super) async fn fetch_from(
        &self,
        notary: &ServerName,
        server: &ServerName,
    ) -> Result<Vec<Document>, Lack> {
        let shown = self.query(notary, server).await?;
        let own = self.notary_keys(notary, &shown).await?;
        let now = self.0.world.now();
        let trusted = |document: CanonicalJsonObject| {
            check_json(&document, notary, &own, time(now), &self.0.weak).ok()?;
            Document::from_object(document, server, now, &self.0.weak).ok()
        };
        let mut found: Vec<Document> = shown.into_iter().filter_map(trusted).collect();
        found.sort_by_key(|document| Reverse(document.valid_until));
        if found.is_empty() {
            return Err(Lack::Other("no document in the answer can be trusted".to_owned()));
        }
        Ok(found)
    }

    /// What a notary shows, not looked at yet.
    async fn query(
        &self,
        notary: &ServerName,
        server: &ServerName,
    ) -> Result<Vec<CanonicalJsonObject>, Lack> {
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
        let object = |document: CanonicalJsonValue| match document {
            CanonicalJsonValue::Object(document) => Some(document),
            _ => None,
        };
        Ok(documents.into_iter().take(MAX_DOCUMENTS).filter_map(object).collect())
    }

    /// The keys of a notary to check what it has signed with; asked for anew where none of them is here, as it may have another by
    /// now.
    async fn notary_keys(&self, notary: &ServerName, signed: &[CanonicalJsonObject]) -> Result<Known, Lack> {
        let ids: BTreeSet<String> = signed.iter().flat_map(|document| key_ids(document, notary)).collect();
        let mut keys = self.current_keys(notary).await?;
        let is_lacking = !ids.is_empty() && ids.iter().all(|id| !keys.contains_key(id));
        if is_lacking && self.0.pins.of(notary).is_none() && !self.was_fetched_just_now(notary).await {
            self.keep(&self.fetch_direct(notary).await?, Source::Itself).await?;
            keys = self.current_keys(notary).await?;
        }
        Ok(Known::from([(notary.to_owned(), keys)]))
    }

    async fn was_fetched_just_now(&self, server: &ServerName) -> bool {
        let (kept, now) = (self.kept_document(server).await, self.0.world.now());
        kept.is_some_and(|kept| Duration::from_millis(now.abs_diff(kept.fetched_at)) < PAUSE)
    }

    /// The keys with which a server signs now, as far as they are here.
    async fn current_keys(&self, server: &ServerName) -> Result<BTreeMap<String, KnownKey>, Error> {
        let now = self.0.world.now();
        let keys: Vec<(String, ServerKey)> = match self.0.pins.of(server) {
            Some(pinned) => pinned.into_iter().collect(),
            None => {
                let reader = self.0.store.read();
                let rows = reader.scan::<ServerKeys>(&server.to_owned(), Direction::Forward, 100).await?;
                rows.into_iter().map(|((_, id), Json(key))| (id, key)).collect()
            }
        };
        let current = |(id, key): (String, ServerKey)| {
            let known = KnownKey { public: self.sound(&key)?, until: time(key.valid_until) };
            (!key.old && key.valid_until > now).then_some((id, known))
        };
        Ok(keys.into_iter().filter_map(current).collect())
    }
}
