//! `GET /_chappe/admin/v1/audit`: what administrators did, the newest first.

use axum::{Json, extract::State};
use chappe_web::{Parameters, Routes};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Page, Result, v1::Place as _};

pub(super) fn routes() -> Routes<Api> {
    Routes::new().get("/_chappe/admin/v1/audit", list)
}

#[derive(Deserialize)]
struct Query {
    before: Option<u64>,
}

async fn list(
    State(api): State<Api>,
    Parameters(page): Parameters<Page>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Value>> {
    let entries = api.accounts.audit().list(query.before.unwrap_or(u64::MAX), page.limit()).await?;
    Ok(Json(json!({ "entries": entries })))
}
