//! Pushers: where to tell a user of events.

use chappe_store::Reader;
use ruma::{OwnedDeviceId, OwnedUserId, UserId, DeviceId, api::client::push::{Pusher, PusherIds}};

use crate::{Accounts, Error, soon};

/// A pusher as stored.
#[derive(Clone, Debug)]
pub struct PusherInfo {
    /// The pusher in the form of the client API, with its ids, kind, names and data.
    pub pusher: serde_json::Value,
    /// Application.
    pub app_id: String,
    /// Push key.
    pub pushkey: String,
    /// The device that set it.
    pub device: Option<OwnedDeviceId>,
    /// Set at, in milliseconds since 1970.
    pub created: u64,
}

/// What becomes of other users' pushers with the same application and push key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherUsers {
    /// They stay (`append: true`).
    Keep,
    /// They end: the device changed hands.
    Replace,
}

impl Accounts {
    /// Sets a pusher.
    pub async fn set_pusher(&self, user: &UserId, device: Option<&DeviceId>, pusher: &Pusher, others: OtherUsers) -> Result<(), Error> { soon() }
    /// Removes a pusher; none is fine.
    pub async fn delete_pusher(&self, user: &UserId, ids: &PusherIds) -> Result<(), Error> { soon() }
    /// A user's pushers.
    pub async fn pushers(&self, reader: &Reader<'_>, user: &UserId) -> Result<Vec<PusherInfo>, Error> { soon() }
    /// Users that have pushers, from `after` (excluded), by id.
    pub async fn users_with_pushers(&self, after: Option<&UserId>, limit: usize) -> Result<Vec<OwnedUserId>, Error> { soon() }
}
