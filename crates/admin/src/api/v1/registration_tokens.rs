//! `/v1/registration_tokens`: tokens with which accounts can be made.

mod new;
mod token;

use axum::{Json, extract::State};
use chappe_accounts::RegistrationToken;
use chappe_web::{Parameters, Routes};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Place as _;
use crate::api::{Api, Result};

pub(super) fn routes() -> Routes<Api> {
    let one = "/_synapse/admin/v1/registration_tokens/{token}";
    Routes::new()
        .get("/_synapse/admin/v1/registration_tokens", list)
        .post("/_synapse/admin/v1/registration_tokens/new", new::handler)
        .get(one, token::show)
        .put(one, token::change)
        .delete(one, token::delete)
}

#[derive(Deserialize)]
struct Query {
    valid: Option<bool>,
}

/// `GET /v1/registration_tokens`, all of them or those that are good now, or those that are not.
async fn list(State(api): State<Api>, Parameters(query): Parameters<Query>) -> Result<Json<Value>> {
    let now = api.world.now();
    let tokens = api.accounts.registration_tokens().await?.into_iter();
    let wanted =
        tokens.filter(|(_, row, pending)| query.valid.is_none_or(|is| is == valid(row, *pending, now)));
    let shown: Vec<Value> = wanted.map(|(token, row, pending)| shown(&token, &row, pending)).collect();
    Ok(Json(json!({ "registration_tokens": shown })))
}

fn valid(row: &RegistrationToken, pending: u64, now: u64) -> bool {
    row.uses_allowed.is_none_or(|allowed| row.completed + pending < allowed)
        && row.expires.is_none_or(|at| at > now)
}

fn shown(token: &str, row: &RegistrationToken, pending: u64) -> Value {
    json!({
        "token": token, "uses_allowed": row.uses_allowed, "pending": pending,
        "completed": row.completed, "expiry_time": row.expires,
    })
}

/// Refuses a time that is over.
fn check_expiry(at: Option<u64>, now: u64) -> Result<()> {
    if at.is_some_and(|at| at < now) {
        return Err(chappe_web::Error::invalid_param("expiry_time must not be in the past").into());
    }
    Ok(())
}
