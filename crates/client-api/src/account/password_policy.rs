//! `GET /password_policy`: what a new password must look like (MSC2000). How hard it must be to guess has no name there.

use axum::{Json, extract::State};
use chappe_accounts::Accounts;
use serde_json::{Map, Value, json};

pub(super) async fn handler(State(accounts): State<Accounts>) -> Json<Value> {
    let policy = &accounts.config().password.policy;
    let mut shown = Map::from_iter([("m.minimum_length".to_owned(), json!(policy.minimum_length))]);
    for (name, required) in [
        ("m.require_digit", policy.require_digit),
        ("m.require_symbol", policy.require_symbol),
        ("m.require_uppercase", policy.require_uppercase),
        ("m.require_lowercase", policy.require_lowercase),
    ] {
        if required {
            shown.insert(name.to_owned(), json!(true));
        }
    }
    Json(Value::Object(shown))
}
