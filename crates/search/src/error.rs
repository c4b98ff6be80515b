//! Why a search did not answer.

/// Why a search did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token is none of this search.
    #[error("no such page of this search")]
    BadToken,
    /// What is said here is not indexed.
    #[error("messages cannot be searched on this server")]
    Off,
    /// The index failed; it is built anew if it has to be.
    #[error("the index failed: {0}")]
    Index(#[from] tantivy::TantivyError),
    /// The index could not be read at all and is being built anew.
    #[error("the index is being built anew")]
    Broken,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// Rooms.
    #[error(transparent)]
    Rooms(#[from] chappe_rooms::Error),
    /// Accounts.
    #[error(transparent)]
    Accounts(#[from] chappe_accounts::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] chappe_store::Error),
}
