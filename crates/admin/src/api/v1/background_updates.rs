//! `GET /v1/background_updates/status` and `/enabled`: the format of the disk is brought up to date before the server
//! answers anybody, so that nothing of that kind ever runs beside requests.

use axum::Json;
use chappe_web::Routes;
use serde_json::json;

use super::Place as _;
use crate::api::Api;

pub(super) fn routes() -> Routes<Api> {
    let status = async || Json(json!({ "enabled": true, "current_updates": {} }));
    let enabled = async || Json(json!({ "enabled": true }));
    Routes::new()
        .get("/_synapse/admin/v1/background_updates/status", status)
        .get("/_synapse/admin/v1/background_updates/enabled", enabled)
}
