//! The signing keys of other servers, as they were published.

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};

use crate::{Json, table};

/// One verify key of another server. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerKey {
    /// The ed25519 public key, unpadded base64.
    pub key: String,
    /// It vouches for events up to this time; for an old key, when it stopped being used.
    pub valid_until: u64,
    /// Whether it is among the server's `old_verify_keys`: it vouches for old events, never for a request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub old: bool,
}

/// A key document as another server signed it, kept for those who ask this server as a notary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDocument {
    /// When it was fetched (milliseconds since the Unix epoch).
    pub fetched_at: u64,
    /// Its own `valid_until_ts`.
    pub valid_until: u64,
    /// The signed JSON text.
    pub json: String,
}

table! {
    /// `(server, key id such as "ed25519:a_b")` → the key.
    ServerKeys = SERVER_KEYS: (OwnedServerName, String) => Json<ServerKey>;
    /// Server → its last key document.
    KeyDocuments = KEY_DOCUMENTS: OwnedServerName => Json<KeyDocument>;
}
