//! `GET` and `PUT /devices/{deviceId}`: one device, and its name. Application services make devices by naming them.

use axum::{Json, extract::State};
use chappe_accounts::{Accounts, DeviceInfo};
use chappe_web::Ruma;
use http::StatusCode;
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    api::client::device::{Device, get_device, update_device},
};
use serde_json::{Value, json};

use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn show(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_device::v3::Request>,
) -> Result<Ruma<get_device::v3::Response>> {
    let device = accounts.device(requester.user(), &request.device_id).await?;
    let device = device.ok_or_else(|| chappe_web::Error::not_found("No such device"))?;
    Ok(Ruma(get_device::v3::Response::new(shown(device))))
}

pub(super) async fn rename(
    State(accounts): State<Accounts>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<update_device::v3::Request>,
) -> Result<(StatusCode, Json<Value>)> {
    limits.device(&requester)?;
    let (user, device, name) = (requester.user(), &request.device_id, request.display_name.as_deref());
    let looked_for = name.is_none() || requester.appservice().is_some();
    if looked_for && accounts.device(user, device).await?.is_none() {
        if requester.appservice().is_none() {
            return Err(chappe_web::Error::not_found("No such device").into());
        }
        accounts.ensure_device(user, device, name).await?;
        return Ok((StatusCode::CREATED, Json(json!({}))));
    }
    if name.is_some() {
        accounts.rename_device(user, device, name).await?;
    }
    Ok((StatusCode::OK, Json(json!({}))))
}

/// A device as its user sees it.
pub(super) fn shown(info: DeviceInfo) -> Device {
    let mut device = Device::new(info.device_id);
    device.display_name = info.name;
    device.last_seen_ip = info.last_seen_ip;
    device.last_seen_ts = info.last_seen_ms.and_then(UInt::new).map(MilliSecondsSinceUnixEpoch);
    device
}
