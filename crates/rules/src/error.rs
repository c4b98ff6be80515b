//! Why a rule says no.

/// What the rules answer when they do not say yes. The text is for logs and for the sender, it names no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not an event of this room version at all: drop it, answer 400 to a client.
    #[error("malformed event: {0}")]
    Malformed(String),
    /// A required signature is missing or wrong: drop the event.
    #[error("bad signature: {0}")]
    BadSignature(String),
    /// A server has signed as it must, but with keys that are not at hand: nobody can say whether it did.
    #[error("unknown key: {0}")]
    UnknownKey(String),
    /// The authorization rules refuse the event: reject it, or answer 403 to a client.
    #[error("not allowed: {0}")]
    Forbidden(String),
    /// State resolution lacks an event that it needs: fetch it and try again.
    #[error("state cannot be resolved: {0}")]
    Unresolvable(String),
    /// A signing key cannot be read.
    #[error("unusable signing key: {0}")]
    Key(&'static str),
}
