//! `GET /_matrix/identity/v2/hash_details`: how addresses are hashed for a look-up.

use axum::{Json, extract::State};
use chappe_identity::IdentityService;
use serde_json::{Value, json};

use crate::{error::Result, requester::MemberByQuery};

pub(crate) async fn handler(State(service): State<IdentityService>, _: MemberByQuery) -> Result<Json<Value>> {
    Ok(Json(json!({ "algorithms": ["sha256", "none"], "lookup_pepper": service.pepper().await? })))
}
