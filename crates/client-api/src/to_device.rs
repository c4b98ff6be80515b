//! `PUT /sendToDevice/{eventType}/{txnId}`: messages straight to devices.

use std::collections::BTreeMap;

use axum::extract::State;
use chappe_accounts::{Accounts, Recipients, Sending, to_device_for_servers};
use chappe_web::{Routes, Ruma};
use chappe_world::World;
use ruma::{
    OwnedDeviceId,
    api::client::to_device::send_event_to_device::v3::{Request, Response},
    events::AnyToDeviceEventContent,
    serde::Raw,
    to_device::DeviceIdOrAllDevices,
};

use crate::{Api, error::Result, requester::Requester};

/// A message to every device of a large room.
const LIMIT: usize = 16 << 20;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new().on_limited::<Request, _>(LIMIT, handler)
}

async fn handler(
    State(accounts): State<Accounts>,
    State(world): State<World>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    let messages = request.messages.into_iter().map(|(user, devices)| (user, recipients(devices)));
    let (here, elsewhere): (Vec<_>, Vec<_>) = messages.partition(|(user, _)| accounts.is_local(user));
    let (sender, kind) = (requester.user(), request.event_type.to_string());
    let tx = to_device_for_servers(sender, &kind, &world.token(32), &elsewhere);
    // An application service may act without a device.
    let device = requester.device_id.as_ref().map_or("", |device| device.as_str());
    let once = Some((device, request.txn_id.as_str()));
    let sending = Sending { sender, once, event_type: &kind, messages: &here };
    accounts.send_to_devices(sending, tx).await?;
    Ok(Ruma(Response::new()))
}

fn recipients(devices: BTreeMap<DeviceIdOrAllDevices, Raw<AnyToDeviceEventContent>>) -> Recipients {
    let mut named: BTreeMap<OwnedDeviceId, _> = BTreeMap::new();
    for (device, content) in devices {
        match device {
            DeviceIdOrAllDevices::AllDevices => return Recipients::All(content.into_json()),
            DeviceIdOrAllDevices::DeviceId(device) => named.insert(device, content.into_json()),
        };
    }
    Recipients::Devices(named)
}
