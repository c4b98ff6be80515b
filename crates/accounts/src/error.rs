//! Why an account operation did not happen, named by what the caller can do about it.

use std::fmt;

use ruma::api::client::uiaa::UiaaInfo;

/// What is wrong with a new password. The order is that of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// Fewer characters than asked for (`M_PASSWORD_TOO_SHORT`).
    TooShort,
    /// `M_PASSWORD_NO_DIGIT`.
    NoDigit,
    /// `M_PASSWORD_NO_SYMBOL`.
    NoSymbol,
    /// `M_PASSWORD_NO_UPPERCASE`.
    NoUppercase,
    /// `M_PASSWORD_NO_LOWERCASE`.
    NoLowercase,
    /// Too easy to guess (`M_WEAK_PASSWORD`).
    Guessable,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "is too short",
            Self::NoDigit => "has no digit",
            Self::NoSymbol => "has no symbol",
            Self::NoUppercase => "has no capital letter",
            Self::NoLowercase => "has no small letter",
            Self::Guessable => "is too easy to guess",
        })
    }
}

impl Weakness {
    /// Its Matrix error code (MSC2000).
    pub fn errcode(self) -> &'static str {
        match self {
            Self::TooShort => "M_PASSWORD_TOO_SHORT",
            Self::NoDigit => "M_PASSWORD_NO_DIGIT",
            Self::NoSymbol => "M_PASSWORD_NO_SYMBOL",
            Self::NoUppercase => "M_PASSWORD_NO_UPPERCASE",
            Self::NoLowercase => "M_PASSWORD_NO_LOWERCASE",
            Self::Guessable => "M_WEAK_PASSWORD",
        }
    }
}

/// Why an account operation did not happen. Nothing was written unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing: 404 `M_NOT_FOUND`.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// Not allowed: 403 `M_FORBIDDEN`, with a sentence for the user.
    #[error("{0}")]
    Forbidden(&'static str),
    /// Log in again: 401 `M_UNKNOWN_TOKEN`. After a soft logout the client keeps its data and its device.
    #[error("unknown or expired token")]
    UnknownToken {
        /// Whether the device still exists.
        soft_logout: bool,
    },
    /// The account is closed: 403 `M_USER_DEACTIVATED`.
    #[error("this account has been deactivated")]
    Deactivated,
    /// The account is locked: 401 `M_USER_LOCKED`, soft logout.
    #[error("this account has been locked")]
    Locked,
    /// The account has ended until it is renewed: 403 `ORG_MATRIX_EXPIRED_ACCOUNT`. Nothing is lost.
    #[error("this account has expired")]
    Expired,
    /// The user has no such device to act as: 400 `M_UNKNOWN_DEVICE`.
    #[error("this user has no such device")]
    UnknownDevice,
    /// The account may only read: 403 `M_USER_SUSPENDED`.
    #[error("this account has been suspended")]
    Suspended,
    /// Choose another name: 400 `M_USER_IN_USE`.
    #[error("this user name is taken")]
    UserInUse,
    /// Choose another name: 400 `M_INVALID_USERNAME`.
    #[error("{0}")]
    InvalidUsername(&'static str),
    /// Choose another name: 400 `M_EXCLUSIVE`.
    #[error("this name is reserved")]
    Reserved,
    /// Send something else: 400 `M_INVALID_PARAM`.
    #[error("{0}")]
    Invalid(String),
    /// The server keeps this account data itself: 405 `M_BAD_JSON`.
    #[error("this type of account data is managed by the server")]
    Managed,
    /// Send well-formed JSON: 400 `M_BAD_JSON`.
    #[error("{0}")]
    BadJson(String),
    /// Sign properly: 400 `M_INVALID_SIGNATURE`.
    #[error("{0}")]
    InvalidSignature(&'static str),
    /// Choose a better password: 400 with [`Weakness::errcode`].
    #[error("this password {0}")]
    WeakPassword(Weakness),
    /// Send less: 413 `M_TOO_LARGE`.
    #[error("{0} too large")]
    TooLarge(&'static str),
    /// A name of a profile field is too long: 400 `M_KEY_TOO_LARGE`.
    #[error("the name of a profile field has at most 255 bytes")]
    FieldNameTooLarge,
    /// A profile would be too large: 400 `M_PROFILE_TOO_LARGE`.
    #[error("a profile has at most 64 KiB")]
    ProfileTooLarge,
    /// One account cannot keep more: remove some, 400 `M_RESOURCE_LIMIT_EXCEEDED`-like (`M_LIMIT_EXCEEDED` without retry).
    #[error("too many {0}")]
    TooMany(&'static str),
    /// The address belongs to another account: 400 `M_THREEPID_IN_USE`.
    #[error("this address is in use")]
    ThreepidInUse,
    /// The account with the identity provider is linked to another user: 400 `M_INVALID_PARAM`.
    #[error("this account of an identity provider is linked to another user")]
    ExternalIdInUse,
    /// The address may not be used here: 403 `M_THREEPID_DENIED` with this sentence.
    #[error("{0}")]
    AddressDenied(String),
    /// Upload to this version instead: 403 `M_WRONG_ROOM_KEYS_VERSION` with `current_version`.
    #[error("wrong backup version, the current one is {current}")]
    WrongBackupVersion {
        /// The version that takes keys.
        current: String,
    },
    /// Go through these stages, then ask again: 401 with this body.
    #[error("authentication needed")]
    Authenticate(Box<UiaaInfo>),
    /// Come back in a moment: 429 `M_LIMIT_EXCEEDED`.
    #[error("too busy, try again")]
    Busy,
    /// The store could not answer: 500.
    #[error(transparent)]
    Store(#[from] chappe_store::Error),
}

impl Error {
    /// An [`Error::Invalid`] with this sentence.
    pub(crate) fn invalid(sentence: impl Into<String>) -> Self {
        Self::Invalid(sentence.into())
    }
}
