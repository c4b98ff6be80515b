//! The log: one entry for each thing that happened, in commit order. Everything after a commit follows it.

use chappe_kv::Position;
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{Json, table};

/// What happened. Entries are hints of where to look, small and without content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum LogEntry {
    /// An event joined a room's timeline.
    #[serde(rename = "e")]
    Event {
        /// The room's number.
        #[serde(rename = "r")]
        room: u32,
        /// The event's number in its room.
        #[serde(rename = "n")]
        event: u32,
        /// Set for a membership event: whose membership it is.
        #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
        member: Option<OwnedUserId>,
        /// Whether it was made here (and so has to be sent to peers).
        #[serde(rename = "l", default, skip_serializing_if = "std::ops::Not::not")]
        local: bool,
    },
    /// A local user's invite or knock in a room that this server is not in changed.
    #[serde(rename = "o")]
    OutOfBandMembership {
        /// Whose.
        user: OwnedUserId,
        /// Where.
        room: OwnedRoomId,
    },
    /// A receipt in a room.
    #[serde(rename = "c")]
    Receipt {
        /// The room's number.
        room: u32,
        /// Whose receipt.
        user: OwnedUserId,
        /// A private receipt is for its own user alone.
        private: bool,
        /// Whether it was made here.
        local: bool,
    },
    /// A user's global or room account data, push rules, or ignored users changed.
    #[serde(rename = "a")]
    AccountData {
        /// Whose.
        user: OwnedUserId,
    },
    /// A to-device message waits for a device.
    #[serde(rename = "d")]
    ToDevice {
        /// Whose.
        user: OwnedUserId,
        /// Which device.
        device: OwnedDeviceId,
    },
    /// A user's devices, device keys or cross-signing keys changed.
    #[serde(rename = "k")]
    DeviceList {
        /// Whose.
        user: OwnedUserId,
    },
    /// A device's own one-time or fallback keys changed in number.
    #[serde(rename = "q")]
    OneTimeKeys {
        /// Whose.
        user: OwnedUserId,
        /// Which device.
        device: OwnedDeviceId,
    },
    /// A user's profile changed.
    #[serde(rename = "p")]
    Profile {
        /// Whose.
        user: OwnedUserId,
    },
    /// Something waits in the outbox of a destination.
    #[serde(rename = "s")]
    Outbox {
        /// Where it has to go.
        destination: OwnedServerName,
    },
}

/// An entry with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The commit that made it.
    pub position: Position,
    /// What happened.
    pub what: LogEntry,
}

table! {
    /// `(position, index within the commit)` → what happened.
    Log = LOG: (u64, u16) => Json<LogEntry>;
    /// Follower name → the last position it has dealt with.
    Cursors = CURSORS: String => u64;
    /// Name → value.
    Meta = META: String => Vec<u8>;
}
