//! Tables of OAuth: clients, authorization codes, people logged in to this server's pages.

use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{Json, table};

/// The device that a family of refresh tokens belongs to: whoever shows a token of the family that is not valid any more
/// has an old one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenFamily {
    /// Whose.
    pub user: OwnedUserId,
    /// Which device.
    pub device: OwnedDeviceId,
}

/// A registered client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// What it registered, as far as it is understood (RFC 7591, section 2).
    pub metadata: serde_json::Value,
    /// Last registered or logged in with, in milliseconds since 1970.
    pub used: u64,
}

/// An authorization code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// Who authorized.
    pub user: OwnedUserId,
    /// Which client, by its digest.
    #[serde(with = "crate::hex32")]
    pub client: [u8; 32],
    /// Where the code was sent.
    pub redirect_uri: String,
    /// SHA-256 of the verifier (RFC 7636).
    #[serde(with = "crate::hex32")]
    pub challenge: [u8; 32],
    /// The device to log in.
    pub device: OwnedDeviceId,
    /// What was granted.
    pub scope: String,
    /// End of validity, in milliseconds since 1970.
    pub expires: u64,
    /// Once used: the family of the tokens that were given for it.
    #[serde(default, with = "crate::hex32::option", skip_serializing_if = "Option::is_none")]
    pub used_for: Option<[u8; 32]>,
    /// What the user's log-ins hung on when it was granted: once that is something else, the grant has ended.
    #[serde(
        default,
        rename = "password",
        with = "crate::hex32::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub mark: Option<[u8; 32]>,
    /// The log-in of the browser in which it was granted, by its hash: the grant ends with it.
    #[serde(default, with = "crate::hex32::option", skip_serializing_if = "Option::is_none")]
    pub browser: Option<[u8; 32]>,
}

/// Somebody logged in to this server's pages with a browser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrowserSession {
    /// Who.
    pub user: OwnedUserId,
    /// What the user's log-ins hung on: once that is something else, the session has ended.
    #[serde(rename = "password", with = "crate::hex32")]
    pub mark: [u8; 32],
    /// End of validity, in milliseconds since 1970.
    pub expires: u64,
    /// Until when it does without another proof of who the user is, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved_until: Option<u64>,
}

table! {
    /// SHA-256 of what the refresh tokens of a device have in common → which device.
    TokenFamilies = TOKEN_FAMILIES: [u8; 32] => Json<TokenFamily>;
    /// Digest of what was registered → the client.
    Clients = OAUTH_CLIENTS: [u8; 32] => Json<Client>;
    /// `(client, user, device)` → nothing.
    ClientDevices = OAUTH_CLIENT_DEVICES: ([u8; 32], OwnedUserId, OwnedDeviceId) => ();
    /// SHA-256 of the code → what it is for.
    Codes = OAUTH_CODES: [u8; 32] => Json<Code>;
    /// SHA-256 of the cookie → who.
    BrowserSessions = BROWSER_SESSIONS: [u8; 32] => Json<BrowserSession>;
    /// `(milliseconds since 1970, table number, key)` → nothing: that row is to be looked at then.
    OAuthExpiries = OAUTH_EXPIRIES: (u64, u8, [u8; 32]) => ();
    /// Name → number.
    OAuthCounts = OAUTH_COUNTS: String => i64;
    /// User → how often all devices and browsers were logged out at once.
    LogOuts = LOG_OUTS: OwnedUserId => i64;
    /// `(last use in milliseconds since 1970, client)` → nothing.
    IdleClients = OAUTH_IDLE_CLIENTS: (u64, [u8; 32]) => ();
}
