//! Why a request of a client was not granted, in the words of the RFCs.

use std::borrow::Cow;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

/// An error of RFC 6749 (sections 4.1.2.1 and 5.2), 7009, 7591 (section 3.2.2) or 8628 (section 3.5), or why there is none.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The request is malformed.
    #[error("{0}")]
    InvalidRequest(Cow<'static, str>),
    /// There is no such client, or it proves who it is in a way that is not supported.
    #[error("{0}")]
    InvalidClient(&'static str),
    /// The same, said in the header: the answer names what could be said there (RFC 6749, section 5.2).
    #[error("{0}")]
    InvalidClientHeader(&'static str),
    /// The code or token is not good for this, or no longer.
    #[error("{0}")]
    InvalidGrant(&'static str),
    /// The client has not registered for this kind of grant.
    #[error("the client is not registered for this kind of grant")]
    UnauthorizedClient,
    /// There is no such kind of grant.
    #[error("this kind of grant is not supported")]
    UnsupportedGrantType,
    /// There is no such kind of response.
    #[error("the only response_type is code")]
    UnsupportedResponseType,
    /// The scope cannot be granted.
    #[error("{0}")]
    InvalidScope(&'static str),
    /// The user said no.
    #[error("the user refused")]
    AccessDenied,
    /// Somebody has to look at a page first.
    #[error("the user has to be asked")]
    InteractionRequired,
    /// A redirect URI cannot be registered.
    #[error("{0}")]
    InvalidRedirectUri(&'static str),
    /// What the client registers is wrong.
    #[error("{0}")]
    InvalidClientMetadata(Cow<'static, str>),
    /// The user has not decided yet.
    #[error("the user has not decided yet")]
    AuthorizationPending,
    /// As above, and the client asks too often.
    #[error("the client asks too often")]
    SlowDown,
    /// The device code has ended.
    #[error("the device code has expired")]
    ExpiredToken,
    /// The account is locked: nothing is lost, and clients must not take it for logged out, as they do at 4xx.
    #[error("this account is locked")]
    Locked,
    /// The account has ended until it is renewed: nothing is lost, and clients must not take it for logged out.
    #[error("this account has expired")]
    Expired,
    /// Come back later.
    #[error("too many requests")]
    Limited(chappe_web::Error),
    /// The body is too long, or did not arrive.
    #[error("{0}")]
    Body(chappe_web::Error),
    /// The domain could not answer.
    #[error("internal error")]
    Internal,
}

/// What functions of this crate give.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::InvalidRequest`] with this sentence.
    pub(crate) fn request(sentence: &'static str) -> Self {
        Self::InvalidRequest(sentence.into())
    }

    /// Its code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) | Self::Body(_) => "invalid_request",
            Self::InvalidClient(_) | Self::InvalidClientHeader(_) => "invalid_client",
            Self::InvalidGrant(_) => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::InvalidScope(_) => "invalid_scope",
            Self::AccessDenied => "access_denied",
            Self::InteractionRequired => "interaction_required",
            Self::InvalidRedirectUri(_) => "invalid_redirect_uri",
            Self::InvalidClientMetadata(_) => "invalid_client_metadata",
            Self::AuthorizationPending => "authorization_pending",
            Self::SlowDown => "slow_down",
            Self::ExpiredToken => "expired_token",
            Self::Locked | Self::Expired | Self::Limited(_) => "temporarily_unavailable",
            Self::Internal => "server_error",
        }
    }

    /// Its HTTP status, where it is the answer to a request of a client.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::InvalidClient(_) | Self::InvalidClientHeader(_) => StatusCode::UNAUTHORIZED,
            Self::Limited(error) | Self::Body(error) => error.status(),
            Self::Locked | Self::Expired => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// What `Retry-After` says.
    pub(crate) fn retry_after(&self) -> Option<HeaderValue> {
        match self {
            Self::Locked | Self::Expired => Some(HeaderValue::from_static("60")),
            Self::Limited(error) => error.clone().into_response().headers().get(header::RETRY_AFTER).cloned(),
            _ => None,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let retry_after = self.retry_after();
        let body = json!({ "error": self.code(), "error_description": self.to_string() });
        let mut response = (self.status(), Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Self::InvalidClientHeader(_) = self {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"oauth\""));
        }
        if let Some(after) = retry_after {
            headers.insert(header::RETRY_AFTER, after);
        }
        response
    }
}

impl From<chappe_accounts::Error> for Error {
    fn from(error: chappe_accounts::Error) -> Self {
        use chappe_accounts::Error as E;
        match error {
            E::UnknownToken { .. } => Self::InvalidGrant("unknown or expired token"),
            E::Deactivated | E::NotFound(_) => Self::InvalidGrant("this account is closed"),
            E::Locked => Self::Locked,
            E::Expired => Self::Expired,
            E::TooMany(_) => Self::InvalidGrant("this account has too many devices"),
            E::Busy => Self::busy(),
            error => {
                tracing::error!(%error, "a request of an OAuth client failed for an internal reason");
                Self::Internal
            }
        }
    }
}

impl From<chappe_store::Error> for Error {
    fn from(error: chappe_store::Error) -> Self {
        tracing::error!(%error, "the store could not answer");
        Self::Internal
    }
}

impl From<chappe_identity::Error> for Error {
    fn from(error: chappe_identity::Error) -> Self {
        tracing::error!(%error, "an address could not be looked up");
        Self::Internal
    }
}

impl Error {
    /// Too much is going on.
    pub(crate) fn busy() -> Self {
        Self::Limited(chappe_web::Error::limit_exceeded(std::time::Duration::from_secs(1)))
    }
}
