//! The to-device inbox: messages wait for one device until it has told that it has them.

use std::collections::BTreeMap;

use chappe_store::{Position, Reader, Tx};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use serde_json::value::RawValue;

use crate::{Accounts, Error, soon};

/// Which devices of one user get which content.
#[derive(Clone, Debug)]
pub enum Recipients {
    /// All devices the user has now.
    All(Box<RawValue>),
    /// These; unknown ones are passed over.
    Devices(BTreeMap<OwnedDeviceId, Box<RawValue>>),
}

/// Messages to be sent.
#[derive(Clone, Debug)]
pub struct Sending<'a> {
    /// Who sends; of this server or, from a received transaction, of another.
    pub sender: &'a UserId,
    /// What makes it happen once: the sending device and its transaction id, or the origin and its message id.
    pub once: Option<(&'a str, &'a str)>,
    /// Event type.
    pub event_type: &'a str,
    /// By local user; remote users are the federation's.
    pub messages: &'a [(OwnedUserId, Recipients)],
}

/// A message that waits.
#[derive(Clone, Debug)]
pub struct ToDeviceMessage {
    /// Sent by this commit.
    pub position: Position,
    /// The message: `type`, `sender`, `content`.
    pub event: Box<RawValue>,
}

impl Accounts {
    /// Sends to local devices, together with what the caller has put into `tx` (rows of the federation's outbox).
    /// `false` when the same was sent before: then nothing is written.
    pub async fn send_to_devices(&self, sending: Sending<'_>, tx: Tx) -> Result<bool, Error> { soon() }
    /// The messages waiting for a device after a position up to another, oldest first, at most `limit` or a little more:
    /// messages of one commit stay together.
    pub async fn to_device_messages(&self, reader: &Reader<'_>, user: &UserId, device: &DeviceId, after: Position, up_to: Position, limit: usize) -> Result<Vec<ToDeviceMessage>, Error> { soon() }
    /// Forgets the messages up to a position (included): the device has them.
    pub async fn delete_to_device(&self, user: &UserId, device: &DeviceId, up_to: Position) -> Result<(), Error> { soon() }
}
