//! `PUT /sendToDevice/{eventType}/{txnId}`: messages straight to devices.

use std::collections::BTreeMap;

use axum::extract::State;
use chappe_accounts::{Accounts, Recipients, Sending, to_device_for_servers};
use chappe_rooms::Rooms;
use chappe_web::{Routes, Ruma};
use chappe_world::World;
use ruma::{
    OwnedDeviceId,
    api::client::to_device::send_event_to_device::v3::{Request, Response},
    events::AnyToDeviceEventContent,
    serde::Raw,
    to_device::DeviceIdOrAllDevices,
};

use crate::{Api, error::Result, rates::Limits, requester::Requester};

/// A message to every device of a large room.
const LIMIT: usize = 16 << 20;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new().on_limited::<Request, _>(LIMIT, handler)
}

async fn handler(
    State(accounts): State<Accounts>,
    State(rooms): State<Rooms>,
    State(world): State<World>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    limits.user("to_device", &requester, |rates| rates.to_device)?;
    let messages = request.messages.into_iter().map(|(user, devices)| (user, recipients(devices)));
    // Nothing is kept for servers that it would never be sent to. While the network has no list, that is known of none.
    let messages = messages.filter(|(user, _)| rooms.may_take_part(user.server_name()));
    let (here, elsewhere): (Vec<_>, Vec<_>) = messages.partition(|(user, _)| accounts.is_local(user));
    let kind = request.event_type.to_string();
    // An application service may act without a device.
    let device = requester.device_id.as_ref().map_or("", |device| device.as_str());
    // The same transaction id with another type is another request (client-server API, "Transaction identifiers").
    let path = format!("{kind}/{}", request.txn_id);
    let once = Some((device, path.as_str()));
    let sending = Sending { sender: requester.user(), once, event_type: &kind, messages: &elsewhere };
    // Ids of messages have 32 characters at most.
    let tx = to_device_for_servers(&sending, &world.token(25))?;
    accounts.send_to_devices(Sending { messages: &here, ..sending }, tx).await?;
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
