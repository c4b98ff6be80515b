//! `GET /thirdparty/protocols`: bridged networks. There are none without application services.

use axum::Json;
use serde_json::{Value, json};

use crate::requester::Requester;

pub(super) async fn handler(_requester: Requester) -> Json<Value> {
    Json(json!({}))
}
