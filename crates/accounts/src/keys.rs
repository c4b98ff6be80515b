//! End-to-end encryption: the public keys of devices and users, and who has to hear of their changes.

mod claim;
mod cross_signing;
mod form;
mod lists;
mod query;
mod remote;
mod signatures;
mod upload;

use std::collections::BTreeMap;

use chappe_store::Position;
use ruma::{
    OneTimeKeyAlgorithm, OwnedDeviceId, OwnedOneTimeKeyId, OwnedUserId,
    encryption::{CrossSigningKey, DeviceKeys, OneTimeKey},
    serde::Raw,
};

pub(crate) use self::upload::check_upload;

/// What a device uploads.
#[derive(Clone, Debug, Default)]
pub struct KeyUpload {
    /// Its identity keys.
    pub device_keys: Option<Raw<DeviceKeys>>,
    /// One-time keys.
    pub one_time_keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
    /// Fallback keys.
    pub fallback_keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
}

/// What a device has left to hand out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// One-time keys, by algorithm; `signed_curve25519` is always there.
    pub one_time_keys: BTreeMap<OneTimeKeyAlgorithm, u32>,
    /// Algorithms of fallback keys never handed out.
    pub unused_fallback: Vec<OneTimeKeyAlgorithm>,
}

/// Public keys of one user.
#[derive(Clone, Debug, Default)]
pub struct PublicKeys {
    /// Identity keys of devices, with signatures and, in `unsigned`, the device's name.
    pub devices: BTreeMap<OwnedDeviceId, Raw<DeviceKeys>>,
    /// Master key.
    pub master: Option<Raw<CrossSigningKey>>,
    /// Self-signing key.
    pub self_signing: Option<Raw<CrossSigningKey>>,
    /// User-signing key: for the user alone.
    pub user_signing: Option<Raw<CrossSigningKey>>,
}

/// One-time keys that are asked for: one of an algorithm for a device.
pub type Claim = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>>;

/// One-time keys handed out.
pub type ClaimedKeys =
    BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>>>;

/// What a cross-signing key is for, with the number it is stored under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    /// Master key.
    Master = 0,
    /// Signs the user's own devices.
    SelfSigning = 1,
    /// Signs other users' master keys.
    UserSigning = 2,
}

impl Usage {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Master, Self::SelfSigning, Self::UserSigning];

    /// Its name in the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::SelfSigning => "self_signing",
            Self::UserSigning => "user_signing",
        }
    }
}

/// Cross-signing keys a user uploads.
#[derive(Clone, Debug, Default)]
pub struct CrossSigningUpload {
    /// Master key.
    pub master: Option<Raw<CrossSigningKey>>,
    /// Self-signing key.
    pub self_signing: Option<Raw<CrossSigningKey>>,
    /// User-signing key.
    pub user_signing: Option<Raw<CrossSigningKey>>,
}

/// The last change of a user's devices or keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceListChange {
    /// Whose.
    pub user: OwnedUserId,
    /// When.
    pub position: Position,
    /// The user's change before that, 0 for none.
    pub previous: Position,
}

impl DeviceListChange {
    /// Whether one of the two changes known came after a position and up to another.
    pub fn is_between(&self, after: Position, up_to: Position) -> bool {
        let inside = |at: Position| at > after && at <= up_to;
        // Before the last two there may have been more.
        inside(self.position) || self.previous > after
    }
}

/// Keys and name of a remote device, each where it has one.
pub type RemoteDeviceUpdate = (Option<Raw<DeviceKeys>>, Option<String>);

/// What the federation fetched or was told of a remote user's devices.
#[derive(Clone, Debug, Default)]
pub struct RemoteUpdate {
    /// Their server's stream id; `None` leaves it.
    pub stream_id: Option<u64>,
    /// Devices to replace or, with `None`, to forget.
    pub devices: BTreeMap<OwnedDeviceId, Option<RemoteDeviceUpdate>>,
    /// Whether `devices` is the whole list: others are forgotten, and the list is no longer stale.
    pub complete: bool,
    /// Master key.
    pub master: Option<Raw<CrossSigningKey>>,
    /// Self-signing key.
    pub self_signing: Option<Raw<CrossSigningKey>>,
}

/// Whether existing cross-signing keys may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// The user has authenticated for it.
    Allowed,
    /// Only first keys and identical ones are taken.
    Refused,
}
