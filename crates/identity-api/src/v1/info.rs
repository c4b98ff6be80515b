//! `GET /_matrix/identity/api/v1/info`: which homeserver an address belongs to, for everybody.

use axum::{Json, extract::State};
use chappe_identity::{IdentityService, Info};
use chappe_web::{Error, Parameters};
use serde::Deserialize;

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
) -> Result<Json<Info>> {
    anybody.asks()?;
    let email = super::email(&question.medium, &question.address)?;
    let info = service.info(&email).await?;
    Ok(Json(info.ok_or_else(|| Error::not_found("This address belongs to no server of this network"))?))
}
