//! End-to-end encryption: the public keys of devices and users, and who has to hear of their changes.

use std::collections::{BTreeMap, BTreeSet};

use chappe_store::{Position, Reader};
use ruma::{
    DeviceId, OneTimeKeyAlgorithm, OwnedDeviceId, OwnedOneTimeKeyId, OwnedUserId, UserId,
    encryption::{CrossSigningKey, DeviceKeys, OneTimeKey},
    serde::Raw,
};
use serde_json::value::RawValue;

use crate::{Accounts, Error, soon};

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
pub type ClaimedKeys = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>>>;

/// What a cross-signing key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    /// Master key.
    Master = 0,
    /// Signs the user's own devices.
    SelfSigning = 1,
    /// Signs other users' master keys.
    UserSigning = 2,
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

/// What the federation fetched or was told of a remote user's devices.
#[derive(Clone, Debug, Default)]
pub struct RemoteUpdate {
    /// Their server's stream id; `None` leaves it.
    pub stream_id: Option<u64>,
    /// Devices to replace or, with `None`, to forget.
    pub devices: BTreeMap<OwnedDeviceId, Option<(Option<Raw<DeviceKeys>>, Option<String>)>>,
    /// Whether `devices` is the whole list: others are forgotten, and the list is no longer stale.
    pub complete: bool,
    /// Master key.
    pub master: Option<Raw<CrossSigningKey>>,
    /// Self-signing key.
    pub self_signing: Option<Raw<CrossSigningKey>>,
}

impl Accounts {
    /// Takes a device's keys in. Validates them: user, device, algorithms, shape, size, signature.
    pub async fn upload_keys(&self, user: &UserId, device: &DeviceId, upload: KeyUpload) -> Result<KeyCounts, Error> { soon() }
    /// What a device has left to hand out: one point read.
    pub async fn key_counts(&self, reader: &Reader<'_>, user: &UserId, device: &DeviceId) -> Result<KeyCounts, Error> { soon() }
    /// Public keys of a user as `asker` may see them: of a local user, or of a remote user as cached. An empty list of
    /// devices asks for all. `asker` is `None` for another server.
    pub async fn public_keys(&self, asker: Option<&UserId>, user: &UserId, devices: &[OwnedDeviceId]) -> Result<PublicKeys, Error> { soon() }
    /// Hands out one-time keys of local users; a key is never handed out twice.
    pub async fn claim_keys(&self, claim: &Claim) -> Result<ClaimedKeys, Error> { soon() }
    /// Whether uploading these cross-signing keys needs user-interactive authentication: it does when it would replace a key.
    pub async fn cross_signing_needs_auth(&self, user: &UserId, upload: &CrossSigningUpload) -> Result<bool, Error> { soon() }
    /// Stores cross-signing keys. `allowed` says whether replacing was authorized; a race is refused with [`Error::Forbidden`].
    pub async fn upload_cross_signing(&self, user: &UserId, upload: CrossSigningUpload, replace: Replace) -> Result<(), Error> { soon() }
    /// Takes signatures in, by signed user and signed device or public key; gives those refused, with a reason.
    pub async fn upload_signatures(&self, signer: &UserId, signed: &BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>) -> Result<BTreeMap<OwnedUserId, BTreeMap<String, &'static str>>, Error> { soon() }
    /// Users, local and remote, whose devices or keys changed after a position up to another.
    pub async fn device_list_changes(&self, reader: &Reader<'_>, after: Position, up_to: Position, limit: usize) -> Result<Vec<DeviceListChange>, Error> { soon() }
    /// The last change of one user.
    pub async fn device_list_change(&self, reader: &Reader<'_>, user: &UserId) -> Result<Option<DeviceListChange>, Error> { soon() }
    /// A local user's devices with keys as another server may see them, with names.
    pub async fn federated_devices(&self, user: &UserId) -> Result<Vec<(OwnedDeviceId, Raw<DeviceKeys>, Option<String>)>, Error> { soon() }
    /// What is known of a remote user's devices: stream id and whether the list must be fetched; `None`: nothing.
    pub async fn remote_list(&self, user: &UserId) -> Result<Option<chappe_store::accounts_keys::RemoteList>, Error> { soon() }
    /// Takes in what the federation fetched or was told. Keys are validated; bad ones are dropped alone.
    pub async fn update_remote(&self, user: &UserId, update: RemoteUpdate) -> Result<(), Error> { soon() }
    /// Marks a remote user's device list as to be fetched again.
    pub async fn mark_stale(&self, user: &UserId) -> Result<(), Error> { soon() }
    /// Remote users whose list must be fetched again, from `after` (excluded).
    pub async fn stale_lists(&self, after: Option<&UserId>, limit: usize) -> Result<Vec<OwnedUserId>, Error> { soon() }
    /// Forgets a remote user's devices: no room is shared any more, so no updates come.
    pub async fn forget_remote(&self, user: &UserId) -> Result<(), Error> { soon() }
}

/// Whether existing cross-signing keys may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// The user has authenticated for it.
    Allowed,
    /// Only first keys and identical ones are taken.
    Refused,
}
