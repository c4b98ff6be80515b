//! `GET`, `PUT` and `DELETE /v1/registration_tokens/{token}`.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use serde_json::{Map, Value, json};

use super::{check_expiry, shown};
use crate::api::{Api, Body, Result};

pub(super) async fn show(State(api): State<Api>, Arguments(token): Arguments<String>) -> Result<Json<Value>> {
    let found = api.accounts.registration_token(&token).await?;
    let (row, pending) = found.ok_or_else(|| chappe_web::Error::not_found("No such registration token"))?;
    Ok(Json(shown(&token, &row, pending)))
}

/// What is left out stays as it is; null is no limit.
pub(super) async fn change(
    State(api): State<Api>,
    Arguments(token): Arguments<String>,
    Body(request): Body<Map<String, Value>>,
) -> Result<Json<Value>> {
    let uses_allowed = number(&request, "uses_allowed")?;
    let expires = number(&request, "expiry_time")?;
    check_expiry(expires.flatten(), api.world.now())?;
    let change = |row: &mut chappe_accounts::RegistrationToken| {
        row.uses_allowed = uses_allowed.unwrap_or(row.uses_allowed);
        row.expires = expires.unwrap_or(row.expires);
    };
    let row = api.accounts.update_registration_token(&token, change).await?;
    let pending = api.accounts.registration_token(&token).await?.map_or(0, |(_, pending)| pending);
    Ok(Json(shown(&token, &row, pending)))
}

pub(super) async fn delete(
    State(api): State<Api>,
    Arguments(token): Arguments<String>,
) -> Result<Json<Value>> {
    api.accounts.delete_registration_token(&token).await?;
    Ok(Json(json!({})))
}

/// A field of a body: left out, null, or a number.
#[expect(clippy::option_option, reason = "null is no limit, nothing said leaves it")]
fn number(request: &Map<String, Value>, field: &str) -> Result<Option<Option<u64>>> {
    match request.get(field) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(value) => match value.as_u64() {
            Some(number) => Ok(Some(Some(number))),
            None => Err(chappe_web::Error::invalid_param(format!("{field} must be a number or null")).into()),
        },
    }
}
