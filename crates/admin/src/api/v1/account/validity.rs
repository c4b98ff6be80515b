//! `POST /v1/account_validity/validity`: says when an account ends; another period from now on unless a time is given.

use axum::{Json, extract::State};
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Body, Result};

#[derive(Deserialize)]
pub(super) struct Request {
    user_id: OwnedUserId,
    /// In milliseconds since 1970.
    expiration_ts: Option<u64>,
    enable_renewal_emails: Option<bool>,
}

pub(super) async fn handler(State(api): State<Api>, Body(request): Body<Request>) -> Result<Json<Value>> {
    api.account(&request.user_id).await?;
    let mails = request.enable_renewal_emails;
    let ends = api.accounts.say_end(&request.user_id, request.expiration_ts, mails).await?;
    Ok(Json(json!({ "expiration_ts": ends })))
}
