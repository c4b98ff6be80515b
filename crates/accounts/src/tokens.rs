//! Access, refresh, log-in and OpenID tokens: stored as SHA-256 only, answered from memory on the hot path.

use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::{Accounts, Error, Requester, soon};

/// Whether a client can refresh its access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshing {
    /// It gets a short-lived token and a refresh token.
    Yes,
    /// It gets one token.
    No,
}

/// A log-in that was allowed already.
#[derive(Clone, Debug)]
pub struct LogIn {
    /// Who.
    pub user_id: OwnedUserId,
    /// The client's device; `None` makes a new one. An existing device keeps its keys and loses its old tokens.
    pub device_id: Option<OwnedDeviceId>,
    /// Name for a new device.
    pub device_name: Option<String>,
    /// Whether the client can refresh.
    pub refreshing: Refreshing,
}

/// Tokens handed out. The only time they are seen in clear.
#[derive(Clone)]
pub struct Issued {
    /// The device they are for.
    pub device_id: OwnedDeviceId,
    /// Access token.
    pub access_token: String,
    /// Refresh token, if the client can use one.
    pub refresh_token: Option<String>,
    /// How long the access token lives, in milliseconds; `None`: until logged out.
    pub expires_in_ms: Option<u64>,
}

/// Answers `authenticate` without the store.
#[derive(Default)]
pub(crate) struct TokenCache {}

impl Accounts {
    /// Who an access token stands for. [`Error::UnknownToken`], [`Error::Locked`], [`Error::Deactivated`].
    pub async fn authenticate(&self, token: &str) -> Result<Requester, Error> { soon() }
    /// As [`Accounts::authenticate`], for the requests a locked account may still make: logging out.
    pub async fn authenticate_locked(&self, token: &str) -> Result<Requester, Error> { soon() }
    /// Logs a device in. [`Error::Deactivated`], [`Error::Locked`], [`Error::NotFound`] without that user, [`Error::TooMany`] devices.
    pub async fn log_in(&self, log_in: LogIn) -> Result<Issued, Error> { soon() }
    /// Exchanges a refresh token. The old pair stays valid until the new one is first used.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Issued, Error> { soon() }
    /// Ends a device: its tokens, keys, messages, pushers.
    pub async fn log_out(&self, user: &UserId, device: &DeviceId) -> Result<(), Error> { soon() }
    /// Ends all devices of a user; gives those that were.
    pub async fn log_out_all(&self, user: &UserId) -> Result<Vec<OwnedDeviceId>, Error> { soon() }
    /// Revokes all tokens of a user and keeps the devices: their clients log in again softly.
    pub async fn soft_log_out_all(&self, user: &UserId) -> Result<(), Error> { soon() }
    /// A token for `m.login.token`; gives it and its lifetime in milliseconds.
    pub async fn login_token(&self, user: &UserId) -> Result<(String, u64), Error> { soon() }
    /// Uses a log-in token up. [`Error::Forbidden`] when it is unknown, used or expired.
    pub async fn redeem_login_token(&self, token: &str) -> Result<OwnedUserId, Error> { soon() }
    /// An OpenID token; gives it and its lifetime in milliseconds.
    pub async fn openid_token(&self, user: &UserId) -> Result<(String, u64), Error> { soon() }
    /// Whose an OpenID token is. [`Error::UnknownToken`].
    pub async fn openid_user(&self, token: &str) -> Result<OwnedUserId, Error> { soon() }
    /// Removes what has expired; gives the number of rows. Meant to be called every few minutes.
    pub async fn sweep(&self) -> Result<usize, Error> { soon() }
}
