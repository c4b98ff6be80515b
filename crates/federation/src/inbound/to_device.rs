//! To-device messages from other servers, `m.direct_to_device`.

use std::collections::BTreeMap;

use chappe_accounts::Recipients;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The EDU's content.
#[derive(Debug, Deserialize)]
pub(super) struct Message {
    pub(super) sender: OwnedUserId,
    #[serde(rename = "type")]
    pub(super) event_type: String,
    #[serde(rename = "message_id")]
    pub(super) id: String,
    pub(super) messages: BTreeMap<OwnedUserId, Devices>,
}

/// Device id, or `*` for all → content.
pub(super) type Devices = BTreeMap<String, Box<RawValue>>;

/// The same for the inbox.
pub(super) fn recipients(mut devices: Devices) -> Vec<Recipients> {
    let all = devices.remove("*").map(Recipients::All);
    let single = devices.into_iter().map(|(device, content)| (device.into(), content)).collect();
    let single = Some(Recipients::Devices(single));
    let some =
        |recipients: &Recipients| !matches!(recipients, Recipients::Devices(devices) if devices.is_empty());
    all.into_iter().chain(single).filter(some).collect()
}
