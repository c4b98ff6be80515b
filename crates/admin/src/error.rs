//! Why a verb did not happen.

/// What the operator reads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Write the arguments differently.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing.
    #[error("{0} not found")]
    NotFound(String),
    /// A file or folder cannot be read or written.
    #[error("{place}: {error}")]
    File {
        /// Which.
        place: String,
        /// Why.
        error: std::io::Error,
    },
    /// Identity says no.
    #[error(transparent)]
    Identity(#[from] chappe_identity::Error),
    /// Accounts say no.
    #[error(transparent)]
    Accounts(#[from] chappe_accounts::Error),
    /// Media say no.
    #[error(transparent)]
    Media(#[from] chappe_media::Error),
    /// Rooms say no.
    #[error(transparent)]
    Rooms(#[from] chappe_rooms::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] chappe_store::Error),
}
