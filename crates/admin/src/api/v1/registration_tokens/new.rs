//! `POST /v1/registration_tokens/new`: make a token.

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::Value;

use super::{check_expiry, shown};
use crate::api::{Api, Body, Result};

/// Characters of a drawn token.
const USUAL: usize = 16;
/// The longest token, in characters.
const LONGEST: usize = 64;

#[derive(Deserialize)]
pub(super) struct Request {
    token: Option<String>,
    uses_allowed: Option<u64>,
    expiry_time: Option<u64>,
    length: Option<usize>,
}

pub(super) async fn handler(State(api): State<Api>, Body(request): Body<Request>) -> Result<Json<Value>> {
    check_expiry(request.expiry_time, api.world.now())?;
    let length = request.length.unwrap_or(USUAL);
    if length == 0 || length > LONGEST {
        return Err(chappe_web::Error::invalid_param("length must be from 1 to 64").into());
    }
    let token = request.token.unwrap_or_else(|| api.world.token(length));
    let accounts = &api.accounts;
    let made = accounts.create_registration_token(Some(token), request.uses_allowed, request.expiry_time);
    let (token, row) = made.await?;
    Ok(Json(shown(&token, &row, 0)))
}
