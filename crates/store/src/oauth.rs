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
    /// SHA-256 of the stored password when it was granted: another password ends the grant.
    #[serde(default, with = "crate::hex32::option", skip_serializing_if = "Option::is_none")]
    pub password: Option<[u8; 32]>,
}

/// Somebody logged in to this server's pages with a browser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrowserSession {
    /// Who.
    pub user: OwnedUserId,
    /// SHA-256 of the stored password: another password ends the session.
    #[serde(with = "crate::hex32")]
    pub password: [u8; 32],
    /// End of validity, in milliseconds since 1970.
    pub expires: u64,
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
}
