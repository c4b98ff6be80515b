//! `GET /_matrix/identity/api/v1/lookup`: whose an address is, where an operator still answers this.

use axum::{Json, extract::State};
use chappe_identity::IdentityService;
use chappe_web::{Error, Parameters};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{error::Result, requester::Anybody};

#[derive(Deserialize)]
pub(crate) struct Question {
    medium: String,
    address: String,
}

pub(crate) async fn handler(
    State(service): State<IdentityService>,
    anybody: Anybody,
    Parameters(question): Parameters<Question>,
) -> Result<Json<Value>> {
    if !service.config().service.legacy_lookups {
        return Err(Error::unrecognized().into());
    }
    anybody.looks_up(1)?;
    let email = super::email(&question.medium, &question.address)?;
    let found = service.signed_association(&email).await?;
    Ok(Json(found.map_or_else(|| json!({}), |association| json!(association))))
}
