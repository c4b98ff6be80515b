//! Why a file is not given out.

/// Why a file is not given out, named by the codes of the content scanner API.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the JSON that was expected: 400 `MCS_MALFORMED_JSON`.
    #[error("{0}")]
    Malformed(String),
    /// The key of the file is not its key, or the bytes are others: 400 `MCS_MEDIA_FAILED_TO_DECRYPT`.
    #[error("{0}")]
    FailedToDecrypt(&'static str),
    /// Something was found: 403 `MCS_MEDIA_NOT_CLEAN`.
    #[error("{0}")]
    NotClean(&'static str),
    /// Files of this kind are not let through: 403 `MCS_MIME_TYPE_FORBIDDEN`.
    #[error("files of this kind are not let through")]
    TypeForbidden,
    /// What was encrypted for the scanner was not encrypted for its present key: 403 `MCS_BAD_DECRYPTION`.
    #[error("this was not encrypted for the present key: ask for it again")]
    BadDecryption,
    /// The scanner is not there, whatever the file: 500 `M_UNKNOWN`.
    #[error("the scanner is away: {0}")]
    Away(String),
    /// The scanner did not answer, or nothing of use: 500 `M_UNKNOWN`.
    #[error("the scanner failed: {0}")]
    Engine(String),
    /// The medium was not had.
    #[error(transparent)]
    Media(#[from] chappe_media::Error),
    /// The store failed: 500 `M_UNKNOWN`.
    #[error(transparent)]
    Store(#[from] chappe_store::Error),
    /// The disk failed: 500 `M_UNKNOWN`.
    #[error("files of the scanner: {0}")]
    Disk(#[from] std::io::Error),
}
