//! `GET /_matrix/client/versions`: which versions of the specification are spoken.

use std::sync::Arc;

use axum::{Json, extract::State};
use chappe_accounts::Accounts;
use serde_json::{Value, json};

use super::rtc_transports::transports;
use crate::Config;

/// Versions whose endpoints are answered.
const VERSIONS: &[&str] = &[
    "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9",
    "v1.10", "v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
];

pub(super) async fn handler(
    State(config): State<Arc<Config>>,
    State(accounts): State<Accounts>,
) -> Json<Value> {
    Json(json!({
        "versions": VERSIONS,
        "unstable_features": {
            "fi.mau.msc2659": true,
            "fi.mau.msc2659.stable": true,
            "org.matrix.msc2285.stable": true,
            "org.matrix.msc3026.busy_presence": false,
            "org.matrix.msc3391": true,
            "org.matrix.msc3440.stable": true,
            "org.matrix.msc3771": true,
            "org.matrix.msc3814": true,
            "org.matrix.msc3827.stable": true,
            "org.matrix.msc3874": true,
            "org.matrix.msc3890": true,
            "org.matrix.msc3912": true,
            "org.matrix.msc3916.stable": true,
            "org.matrix.msc3930": true,
            "org.matrix.msc3967": true,
            "org.matrix.msc3981": true,
            "org.matrix.msc4028": accounts.config().push_encrypted_events,
            "org.matrix.msc4140": true,
            "org.matrix.msc4143": !transports(&config).is_empty(),
            "org.matrix.msc4151": true,
            "org.matrix.msc4155": true,
            "org.matrix.msc4222": true,
            "org.matrix.msc4260": true,
            "org.matrix.msc4284": true,
            "org.matrix.msc4293": true,
            "org.matrix.msc4306": accounts.config().thread_subscriptions,
            "org.matrix.msc4354": true,
            "org.matrix.msc4380": true,
            "org.matrix.msc4380.stable": true,
            "org.matrix.e2e_cross_signing": true,
            "org.matrix.label_based_filtering": false,
            "org.matrix.simplified_msc3575": true,
            "uk.half-shot.msc2666.query_mutual_rooms.stable": true,
            "uk.tcpip.msc4133": true,
            "uk.tcpip.msc4133.stable": true,
        },
        "server": { "name": "Chappe", "version": env!("CARGO_PKG_VERSION") },
    }))
}
