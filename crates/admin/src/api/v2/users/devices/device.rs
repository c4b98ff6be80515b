//! `GET`, `PUT` and `DELETE /v2/users/{userId}/devices/{deviceId}`.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::shown;
use crate::api::{Api, Body, Result};

pub(in crate::api::v2::users) async fn show(
    State(api): State<Api>,
    Arguments((user, device)): Arguments<(OwnedUserId, OwnedDeviceId)>,
) -> Result<Json<Value>> {
    api.account(&user).await?;
    let found = api.accounts.device(&user, &device).await?;
    let found = found.ok_or_else(|| chappe_web::Error::not_found("No device found"))?;
    Ok(Json(shown(&user, &found)))
}

#[derive(Deserialize)]
pub(in crate::api::v2::users) struct Request {
    display_name: Option<String>,
}

/// Without a name it stays as it is.
pub(in crate::api::v2::users) async fn rename(
    State(api): State<Api>,
    Arguments((user, device)): Arguments<(OwnedUserId, OwnedDeviceId)>,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    api.account(&user).await?;
    let found = api.accounts.device(&user, &device).await?;
    found.ok_or_else(|| chappe_web::Error::not_found("No device found"))?;
    if let Some(name) = request.display_name {
        api.accounts.rename_device(&user, &device, Some(&name)).await?;
    }
    Ok(Json(json!({})))
}

pub(in crate::api::v2::users) async fn delete(
    State(api): State<Api>,
    Arguments((user, device)): Arguments<(OwnedUserId, OwnedDeviceId)>,
) -> Result<Json<Value>> {
    api.account(&user).await?;
    api.accounts.shut_out(&user, &[device]).await?;
    Ok(Json(json!({})))
}
