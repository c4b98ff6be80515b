//! `GET /thirdparty/protocols`: every network that an application service connects.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use chappe_appservices::Services;
use serde_json::Value;

use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn handler(
    State(services): State<Services>,
    State(limits): State<Limits>,
    requester: Requester,
) -> Result<Json<BTreeMap<String, Value>>> {
    limits.user("search", &requester, |rates| rates.search)?;
    Ok(Json(services.link().protocols().await))
}
