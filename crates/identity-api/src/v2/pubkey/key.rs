//! `GET /_matrix/identity/v2/pubkey/{keyId}`: the key that associations are signed with.

use axum::{Json, extract::State};
use chappe_identity::IdentityService;
use chappe_web::{Arguments, Error};
use serde_json::{Value, json};

use crate::error::Result;

pub(crate) async fn handler(
    State(service): State<IdentityService>,
    Arguments(id): Arguments<String>,
) -> Result<Json<Value>> {
    let key = service.public_key(&id).ok_or_else(|| Error::not_found("The public key was not found"))?;
    Ok(Json(json!({ "public_key": key })))
}
