//! `GET /_matrix/identity/v2`: whether there is an identity service.

use axum::Json;
use serde_json::{Value, json};

pub(crate) async fn handler() -> Json<Value> {
    Json(json!({}))
}
