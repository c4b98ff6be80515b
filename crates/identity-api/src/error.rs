//! What the domain says, in the words of the identity service API.

use axum::response::{IntoResponse, Response};
use http::StatusCode;

/// An error on its way to whoever asked.
#[derive(Clone, Debug)]
pub(crate) struct Error(pub(crate) chappe_web::Error);

/// What handlers give.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl From<chappe_web::Error> for Error {
    fn from(error: chappe_web::Error) -> Self {
        Self(error)
    }
}

impl From<chappe_identity::Error> for Error {
    fn from(error: chappe_identity::Error) -> Self {
        use chappe_identity::Error as E;
        let with = |status, errcode| chappe_web::Error::new(status, errcode, error.to_string());
        let bad = |errcode| with(StatusCode::BAD_REQUEST, errcode);
        Self(match &error {
            E::InvalidEmail(_) => bad("M_INVALID_EMAIL"),
            E::NextLink(_) | E::Invalid(_) => bad("M_INVALID_PARAM"),
            E::Mail(_) | E::NoMail => bad("M_EMAIL_SEND_ERROR"),
            E::NotValidated => bad("M_SESSION_NOT_VALIDATED"),
            E::WrongToken => bad("M_TOKEN_INCORRECT"),
            E::InvalidPepper => bad("M_INVALID_PEPPER"),
            E::BindingNotPermitted => bad("M_BINDING_NOT_PERMITTED"),
            E::Bound { user } => bad("M_THREEPID_IN_USE").with("mxid", user.as_str()),
            E::NoSession => with(StatusCode::NOT_FOUND, "M_NO_VALID_SESSION"),
            E::NotFound(_) => chappe_web::Error::not_found(error.to_string()),
            E::Unauthorized(_) => with(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED"),
            E::NotTrusted | E::MayNotInvite => with(StatusCode::FORBIDDEN, "M_FORBIDDEN"),
            E::Expired => with(StatusCode::FORBIDDEN, "ORG_MATRIX_EXPIRED_ACCOUNT"),
            E::TermsNotSigned => with(StatusCode::FORBIDDEN, "M_TERMS_NOT_SIGNED"),
            E::TooMany { retry_after } => chappe_web::Error::limit_exceeded(*retry_after),
            E::TooManyInvites => with(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED"),
            E::Unreachable => with(StatusCode::BAD_GATEWAY, "M_UNKNOWN"),
            E::Store(chappe_store_error) => chappe_web::Error::internal(chappe_store_error),
            other => chappe_web::Error::internal(other),
        })
    }
}
