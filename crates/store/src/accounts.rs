//! Tables of users, passwords, tokens, devices and what is bound to an account.

use std::collections::BTreeSet;

use chappe_kv::Position;
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{Error, Json, Value, table};

/// What an account is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserKind {
    /// A person.
    #[default]
    User,
    /// A guest, without password.
    Guest,
    /// A user of an application service.
    Appservice,
    /// The server itself, e.g. for notices.
    System,
}

/// How an account was closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deactivation {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Whether the user asked to be forgotten.
    #[serde(default)]
    pub erase: bool,
    /// Media and addresses that it had, unless it is erased: whoever proves one of them may have it opened again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<(String, String)>,
}

/// A local user: the head record of the account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// What it is for.
    pub kind: UserKind,
    /// Created at, in milliseconds since 1970.
    pub created: u64,
    /// Whether this is a server administrator.
    #[serde(default, skip_serializing_if = "is_false")]
    pub admin: bool,
    /// Locked: every request is refused until it is unlocked; nothing is lost.
    #[serde(default, skip_serializing_if = "is_false")]
    pub locked: bool,
    /// Suspended: may read, not act.
    #[serde(default, skip_serializing_if = "is_false")]
    pub suspended: bool,
    /// Set once the account is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deactivated: Option<Deactivation>,
    /// The application service that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appservice: Option<String>,
    /// What administrators say of it, for their own order: `bot` or `support`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_type: Option<String>,
    /// When the account ends unless its user renews it, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<u64>,
    /// How often it may ask, where an administrator has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<OwnRate>,
    /// Number of times the head was replaced, so that each writer makes another value.
    #[serde(default)]
    pub revision: u64,
}

/// How often one user may send messages, instead of what the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnRate {
    /// Messages a second in the long run; 0: nothing that the user does is counted.
    pub per_second: u32,
    /// Messages at once.
    pub burst: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// An access token's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    /// Whose.
    pub user: OwnedUserId,
    /// Which device.
    pub device: OwnedDeviceId,
    /// End of validity, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Hash of the refresh token that this token's first use revokes, with its access token.
    #[serde(default, with = "crate::hex32::option", skip_serializing_if = "Option::is_none")]
    pub replaces: Option<[u8; 32]>,
    /// Whether an OAuth client got it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub oauth: bool,
}

/// A refresh token's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshToken {
    /// Whose.
    pub user: OwnedUserId,
    /// Which device.
    pub device: OwnedDeviceId,
    /// End of validity, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Hash of the access token issued with it.
    #[serde(with = "crate::hex32")]
    pub access: [u8; 32],
    /// Hash of the refresh token issued in exchange for this one, once it was exchanged.
    #[serde(default, with = "crate::hex32::option", skip_serializing_if = "Option::is_none")]
    pub next: Option<[u8; 32]>,
    /// Hash of the refresh token that this one was issued for, until that one is revoked.
    #[serde(default, with = "crate::hex32::option", skip_serializing_if = "Option::is_none")]
    pub previous: Option<[u8; 32]>,
}

/// What a one-off token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OneOffPurpose {
    /// Logging in once (`m.login.token`).
    LogIn,
    /// The same, for somebody whom an identity provider has vouched for.
    SignOn,
    /// Proving one's identity to another service (OpenID), until it expires.
    OpenId,
}

/// A one-off token's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneOffToken {
    /// What for.
    pub purpose: OneOffPurpose,
    /// Whose.
    pub user: OwnedUserId,
    /// End of validity, in milliseconds since 1970.
    pub expires: u64,
}

/// A registration token (`m.login.registration_token`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationToken {
    /// How many accounts it is good for; `None` is any number.
    pub uses_allowed: Option<u64>,
    /// How many accounts it has made.
    pub completed: u64,
    /// End of validity, in milliseconds since 1970.
    pub expires: Option<u64>,
}

/// An e-mail address or phone number bound to an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threepid {
    /// Proved at, in milliseconds since 1970.
    pub validated: u64,
    /// Bound at, in milliseconds since 1970.
    pub added: u64,
}

/// An account with an identity provider, by which a local user logs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalId {
    /// Whose.
    pub user: OwnedUserId,
    /// What the configuration called the provider then.
    pub provider: String,
    /// Since when, in milliseconds since 1970.
    pub linked: u64,
}

/// A device: the head record of its tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Shown name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Created at, in milliseconds since 1970.
    pub created: u64,
    /// Number of times the head was replaced.
    #[serde(default)]
    pub revision: u64,
    /// Whether nobody is logged in with it and nobody can (MSC3814).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dehydrated: bool,
    /// The OAuth client that it logged in with; absent: with none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OAuthLogIn>,
    /// Another number for another log-in; absent: nobody has logged in with it since there are such numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_in: Option<u64>,
}

/// How a device logged in with an OAuth client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OAuthLogIn {
    /// Digest of what the client registered.
    #[serde(with = "crate::hex32")]
    pub client: [u8; 32],
    /// The scope that the user granted.
    pub scope: String,
    /// The log-in of the browser in which the user did, by its hash.
    #[serde(default, with = "crate::hex32::option", skip_serializing_if = "Option::is_none")]
    pub browser: Option<[u8; 32]>,
}

/// When a device was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// In milliseconds since 1970.
    pub at: u64,
    /// From which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
}

/// A pusher as its client set it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pusher {
    /// The pusher in the form of the client API.
    pub pusher: serde_json::Value,
    /// The device that set it; the pusher ends with the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<OwnedDeviceId>,
    /// Set at, in milliseconds since 1970.
    pub created: u64,
}

/// A value with the position of the commit that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positioned<T> {
    /// Written by this commit.
    pub position: Position,
    /// What.
    pub value: T,
}

impl<T: Value> Value for Positioned<T> {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.position.0.to_be_bytes().to_vec();
        bytes.extend(self.value.to_bytes());
        bytes
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (head, tail) = bytes.split_first_chunk().ok_or(Error::Corrupt("value too short"))?;
        Ok(Self { position: Position(u64::from_be_bytes(*head)), value: T::from_bytes(tail)? })
    }
}

table! {
    /// User → account.
    Users = USERS: OwnedUserId => Json<User>;
    /// User → argon2id hash in PHC form.
    Passwords = PASSWORDS: OwnedUserId => String;
    /// The beginnings of hashes that say how long a comparison takes: of all hashes there are, and of those made at the last
    /// start.
    PasswordCosts = PASSWORD_COSTS: () => Json<BTreeSet<String>>;
    /// User → the last day that they were here, in days since 1970 (UTC).
    LastActive = LAST_ACTIVE: OwnedUserId => u64;
    /// User → since when (milliseconds since 1970) the rooms of this closed account are to be left.
    Departures = DEPARTURES: OwnedUserId => u64;
    /// SHA-256 of the token → whose.
    AccessTokens = ACCESS_TOKENS: [u8; 32] => Json<AccessToken>;
    /// SHA-256 of the token → whose.
    RefreshTokens = REFRESH_TOKENS: [u8; 32] => Json<RefreshToken>;
    /// `(user, device, SHA-256 of the token)` → 0 access token, 1 refresh token, 2 family of refresh tokens.
    DeviceTokens = DEVICE_TOKENS: (OwnedUserId, OwnedDeviceId, [u8; 32]) => u8;
    /// SHA-256 of the token → whose, what for.
    OneOffTokens = ONE_OFF_TOKENS: [u8; 32] => Json<OneOffToken>;
    /// `(milliseconds since 1970, table number, key)` → nothing: that row may be swept then.
    Expiries = EXPIRIES: (u64, u8, [u8; 32]) => ();
    /// Token → its uses.
    RegistrationTokens = REGISTRATION_TOKENS: String => Json<RegistrationToken>;
    /// `(user, medium, address)` → since when.
    Threepids = THREEPIDS: (OwnedUserId, String, String) => Json<Threepid>;
    /// `(medium, address)` → user.
    ThreepidOwners = THREEPID_OWNERS: (String, String) => String;
    /// `(medium, address)` → user whose it was when the account was closed, unless that was erased.
    FormerOwners = FORMER_OWNERS: (String, String) => String;
    /// `(issuer, subject)` → whose.
    ExternalIds = EXTERNAL_IDS: (String, String) => Json<ExternalId>;
    /// `(user, issuer, subject)` → nothing.
    ExternalIdsOf = EXTERNAL_IDS_OF: (OwnedUserId, String, String) => ();
    /// `(user, device)` → device.
    Devices = DEVICES: (OwnedUserId, OwnedDeviceId) => Json<Device>;
    /// `(user, device)` → when and from where.
    DeviceSeen = DEVICE_SEEN: (OwnedUserId, OwnedDeviceId) => Json<Seen>;
    /// `(user, application, push key)` → pusher.
    Pushers = PUSHERS: (OwnedUserId, String, String) => Json<Pusher>;
    /// `(application, push key, user)` → nothing.
    PusherOwners = PUSHER_OWNERS: (String, String, OwnedUserId) => ();
}
