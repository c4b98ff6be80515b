//! `GET /v1/server_version`: what runs here.

use axum::Json;
use chappe_web::Routes;
use serde_json::json;

use super::Place as _;
use crate::api::Api;

pub(super) fn routes() -> Routes<Api> {
    let version = concat!("Chappe ", env!("CARGO_PKG_VERSION"));
    let handler = async move || Json(json!({ "server_version": version }));
    Routes::new().get("/_synapse/admin/v1/server_version", handler)
}
