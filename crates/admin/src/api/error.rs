//! What the domain says, in the words of the admin API.

use axum::response::{IntoResponse, Response};
use http::StatusCode;

/// An error on its way to an administrator.
#[derive(Clone, Debug)]
pub(crate) struct Error(chappe_web::Error);

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

fn refusal(status: StatusCode, errcode: &str, error: &dyn std::fmt::Display) -> chappe_web::Error {
    chappe_web::Error::new(status, errcode, error.to_string())
}

fn bad_request(errcode: &str, error: &dyn std::fmt::Display) -> chappe_web::Error {
    refusal(StatusCode::BAD_REQUEST, errcode, error)
}

impl From<chappe_accounts::Error> for Error {
    fn from(error: chappe_accounts::Error) -> Self {
        use chappe_accounts::Error as E;
        Self(match &error {
            E::NotFound(_) => chappe_web::Error::not_found(error.to_string()),
            E::Forbidden(_) => refusal(StatusCode::FORBIDDEN, "M_FORBIDDEN", &error),
            E::Suspended => refusal(StatusCode::FORBIDDEN, "M_USER_SUSPENDED", &error),
            E::Deactivated => refusal(StatusCode::FORBIDDEN, "M_USER_DEACTIVATED", &error),
            E::UnknownToken { soft_logout } => {
                refusal(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", &error).with("soft_logout", *soft_logout)
            }
            E::Expired => refusal(StatusCode::FORBIDDEN, "ORG_MATRIX_EXPIRED_ACCOUNT", &error),
            E::Locked => refusal(StatusCode::UNAUTHORIZED, "M_USER_LOCKED", &error).with("soft_logout", true),
            E::UserInUse => bad_request("M_USER_IN_USE", &error),
            E::InvalidUsername(_) => bad_request("M_INVALID_USERNAME", &error),
            E::Reserved => bad_request("M_EXCLUSIVE", &error),
            E::BadJson(_) => bad_request("M_BAD_JSON", &error),
            E::WeakPassword(weakness) => bad_request(weakness.errcode(), &error),
            E::TooLarge(_) => refusal(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", &error),
            E::TooMany(_) => bad_request("M_LIMIT_EXCEEDED", &error),
            E::ThreepidInUse => bad_request("M_THREEPID_IN_USE", &error),
            E::Busy => chappe_web::Error::busy(),
            E::Store(_) => chappe_web::Error::internal(&error),
            _ => bad_request("M_INVALID_PARAM", &error),
        })
    }
}

impl From<chappe_rooms::Error> for Error {
    fn from(error: chappe_rooms::Error) -> Self {
        use chappe_rooms::Error as E;
        Self(match &error {
            E::NotFound(_) => chappe_web::Error::not_found(error.to_string()),
            E::Forbidden(_) | E::Outsiders(_) | E::InviteBlocked | E::NoGuests | E::NoticeRoom => {
                refusal(StatusCode::FORBIDDEN, "M_FORBIDDEN", &error)
            }
            E::BadJson(_) => bad_request("M_BAD_JSON", &error),
            E::InvalidParam(_) => bad_request("M_INVALID_PARAM", &error),
            E::TooLarge(_) => refusal(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", &error),
            E::Retry => chappe_web::Error::busy(),
            E::Unreachable | E::HostilePeer(_) | E::Peer(_) => {
                refusal(StatusCode::BAD_GATEWAY, "M_UNKNOWN", &error)
            }
            E::Store(_) => chappe_web::Error::internal(&error),
            _ => bad_request("M_UNKNOWN", &error),
        })
    }
}

impl From<chappe_media::Error> for Error {
    fn from(error: chappe_media::Error) -> Self {
        use chappe_media::Error as E;
        Self(match &error {
            E::NotFound => chappe_web::Error::not_found(error.to_string()),
            E::Store(chappe_store::Error::Conflict) => chappe_web::Error::busy(),
            E::Disk(_) | E::Store(_) => chappe_web::Error::internal(&error),
            _ => bad_request("M_UNKNOWN", &error),
        })
    }
}

impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Self {
        use crate::Error as E;
        match error {
            E::Accounts(error) => error.into(),
            E::Rooms(error) => error.into(),
            E::Store(error) => error.into(),
            E::Media(error) => error.into(),
            E::NotFound(_) => Self(chappe_web::Error::not_found(error.to_string())),
            E::Invalid(_) => Self(chappe_web::Error::invalid_param(error.to_string())),
            other => Self(chappe_web::Error::internal(other)),
        }
    }
}

impl From<chappe_store::Error> for Error {
    fn from(error: chappe_store::Error) -> Self {
        Self(match error {
            chappe_store::Error::Conflict => chappe_web::Error::busy(),
            other => chappe_web::Error::internal(other),
        })
    }
}
