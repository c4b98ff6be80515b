//! `GET` and `PUT /devices/{deviceId}`: one device, and its name.

use axum::extract::State;
use chappe_accounts::{Accounts, DeviceInfo};
use chappe_web::Ruma;
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    api::client::device::{Device, get_device, update_device},
};

use crate::{error::Result, requester::Requester};

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
    requester: Requester,
    Ruma(request): Ruma<update_device::v3::Request>,
) -> Result<Ruma<update_device::v3::Response>> {
    if let Some(name) = &request.display_name {
        accounts.rename_device(requester.user(), &request.device_id, Some(name)).await?;
    } else if accounts.device(requester.user(), &request.device_id).await?.is_none() {
        return Err(chappe_web::Error::not_found("No such device").into());
    }
    Ok(Ruma(update_device::v3::Response::new()))
}

/// A device as its user sees it.
pub(super) fn shown(info: DeviceInfo) -> Device {
    let mut device = Device::new(info.device_id);
    device.display_name = info.name;
    device.last_seen_ip = info.last_seen_ip;
    device.last_seen_ts = info.last_seen_ms.and_then(UInt::new).map(MilliSecondsSinceUnixEpoch);
    device
}
