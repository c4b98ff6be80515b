//! Why a device could not be served.

/// Why a device could not be served, named by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sync token is not one of this server's: `M_UNKNOWN_POS` or `M_INVALID_PARAM`.
    #[error("not a sync token of this server")]
    BadToken,
    /// The connection of a sliding sync has to begin again: `M_UNKNOWN_POS`.
    #[error("this connection is not known any more, begin again")]
    UnknownPos,
    /// A parameter is none that this server gave: `M_INVALID_PARAM`.
    #[error("`{0}` is not valid")]
    BadParameter(&'static str),
    /// The server stops: 503.
    #[error("the server is stopping")]
    Stopping,
    /// Accounts could not answer.
    #[error(transparent)]
    Accounts(#[from] chappe_accounts::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] chappe_store::Error),
    /// Rooms could not answer.
    #[error(transparent)]
    Rooms(#[from] chappe_rooms::Error),
}
