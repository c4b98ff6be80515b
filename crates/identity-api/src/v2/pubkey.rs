//! `/_matrix/identity/v2/pubkey`.

pub(super) mod ephemeral_isvalid;
pub(super) mod isvalid;
pub(super) mod key;

use serde::Deserialize;

/// The key that is asked about, in base64.
#[derive(Deserialize)]
pub(super) struct Question {
    pub(super) public_key: String,
}
