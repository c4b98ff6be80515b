//! `GET /_matrix/identity/v2/pubkey/isvalid`: whether a key is the service's own.

use axum::{Json, extract::State};
use chappe_identity::IdentityService;
use chappe_web::Parameters;
use serde_json::{Value, json};

use super::Question;

pub(crate) async fn handler(
    State(service): State<IdentityService>,
    Parameters(question): Parameters<Question>,
) -> Json<Value> {
    Json(json!({ "valid": service.is_own_key(&question.public_key) }))
}
