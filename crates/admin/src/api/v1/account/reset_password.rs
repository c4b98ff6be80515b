//! `POST /v1/reset_password/{userId}`: set a password; the user's devices are logged out unless the body says otherwise.

use axum::{Json, extract::State};
use chappe_accounts::OtherDevices;
use chappe_web::Arguments;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Body, Result};

#[derive(Deserialize)]
pub(super) struct Request {
    new_password: String,
    logout_devices: Option<bool>,
}

pub(super) async fn handler(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    api.account(&user).await?;
    let others = others(request.logout_devices);
    api.accounts.set_password(&user, &request.new_password, others).await?;
    Ok(Json(json!({})))
}

/// What becomes of the user's devices: they are logged out unless it is said that they are not.
pub(in crate::api) fn others(log_out: Option<bool>) -> OtherDevices<'static> {
    if log_out.unwrap_or(true) { OtherDevices::LogOutExcept(None) } else { OtherDevices::Keep }
}
