//! `GET /_matrix/federation/v1/user/devices/{userId}`: the devices of a local user.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::{
    UInt,
    api::federation::device::get_devices::v1::{Request, Response, UserDevice},
};

use crate::{Federation, Origin, refusal::Answer};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { request, .. }: Origin<Request>,
) -> Answer<Response> {
    federation.local(&request.user_id)?;
    let stream_id = federation.announced(&request.user_id).await?.stream_id;
    let accounts = federation.accounts();
    let devices = accounts.federated_devices(&request.user_id).await?;
    let keys = accounts.public_keys(None, &request.user_id, &[]).await?;
    let is_named = federation.network().config().device_names;
    let mut response = Response::new(request.user_id, UInt::new_saturating(stream_id));
    response.devices = devices
        .into_iter()
        .map(|(id, keys, name)| {
            let mut device = UserDevice::new(id, keys);
            device.device_display_name = name.filter(|_| is_named);
            device
        })
        .collect();
    response.master_key = keys.master;
    response.self_signing_key = keys.self_signing;
    Ok(Ruma(response))
}
