//! `GET /login`: the ways to log in.

use axum::{Json, extract::State};
use chappe_accounts::Accounts;
use serde_json::{Value, json};

pub(super) async fn handler(State(accounts): State<Accounts>) -> Json<Value> {
    let mut flows = vec![
        json!({ "type": "m.login.password" }),
        json!({ "type": "m.login.token", "get_login_token": true }),
    ];
    if !accounts.appservices().is_empty() {
        flows.push(json!({ "type": "m.login.application_service" }));
    }
    Json(json!({ "flows": flows }))
}
