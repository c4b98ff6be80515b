//! `GET /unstable/org.matrix.msc4143/rtc/transports`: the services that calls of many people go through.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use crate::{Config, livekit, requester::Requester};

pub(super) async fn handler(State(config): State<Arc<Config>>, _requester: Requester) -> Json<Value> {
    Json(json!({ "rtc_transports": transports(&config) }))
}

/// The LiveKit services as clients are told of them, the one to be preferred first (MSC4195).
pub(super) fn transports(config: &Config) -> Vec<Value> {
    let own = format!("{}{}", config.public_base_url.trim_end_matches('/'), livekit::PATH);
    let own = config.livekit.then_some(own);
    let shown = |url: &str| json!({ "type": "livekit", "livekit_service_url": url });
    own.iter().chain(&config.livekit_services).map(|url| shown(url)).collect()
}
