//! Why a medium was not taken or given.

/// Why a medium was not taken or given, named by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none: 404 `M_NOT_FOUND`.
    #[error("there is no such media")]
    NotFound,
    /// The address was made but nothing was uploaded yet: 504 `M_NOT_YET_UPLOADED`.
    #[error("the media has not been uploaded yet")]
    NotYetUploaded,
    /// The address has its file already: 409 `M_CANNOT_OVERWRITE_MEDIA`.
    #[error("the media has been uploaded already")]
    AlreadyUploaded,
    /// Not the user who made the address, or its time is over: 403 `M_FORBIDDEN`.
    #[error("this address is not yours to upload to")]
    NotYours,
    /// Too many addresses without files: 429 `M_LIMIT_EXCEEDED`.
    #[error("too many uploads have been announced and not made")]
    TooManyPending,
    /// Send less: 413 `M_TOO_LARGE`.
    #[error("the media is too large")]
    TooLarge,
    /// The user has used up its space: 403 `M_FORBIDDEN`.
    #[error("your space for uploads is used up")]
    QuotaExceeded,
    /// The upload broke off: 400 `M_UNKNOWN`.
    #[error("the upload broke off: {0}")]
    BrokeOff(String),
    /// Something was found in it: 403 `MCS_MEDIA_NOT_CLEAN`.
    #[error("the media is not clean")]
    NotClean,
    /// It could not be found out whether it is clean: 503 `M_UNKNOWN`.
    #[error("the media could not be inspected")]
    NotInspected(String),
    /// No thumbnail can be made of it: 400 `M_UNKNOWN`.
    #[error("no thumbnail can be made of this media")]
    NoThumbnail,
    /// Another server's is too large: 502 `M_TOO_LARGE`.
    #[error("the media is too large")]
    RemoteTooLarge,
    /// Much of this is going on already, try again: 429 `M_LIMIT_EXCEEDED`.
    #[error("too much of this is going on at the moment")]
    Busy,
    /// This server shows no previews of web pages: 404 `M_UNRECOGNIZED`.
    #[error("there are no previews of web pages here")]
    PreviewsOff,
    /// No page can lie at such an address: 400 `M_INVALID_PARAM`.
    #[error("not an address of a web page: {0}")]
    NotAWebAddress(&'static str),
    /// Pages of this host are not fetched: 403 `M_FORBIDDEN`.
    #[error("pages of this host are not previewed here")]
    HostNotAllowed,
    /// The page was not had, or the guard was against it: 502 `M_UNKNOWN`.
    #[error("the page could not be fetched")]
    PageFailed,
    /// The server that has it was not reached or answered nonsense: 502.
    #[error("the media's server could not be asked: {0}")]
    RemoteFailed(String),
    /// The disk failed: 500.
    #[error("media storage: {0}")]
    Disk(#[from] std::io::Error),
    /// The store failed, or was too busy: 500.
    #[error(transparent)]
    Store(#[from] chappe_store::Error),
    /// The server is stopping: 503.
    #[error("the server is stopping")]
    Stopping,
}
