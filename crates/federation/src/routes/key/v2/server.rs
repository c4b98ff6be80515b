//! `GET /_matrix/key/v2/server`: the signing keys of this server.

use axum::{Json, extract::State};
use ruma::CanonicalJsonObject;

use crate::Federation;

pub(in crate::routes) async fn handler(State(federation): State<Federation>) -> Json<CanonicalJsonObject> {
    Json(federation.network().own_keys())
}
