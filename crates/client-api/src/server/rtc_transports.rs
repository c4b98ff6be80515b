//! `GET /unstable/org.matrix.msc4143/rtc/transports`: the services that calls of many people go through.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use crate::{Config, requester::Requester};

pub(super) async fn handler(State(config): State<Arc<Config>>, _requester: Requester) -> Json<Value> {
    Json(json!({ "rtc_transports": transports(&config) }))
}

/// The LiveKit services as clients are told of them, the one to be preferred first (MSC4195).
pub(super) fn transports(config: &Config) -> Vec<Value> {
    let shown = |url: &String| json!({ "type": "livekit", "livekit_service_url": url });
    config.livekit_services.iter().map(shown).collect()
}
