//! Server-side key backup (`/room_keys`).

use std::collections::BTreeMap;

use ruma::{OwnedRoomId, RoomId, UserId};
use serde_json::value::RawValue;

use crate::{Accounts, Error, soon};

/// A version of a backup.
#[derive(Clone, Debug)]
pub struct BackupInfo {
    /// Its version.
    pub version: String,
    /// Algorithm.
    pub algorithm: String,
    /// Data of the algorithm.
    pub auth_data: Box<RawValue>,
    /// Number of keys.
    pub count: u64,
    /// Changes whenever a key does.
    pub etag: String,
}

/// What a change left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupKeysChange {
    /// Changes whenever a key does.
    pub etag: String,
    /// Number of keys.
    pub count: u64,
}

/// Keys by room and session.
pub type BackupKeysMap = BTreeMap<OwnedRoomId, BTreeMap<String, Box<RawValue>>>;

impl Accounts {
    /// Makes a new version; gives it.
    pub async fn create_backup(&self, user: &UserId, algorithm: &str, auth_data: &RawValue) -> Result<String, Error> { soon() }
    /// The current version (`None`) or a given one.
    pub async fn backup(&self, user: &UserId, version: Option<&str>) -> Result<Option<BackupInfo>, Error> { soon() }
    /// Replaces the data of a version; the algorithm must be the same.
    pub async fn update_backup(&self, user: &UserId, version: &str, algorithm: &str, auth_data: &RawValue) -> Result<(), Error> { soon() }
    /// Removes a version and its keys.
    pub async fn delete_backup(&self, user: &UserId, version: &str) -> Result<(), Error> { soon() }
    /// Adds keys to the current version; of two keys for one session the better one stays (spec §11.12.3.2). [`Error::WrongBackupVersion`].
    pub async fn put_backup_keys(&self, user: &UserId, version: &str, keys: BackupKeysMap) -> Result<BackupKeysChange, Error> { soon() }
    /// The keys of a version, of one room of it, of one session of that.
    pub async fn backup_keys(&self, user: &UserId, version: &str, room: Option<&RoomId>, session: Option<&str>) -> Result<BackupKeysMap, Error> { soon() }
    /// Removes those keys.
    pub async fn delete_backup_keys(&self, user: &UserId, version: &str, room: Option<&RoomId>, session: Option<&str>) -> Result<BackupKeysChange, Error> { soon() }
}
