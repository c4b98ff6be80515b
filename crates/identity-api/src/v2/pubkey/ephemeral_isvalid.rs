//! `GET /_matrix/identity/v2/pubkey/ephemeral/isvalid`: whether a key is that of an invitation.

use axum::{Json, extract::State};
use chappe_identity::IdentityService;
use chappe_web::Parameters;
use serde_json::{Value, json};

use super::Question;
use crate::error::Result;

pub(crate) async fn handler(
    State(service): State<IdentityService>,
    Parameters(question): Parameters<Question>,
) -> Result<Json<Value>> {
    Ok(Json(json!({ "valid": service.is_invite_key(&question.public_key).await? })))
}
