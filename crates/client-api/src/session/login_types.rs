//! `GET /login`: the ways to log in.

use axum::Json;
use serde_json::{Value, json};

pub(super) async fn handler() -> Json<Value> {
    Json(json!({ "flows": [
        { "type": "m.login.password" },
        { "type": "m.login.token", "get_login_token": true },
    ]}))
}
