//! `POST /v2/users/{userId}/delete_devices`: end several devices of a user.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Body, Result};

#[derive(Deserialize)]
pub(super) struct Request {
    devices: Vec<OwnedDeviceId>,
}

pub(super) async fn handler(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    api.account(&user).await?;
    api.accounts.shut_out(&user, &request.devices).await?;
    Ok(Json(json!({})))
}
