//! `DELETE /devices/{deviceId}` and `POST /delete_devices`: end devices.

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::device::{delete_device, delete_devices};

use crate::{
    error::Result,
    requester::Requester,
    uia::{Confirmed, Uia},
};

pub(super) async fn one(
    State(accounts): State<Accounts>,
    State(uia): State<Uia>,
    requester: Requester,
    Confirmed(request, body): Confirmed<delete_device::v3::Request>,
) -> Result<Ruma<delete_device::v3::Response>> {
    let path = format!("/devices/{}", request.device_id);
    uia.ask_person(&requester, ("DELETE", &path), &body, request.auth.as_ref()).await?;
    accounts.delete_devices(requester.user(), &[request.device_id]).await?;
    Ok(Ruma(delete_device::v3::Response::new()))
}

pub(super) async fn many(
    State(accounts): State<Accounts>,
    State(uia): State<Uia>,
    requester: Requester,
    Confirmed(request, body): Confirmed<delete_devices::v3::Request>,
) -> Result<Ruma<delete_devices::v3::Response>> {
    let path = ("POST", "/delete_devices");
    uia.ask_person(&requester, path, &body, request.auth.as_ref()).await?;
    accounts.delete_devices(requester.user(), &request.devices).await?;
    Ok(Ruma(delete_devices::v3::Response::new()))
}
