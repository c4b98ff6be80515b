//! `GET /devices`: all devices of the user.

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::device::get_devices::v3::Response;

use super::one::shown;
use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    requester: Requester,
) -> Result<Ruma<Response>> {
    let devices = accounts.devices(requester.user()).await?;
    Ok(Ruma(Response::new(devices.into_iter().map(shown).collect())))
}
