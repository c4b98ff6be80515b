//! `POST /v1/media/delete` (also `/v1/media/{serverName}/delete`) and `POST /v1/purge_media_cache`: delete what nobody has
//! asked for since some time.

use std::collections::HashSet;

use axum::{Json, extract::State};
use chappe_media::Deletion;
use chappe_web::{Arguments, Parameters};
use ruma::OwnedServerName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::deleted;
use crate::{
    api::{Api, Result},
    pictures,
};

/// Earlier times are seconds taken for milliseconds: all media would be older than that, or none.
const EARLIEST_MS: u64 = 30_000_000_000;

#[derive(Deserialize)]
pub(super) struct Query {
    before_ts: u64,
    #[serde(default)]
    size_gt: u64,
    keep_profiles: Option<bool>,
}

pub(super) async fn own(State(api): State<Api>, Parameters(query): Parameters<Query>) -> Result<Json<Value>> {
    check(query.before_ts)?;
    let kept = if query.keep_profiles.unwrap_or(true) {
        let found = pictures(&api.accounts, &api.rooms).await;
        found.map_err(|error| chappe_web::Error::internal(&error))?
    } else {
        HashSet::new()
    };
    let which = Deletion { before: query.before_ts, larger_than: query.size_gt, kept };
    Ok(Json(deleted(&api.media.delete_own(&which).await?)))
}

/// The older form names the server, which can only be this one.
pub(super) async fn own_by_name(
    state: State<Api>,
    Arguments(server): Arguments<OwnedServerName>,
    query: Parameters<Query>,
) -> Result<Json<Value>> {
    if server != state.accounts.server_name() {
        return Err(chappe_web::Error::invalid_param("only media of this server can be deleted").into());
    }
    own(state, query).await
}

#[derive(Deserialize)]
pub(super) struct Before {
    before_ts: u64,
}

pub(super) async fn remote(
    State(api): State<Api>,
    Parameters(query): Parameters<Before>,
) -> Result<Json<Value>> {
    check(query.before_ts)?;
    Ok(Json(json!({ "deleted": api.media.purge_remote(query.before_ts).await? })))
}

fn check(before: u64) -> Result<(), chappe_web::Error> {
    if before < EARLIEST_MS {
        return Err(chappe_web::Error::invalid_param("before_ts is in milliseconds since 1970"));
    }
    Ok(())
}
