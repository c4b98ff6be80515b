//! `GET /_matrix/identity/api/v1/internal-info`: the same for this network's own servers, with what is nobody else's business.

use axum::{Json, extract::State};
use chappe_identity::{IdentityService, InternalInfo};
use chappe_web::{Error, Parameters};
use serde::Deserialize;

use crate::error::Result;

#[derive(Deserialize)]
pub(crate) struct Question {
    medium: String,
    address: String,
}

pub(crate) async fn handler(
    State(service): State<IdentityService>,
    Parameters(question): Parameters<Question>,
) -> Result<Json<InternalInfo>> {
    let email = super::email(&question.medium, &question.address)?;
    let info = service.internal_info(&email).await?;
    Ok(Json(info.ok_or_else(|| Error::not_found("This address belongs to no server of this network"))?))
}
