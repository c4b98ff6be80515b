//! The device lists of users of other servers, for as long as they share a room with a user of this one.

use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{Json, table};

/// What is known of a remote user's device list: its head record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteDeviceList {
    /// The stream id of the last update applied.
    pub stream_id: u64,
    /// Whether an update was missed, so that the list has to be fetched whole before it is used.
    pub stale: bool,
    /// The signed master key, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_key: Option<String>,
    /// The signed self-signing key, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signing_key: Option<String>,
}

/// A remote user's device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteDevice {
    /// What its user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The signed device keys, as JSON text; a device without encryption has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
}

table! {
    /// Remote user → head of the device list. Absent: not tracked.
    RemoteDeviceLists = REMOTE_DEVICE_LISTS: OwnedUserId => Json<RemoteDeviceList>;
    /// `(remote user, device)` → the device.
    RemoteDevices = REMOTE_DEVICES: (OwnedUserId, OwnedDeviceId) => Json<RemoteDevice>;
}
