//! `GET /_matrix/key/v2/query/{serverName}` and `POST /_matrix/key/v2/query`: keys of other servers, countersigned.

use std::{collections::BTreeMap, time::Duration};

use axum::{Json, extract::State};
use chappe_store::server_keys::KeyDocument;
use chappe_web::{Origin as Address, Ruma};
use futures_util::future::join_all;
use ruma::{
    CanonicalJsonObject, OwnedServerName, OwnedServerSigningKeyId,
    api::federation::discovery::{
        get_remote_server_keys::v2::Request as Single,
        get_remote_server_keys_batch::v2::{QueryCriteria, Request as Batch},
    },
};
use serde_json::{Value, json};

use crate::{
    Federation, Network,
    keys::{is_plain, names_key},
};

/// Servers of one question that are asked for what is not at hand, at most; and others, of which is told what is.
const ASKED: usize = 100;
const OTHERS: usize = 2_000;
/// Of the documents of those others no more are told than these bytes.
const BYTES: usize = 1 << 20;
/// For how long a newer document is waited for where the one that is here will do.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is wanted of a server.
struct Wanted {
    server: OwnedServerName,
    /// The ids of keys that its document is to name.
    ids: Vec<String>,
    /// Until when that is to be good (milliseconds since the Unix epoch).
    until: u64,
}

impl Wanted {
    fn new(
        server: OwnedServerName,
        keys: BTreeMap<OwnedServerSigningKeyId, QueryCriteria>,
        now: u64,
    ) -> Self {
        let until = keys.values().filter_map(|key| key.minimum_valid_until_ts).max();
        let until = until.map_or(now, |until| until.get().into());
        Self { server, ids: keys.into_keys().map(|id| id.to_string()).collect(), until }
    }

    fn is_met_by(&self, kept: &KeyDocument) -> bool {
        let names_all = || {
            let document = chappe_rules::json::object(kept.json.as_bytes()).unwrap_or_default();
            self.ids.iter().all(|id| names_key(&document, id))
        };
        kept.valid_until >= self.until && (self.ids.is_empty() || names_all())
    }
}

/// Whether more than half of the time is over for which a document was good when it came.
///
/// Specification: server-server API, "Publishing keys": notaries "should cache a response for half of its lifetime".
fn is_ageing(kept: &KeyDocument, now: u64) -> bool {
    let half = kept.valid_until.saturating_sub(kept.fetched_at) / 2;
    now > kept.fetched_at.saturating_add(half)
}

pub(in crate::routes) async fn single(
    State(federation): State<Federation>,
    address: Address,
    Ruma(request): Ruma<Single>,
) -> Json<Value> {
    let until = request.minimum_valid_until_ts.get().into();
    let wanted = Wanted { server: request.server_name, ids: Vec::new(), until };
    let document = document(federation.network(), address, &wanted).await;
    Json(json!({ "server_keys": document.into_iter().collect::<Vec<_>>() }))
}

pub(in crate::routes) async fn batch(
    State(federation): State<Federation>,
    address: Address,
    Ruma(request): Ruma<Batch>,
) -> Json<Value> {
    let network = federation.network();
    let now = network.now();
    let wanted = request.server_keys.into_iter().map(|(server, keys)| Wanted::new(server, keys, now));
    let mut wanted: Vec<Wanted> = wanted.collect();
    // It has its own keys at hand, and not among what is kept.
    wanted.sort_by_key(|wanted| *wanted.server != *network.server());
    let (first, others) = wanted.split_at(wanted.len().min(ASKED));
    let told = join_all(first.iter().map(|wanted| document(network, address, wanted))).await;
    let mut documents: Vec<_> = told.into_iter().flatten().collect();
    documents.extend(at_hand(network, address, others).await);
    Json(json!({ "server_keys": documents }))
}

/// A server's own document with our signature added; nothing is vouched for beyond that. Who asks is nobody in
/// particular: what is not at hand is looked for a bounded number of times.
async fn document(network: &Network, address: Address, wanted: &Wanted) -> Option<CanonicalJsonObject> {
    let server = &*wanted.server;
    if server == network.server() {
        return Some(network.own_keys());
    }
    if !chappe_rules::names::is_strict(server) {
        return None;
    }
    let (keys, rate) = (network.keys(), network.config().rates.key_lookups);
    let (kept, now) = (keys.kept_document(server).await, network.now());
    let will_do = kept.as_ref().is_some_and(|kept| wanted.is_met_by(kept));
    let is_fresh = will_do && kept.as_ref().is_some_and(|kept| !is_ageing(kept, now));
    let may_look = !is_fresh
        && keys.would_ask(server)
        && network.count("key look-ups", &address.subject(), rate).is_ok();
    let told = if may_look && will_do {
        network.world().timeout(PATIENCE, keys.document(server)).await.unwrap_or(kept)
    } else if may_look {
        keys.document(server).await
    } else {
        kept
    };
    countersigned(network, &told?)
}

/// What is at hand of other servers' documents, as far as that is not too much: each of them is signed anew.
async fn at_hand(network: &Network, address: Address, wanted: &[Wanted]) -> Vec<CanonicalJsonObject> {
    let (subject, rate) = (address.subject(), network.config().rates.key_lookups);
    let servers = wanted.iter().take(OTHERS).map(|wanted| wanted.server.clone());
    let servers: Vec<_> = servers.filter(|server| chappe_rules::names::is_strict(server)).collect();
    let (mut documents, mut bytes) = (Vec::new(), 0);
    for some in servers.chunks(ASKED) {
        if network.count("keys at hand", &subject, rate).is_err() {
            break;
        }
        for kept in network.keys().kept_documents(some).await {
            bytes += kept.json.len();
            if bytes > BYTES {
                return documents;
            }
            documents.extend(countersigned(network, &kept));
        }
    }
    documents
}

fn countersigned(network: &Network, kept: &KeyDocument) -> Option<CanonicalJsonObject> {
    let mut document = chappe_rules::json::object(kept.json.as_bytes()).ok()?;
    // Our signature goes under a key document and under nothing that could be read as something else as well.
    if !is_plain(&document) {
        return None;
    }
    network.countersign(&mut document);
    Some(document)
}
