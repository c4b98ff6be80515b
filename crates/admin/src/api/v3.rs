//! `/_synapse/admin/v3`: `GET /v3/users`, the list of accounts with another sense of `deactivated`.

use axum::{Json, extract::State};
use chappe_web::{Parameters, Routes};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Api, Page, Result,
    v1::Place as _,
    v2::list::{Filter, Order, listed},
};

/// Every endpoint below `/_synapse/admin/v3`.
pub(super) fn routes() -> Routes<Api> {
    Routes::new().get("/_synapse/admin/v3/users", users)
}

#[derive(Deserialize)]
struct Closed {
    deactivated: Option<bool>,
}

/// Closed accounts alone, none of them, or all accounts.
async fn users(
    State(api): State<Api>,
    Parameters(page): Parameters<Page>,
    Parameters(filter): Parameters<Filter>,
    Parameters(order): Parameters<Order>,
    Parameters(closed): Parameters<Closed>,
) -> Result<Json<Value>> {
    let mut query = filter.query(page, &order)?;
    query.deactivated = closed.deactivated;
    listed(&api, page, &query).await
}
