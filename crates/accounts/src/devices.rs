//! Devices: listing, naming, ending, and when they were last seen.

use chappe_store::accounts::Device;
use ruma::{DeviceId, OwnedDeviceId, UserId};

use crate::{Accounts, Error, soon};

/// A device as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its id.
    pub device_id: OwnedDeviceId,
    /// Shown name.
    pub name: Option<String>,
    /// Last seen at, in milliseconds since 1970.
    pub last_seen_ms: Option<u64>,
    /// Last seen from.
    pub last_seen_ip: Option<String>,
}

#[derive(Default)]
pub(crate) struct SeenBuffer {}

impl Accounts {
    /// All devices of a user, by id.
    pub async fn devices(&self, user: &UserId) -> Result<Vec<DeviceInfo>, Error> { soon() }
    /// One device.
    pub async fn device(&self, user: &UserId, device: &DeviceId) -> Result<Option<DeviceInfo>, Error> { soon() }
    /// Makes a device without tokens, if it is not there: for application services.
    pub async fn ensure_device(&self, user: &UserId, device: &DeviceId, name: Option<&str>) -> Result<(), Error> { soon() }
    /// Names a device; `None` unnames it. [`Error::NotFound`].
    pub async fn rename_device(&self, user: &UserId, device: &DeviceId, name: Option<&str>) -> Result<(), Error> { soon() }
    /// Ends devices: their tokens, keys, messages, pushers. Unknown ones are passed over.
    pub async fn delete_devices(&self, user: &UserId, devices: &[OwnedDeviceId]) -> Result<(), Error> { soon() }
    /// Notes that a device was seen; kept in memory until [`Accounts::flush_seen`].
    pub fn saw(&self, user: &UserId, device: &DeviceId, ip: Option<std::net::IpAddr>) {}
    /// Writes what [`Accounts::saw`] noted; meant to be called every minute and at shutdown.
    pub async fn flush_seen(&self) -> Result<(), Error> { soon() }
}
