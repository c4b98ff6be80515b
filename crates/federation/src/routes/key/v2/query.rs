//! `GET /_matrix/key/v2/query/{serverName}` and `POST /_matrix/key/v2/query`: keys of other servers, countersigned.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use chappe_web::{Error, Origin as Address, Ruma};
use futures_util::future::join_all;
use ruma::{
    CanonicalJsonObject, OwnedServerName, ServerName,
    api::federation::discovery::{
        get_remote_server_keys::v2::Request as Single, get_remote_server_keys_batch::v2::Request as Batch,
    },
};
use serde_json::{Value, json};

use crate::{Federation, keys::is_plain, refusal::Refusal};

/// Servers answered for at once.
const MOST: usize = 100;

pub(in crate::routes) async fn single(
    State(federation): State<Federation>,
    address: Address,
    Ruma(request): Ruma<Single>,
) -> Json<Value> {
    let until = request.minimum_valid_until_ts.get().into();
    let document = document(&federation, address, &request.server_name, until).await;
    Json(json!({ "server_keys": document.into_iter().collect::<Vec<_>>() }))
}

pub(in crate::routes) async fn batch(
    State(federation): State<Federation>,
    address: Address,
    Ruma(request): Ruma<Batch>,
) -> Result<Json<Value>, Refusal> {
    if request.server_keys.len() > MOST {
        return Err(Error::too_large().into());
    }
    let now = federation.network().now();
    let wanted: BTreeMap<OwnedServerName, u64> = request
        .server_keys
        .into_iter()
        .map(|(server, keys)| {
            let until = keys.values().filter_map(|key| key.minimum_valid_until_ts).max();
            (server, until.map_or(now, |until| until.get().into()))
        })
        .collect();
    let documents = wanted.iter().map(|(server, until)| document(&federation, address, server, *until));
    let documents: Vec<_> = join_all(documents).await.into_iter().flatten().collect();
    Ok(Json(json!({ "server_keys": documents })))
}

/// A server's own document with our signature added; nothing is vouched for beyond that. Who asks is nobody in
/// particular: what is not at hand is looked for a bounded number of times.
async fn document(
    federation: &Federation,
    address: Address,
    server: &ServerName,
    until: u64,
) -> Option<CanonicalJsonObject> {
    let network = federation.network();
    if server == network.server() {
        return Some(network.own_keys());
    }
    if !chappe_rules::names::is_strict(server) {
        return None;
    }
    let (keys, rate) = (network.keys(), network.config().rates.key_lookups);
    let kept = keys.kept_document(server).await;
    let suffices = kept.as_ref().is_some_and(|kept| kept.valid_until >= until);
    let may_look = suffices || network.count("key look-ups", &address.subject(), rate).is_ok();
    let kept = if may_look { keys.document(server, until).await } else { kept }?;
    let mut document = chappe_rules::json::object(kept.json.as_bytes()).ok()?;
    // Our signature goes under a key document and under nothing that could be read as something else as well.
    if !is_plain(&document) {
        return None;
    }
    network.countersign(&mut document);
    Some(document)
}
