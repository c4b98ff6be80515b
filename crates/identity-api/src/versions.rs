//! `GET /_matrix/identity/versions`: which versions of the specification are spoken.

use axum::Json;
use serde_json::{Value, json};

/// The versions whose identity service API is the one that is answered here.
const VERSIONS: &[&str] = &[
    "r0.3.0", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11",
    "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18",
];

pub(crate) async fn handler() -> Json<Value> {
    Json(json!({ "versions": VERSIONS }))
}
