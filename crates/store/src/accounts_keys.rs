//! Tables of end-to-end encryption: keys, signatures, device lists, to-device messages, key backups.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Json, table};

/// What a device has left to hand out: the head record of its one-time and fallback keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHead {
    /// One-time keys left, by algorithm.
    #[serde(default)]
    pub counts: BTreeMap<String, u32>,
    /// Algorithms whose fallback key was never handed out.
    #[serde(default)]
    pub unused_fallback: BTreeSet<String>,
    /// Number of times the head was replaced.
    #[serde(default)]
    pub revision: u64,
}

/// A fallback key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FallbackKey {
    /// Its id, without the algorithm.
    pub id: String,
    /// The key as uploaded.
    pub key: Box<RawValue>,
}

/// What a user's dehydrated device is woken with (MSC3814); its keys and messages are those of any device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DehydratedDevice {
    /// Its id.
    pub device: OwnedDeviceId,
    /// The device, encrypted by the client, as uploaded.
    pub data: Box<RawValue>,
}

/// What is known of a remote user's devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteList {
    /// Their server's stream id of the last change taken in.
    pub stream_id: u64,
    /// Fetched at, in milliseconds since 1970. Nothing reads it; it stays because rows are expected as they were written.
    pub fetched: u64,
    /// Whether something was missed, so that the list must be fetched before it is believed.
    #[serde(default)]
    pub stale: bool,
    /// Stream ids of the last updates heard of, oldest first. A list that is not stale covers them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heard: Vec<u64>,
    /// Whether somebody was given keys that their server was asked for beside this list, since those who share a room were told
    /// of a change for the last time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given: bool,
}

/// A device of a remote user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemoteDevice {
    /// Its keys, signed by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Box<RawValue>>,
    /// Shown name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// One version of a key backup: the head record of its keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Backup {
    /// Algorithm.
    pub algorithm: String,
    /// Data of the algorithm, as uploaded.
    pub auth_data: Box<RawValue>,
    /// Number of keys in it.
    pub count: u64,
    /// Changes whenever a key does.
    pub etag: u64,
    /// Bytes of the keys in it; 0 where there are keys: they are not counted yet.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

table! {
    /// `(user, device)` → identity keys as uploaded.
    DeviceKeys = DEVICE_KEYS: (OwnedUserId, OwnedDeviceId) => Vec<u8>;
    /// `(user, device, algorithm, key id)` → one-time key as uploaded.
    OneTimeKeys = ONE_TIME_KEYS: (OwnedUserId, OwnedDeviceId, String, String) => Vec<u8>;
    /// `(user, device, algorithm, position, index within the commit)` → key id.
    OneTimeKeyOrder = ONE_TIME_KEY_ORDER: (OwnedUserId, OwnedDeviceId, String, u64, u16) => String;
    /// SHA-256 of user, device, algorithm, key id and public key → nothing: it was handed out, and is not taken in again.
    SpentKeys = SPENT_KEYS: [u8; 32] => ();
    /// `(user, device, algorithm)` → fallback key.
    FallbackKeys = FALLBACK_KEYS: (OwnedUserId, OwnedDeviceId, String) => Json<FallbackKey>;
    /// `(user, device)` → what is left.
    KeyHeads = KEY_HEADS: (OwnedUserId, OwnedDeviceId) => Json<KeyHead>;
    /// `(user, 0 master | 1 self-signing | 2 user-signing)` → key as uploaded.
    CrossSigningKeys = CROSS_SIGNING_KEYS: (OwnedUserId, u8) => Vec<u8>;
    /// `(signed user, signing user, signed device or public key, signing key id)` → signature.
    KeySignatures = KEY_SIGNATURES: (OwnedUserId, OwnedUserId, String, String) => String;
    /// `(signing user, position, signed user)` → nothing: who signed whose master key when, for the last time.
    SignatureChanges = SIGNATURE_CHANGES: (OwnedUserId, u64, OwnedUserId) => ();
    /// User → position of the last change.
    DeviceListHeads = DEVICE_LIST_HEADS: OwnedUserId => u64;
    /// `(position, user)` → position of the user's change before (0: none).
    DeviceListChanges = DEVICE_LIST_CHANGES: (u64, OwnedUserId) => u64;
    /// Remote user → what is known.
    RemoteLists = REMOTE_LISTS: OwnedUserId => Json<RemoteList>;
    /// `(remote user, device)` → device.
    RemoteDevices = REMOTE_DEVICES: (OwnedUserId, OwnedDeviceId) => Json<RemoteDevice>;
    /// Remote user → nothing: fetch the list again.
    Resyncs = RESYNCS: OwnedUserId => ();
    /// `(user, device, position, index within the commit)` → message as JSON: type, sender, content.
    ToDevice = TO_DEVICE: (OwnedUserId, OwnedDeviceId, u64, u32) => Vec<u8>;
    /// SHA-256 of user, device and transaction id → when, in milliseconds since 1970.
    ToDeviceTxns = TO_DEVICE_TXNS: [u8; 32] => u64;
    /// `(user, device)` → messages waiting.
    ToDeviceCounts = TO_DEVICE_COUNTS: (OwnedUserId, OwnedDeviceId) => i64;
    /// `(user, device, sender)` → messages of one sender waiting.
    ToDeviceSenders = TO_DEVICE_SENDERS: (OwnedUserId, OwnedDeviceId, OwnedUserId) => i64;
    /// `(user, version)` → backup.
    Backups = BACKUPS: (OwnedUserId, u64) => Json<Backup>;
    /// User → last version given.
    BackupNumbers = BACKUP_NUMBERS: OwnedUserId => u64;
    /// `(user, version, room, session)` → key as uploaded.
    BackupKeys = BACKUP_KEYS: (OwnedUserId, u64, OwnedRoomId, String) => Vec<u8>;
    /// User → the dehydrated device.
    DehydratedDevices = DEHYDRATED_DEVICES: OwnedUserId => Json<DehydratedDevice>;
}
