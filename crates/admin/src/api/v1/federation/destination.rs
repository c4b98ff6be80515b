//! `GET /v1/federation/destinations/{destination}`: how sending to one server goes.

use axum::{Json, extract::State};
use chappe_federation::Destination;
use chappe_web::Arguments;
use ruma::{OwnedServerName, ServerName};
use serde_json::Value;

use super::shown;
use crate::api::{Api, Result};

pub(super) async fn handler(
    State(api): State<Api>,
    Arguments(server): Arguments<OwnedServerName>,
) -> Result<Json<Value>> {
    Ok(Json(shown(&known(&api, &server).await?, api.world.now())))
}

/// A server that this one has to do with.
pub(super) async fn known(api: &Api, server: &ServerName) -> Result<Destination> {
    let found = super::known(api).await?.into_iter().find(|one| one.server == server);
    Ok(found.ok_or_else(|| chappe_web::Error::not_found("Unknown destination"))?)
}
