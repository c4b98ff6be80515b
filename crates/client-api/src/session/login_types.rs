//! `GET /login`: the ways to log in.

use axum::{Json, extract::State};
use chappe_accounts::Accounts;
use chappe_identity::{ProviderConfig, Sso};
use serde_json::{Value, json};

pub(super) async fn handler(State(accounts): State<Accounts>, State(sso): State<Sso>) -> Json<Value> {
    let mut flows = Vec::new();
    if sso.is_on() {
        let providers: Vec<Value> = sso.providers().map(provider).collect();
        flows.push(json!({ "type": "m.login.sso", "identity_providers": providers }));
    }
    flows.push(json!({ "type": "m.login.password" }));
    flows.push(json!({ "type": "m.login.token", "get_login_token": true }));
    if !accounts.appservices().is_empty() {
        flows.push(json!({ "type": "m.login.application_service" }));
    }
    Json(json!({ "flows": flows }))
}

fn provider(config: &ProviderConfig) -> Value {
    let mut shown = json!({ "id": config.id, "name": config.name });
    if let Some(icon) = &config.icon {
        shown["icon"] = json!(icon);
    }
    if let Some(brand) = &config.brand {
        shown["brand"] = json!(brand);
    }
    shown
}
