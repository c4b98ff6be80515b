//! `GET` and `POST /v2/users/{userId}/devices`: a user's devices.

pub(super) mod device;

use axum::{Json, extract::State};
use chappe_accounts::DeviceInfo;
use chappe_web::Arguments;
use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Body, Result};

pub(super) async fn list(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
) -> Result<Json<Value>> {
    api.account(&user).await?;
    let devices = api.accounts.devices(&user).await?;
    let devices: Vec<Value> = devices.iter().map(|device| shown(&user, device)).collect();
    Ok(Json(json!({ "total": devices.len(), "devices": devices })))
}

#[derive(Deserialize)]
pub(super) struct Request {
    device_id: OwnedDeviceId,
}

/// Makes a device without tokens; one that is there stays as it is.
pub(super) async fn create(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
    Body(request): Body<Request>,
) -> Result<(http::StatusCode, Json<Value>)> {
    api.account(&user).await?;
    api.accounts.ensure_device(&user, &request.device_id, Some("Created by an administrator")).await?;
    Ok((http::StatusCode::CREATED, Json(json!({}))))
}

fn shown(user: &UserId, device: &DeviceInfo) -> Value {
    json!({
        "device_id": device.device_id, "user_id": user, "display_name": device.name,
        "last_seen_ip": device.last_seen_ip, "last_seen_ts": device.last_seen_ms,
        "last_seen_user_agent": null, "dehydrated": device.dehydrated,
    })
}
