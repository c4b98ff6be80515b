//! `GET /v1/username_available`: whether a name could be registered, also where registration is closed.

use axum::{Json, extract::State};
use chappe_accounts::UserKind;
use chappe_web::Parameters;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Result};

#[derive(Deserialize)]
pub(super) struct Query {
    username: String,
}

pub(super) async fn handler(
    State(api): State<Api>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Value>> {
    api.accounts.check_available(&query.username, UserKind::User).await?;
    Ok(Json(json!({ "available": true })))
}
