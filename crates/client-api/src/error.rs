//! What the domain says, in the words of the client-server API.

use axum::response::{IntoResponse, Response};
use chappe_accounts::RemoteError;
use chappe_rooms::PeerError;
use http::StatusCode;

/// An error on its way to a client.
#[derive(Clone, Debug)]
pub struct Error(pub(crate) chappe_web::Error);

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

fn bad_request(errcode: &str, error: &dyn std::fmt::Display) -> chappe_web::Error {
    chappe_web::Error::new(StatusCode::BAD_REQUEST, errcode, error.to_string())
}

fn forbidden(errcode: &str, error: &dyn std::fmt::Display) -> chappe_web::Error {
    chappe_web::Error::new(StatusCode::FORBIDDEN, errcode, error.to_string())
}

fn unauthorized(errcode: &str, error: &dyn std::fmt::Display) -> chappe_web::Error {
    chappe_web::Error::new(StatusCode::UNAUTHORIZED, errcode, error.to_string())
}

impl From<chappe_accounts::Error> for Error {
    fn from(error: chappe_accounts::Error) -> Self {
        use chappe_accounts::Error as E;
        Self(match &error {
            E::NotFound(_) => chappe_web::Error::not_found(error.to_string()),
            E::Forbidden(_) => forbidden("M_FORBIDDEN", &error),
            E::UnknownToken { soft_logout } => {
                unauthorized("M_UNKNOWN_TOKEN", &error).with("soft_logout", *soft_logout)
            }
            E::Deactivated => forbidden("M_USER_DEACTIVATED", &error),
            E::Expired => forbidden("ORG_MATRIX_EXPIRED_ACCOUNT", &error),
            E::Locked => unauthorized("M_USER_LOCKED", &error).with("soft_logout", true),
            E::UnknownDevice => bad_request("M_UNKNOWN_DEVICE", &error),
            E::Suspended => forbidden("M_USER_SUSPENDED", &error),
            E::UserInUse => bad_request("M_USER_IN_USE", &error),
            E::InvalidUsername(_) => bad_request("M_INVALID_USERNAME", &error),
            E::Reserved => bad_request("M_EXCLUSIVE", &error),
            E::Invalid(_) | E::ExternalIdInUse => bad_request("M_INVALID_PARAM", &error),
            E::BadJson(_) => bad_request("M_BAD_JSON", &error),
            E::Managed => {
                chappe_web::Error::new(StatusCode::METHOD_NOT_ALLOWED, "M_BAD_JSON", error.to_string())
            }
            E::InvalidSignature(_) => bad_request("M_INVALID_SIGNATURE", &error),
            E::WeakPassword(weakness) => bad_request(weakness.errcode(), &error),
            E::TooLarge(_) => {
                chappe_web::Error::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", error.to_string())
            }
            E::FieldNameTooLarge => bad_request("M_KEY_TOO_LARGE", &error),
            E::ProfileTooLarge => bad_request("M_PROFILE_TOO_LARGE", &error),
            E::TooMany(_) => bad_request("M_LIMIT_EXCEEDED", &error),
            E::ThreepidInUse => bad_request("M_THREEPID_IN_USE", &error),
            E::AddressDenied(_) => forbidden("M_THREEPID_DENIED", &error),
            E::WrongBackupVersion { current } => {
                forbidden("M_WRONG_ROOM_KEYS_VERSION", &error).with("current_version", current.as_str())
            }
            E::Authenticate(info) => chappe_web::Error::with_body(StatusCode::UNAUTHORIZED, info),
            E::Busy => chappe_web::Error::limit_exceeded(std::time::Duration::from_secs(1)),
            E::Store(chappe_store_error) => chappe_web::Error::internal(chappe_store_error),
        })
    }
}

impl From<chappe_identity::SignUpError> for Error {
    fn from(error: chappe_identity::SignUpError) -> Self {
        use chappe_identity::SignUpError as E;
        match error {
            E::Identity(error) => error.into(),
            E::Accounts(error) => error.into(),
            error => chappe_web::Error::internal(error).into(),
        }
    }
}

impl From<chappe_identity::Error> for Error {
    fn from(error: chappe_identity::Error) -> Self {
        use chappe_identity::Error as E;
        Self(match &error {
            E::InvalidEmail(_) | E::NextLink(_) | E::Invalid(_) => bad_request("M_INVALID_PARAM", &error),
            E::Denied { .. } | E::WrongServer { .. } | E::InvitationMissing { .. } => {
                forbidden("M_THREEPID_DENIED", &error)
            }
            E::Bound { user } => bad_request("M_THREEPID_IN_USE", &error).with("mxid", user.as_str()),
            E::BindingNotPermitted => bad_request("M_BINDING_NOT_PERMITTED", &error),
            // Not 401: a client would take it for its own session.
            E::Unauthorized(_) | E::MayNotInvite => forbidden("M_FORBIDDEN", &error),
            E::Expired => forbidden("ORG_MATRIX_EXPIRED_ACCOUNT", &error),
            E::TermsNotSigned => forbidden("M_TERMS_NOT_SIGNED", &error),
            E::NotTrusted => forbidden("M_SERVER_NOT_TRUSTED", &error),
            E::Elsewhere { errcode, .. } => bad_request(errcode, &error),
            E::TooManyInvites => {
                chappe_web::Error::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", error.to_string())
            }
            E::Unreachable | E::Mail(_) => {
                chappe_web::Error::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", error.to_string())
            }
            E::InUse => bad_request("M_THREEPID_IN_USE", &error),
            E::UnknownAddress => bad_request("M_THREEPID_NOT_FOUND", &error),
            E::TooMany { retry_after } => chappe_web::Error::limit_exceeded(*retry_after),
            E::NoSession => {
                chappe_web::Error::new(StatusCode::NOT_FOUND, "M_NO_VALID_SESSION", error.to_string())
            }
            E::NotValidated => bad_request("M_SESSION_NOT_VALIDATED", &error),
            E::WrongToken => bad_request("M_TOKEN_INCORRECT", &error),
            E::NoMail => bad_request("M_THREEPID_MEDIUM_NOT_SUPPORTED", &error),
            E::NameTooLong => bad_request("M_INVALID_USERNAME", &error),
            other => chappe_web::Error::internal(other),
        })
    }
}

impl From<chappe_identity::RenewalError> for Error {
    fn from(error: chappe_identity::RenewalError) -> Self {
        use chappe_identity::RenewalError as E;
        match error {
            E::Accounts(error) => error.into(),
            E::Identity(error) => error.into(),
        }
    }
}

impl From<chappe_rooms::Error> for Error {
    fn from(error: chappe_rooms::Error) -> Self {
        use chappe_rooms::Error as E;
        Self(match &error {
            E::Forbidden(_) | E::Outsiders(_) | E::Unasked(_) => forbidden("M_FORBIDDEN", &error),
            E::InviteBlocked => forbidden("M_INVITE_BLOCKED", &error),
            E::NoticeRoom => forbidden("M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", &error),
            E::NoGuests => forbidden("M_GUEST_ACCESS_FORBIDDEN", &error),
            E::NotFound(_) => chappe_web::Error::not_found(error.to_string()),
            E::BadJson(_) => bad_request("M_BAD_JSON", &error),
            E::InvalidParam(_) => bad_request("M_INVALID_PARAM", &error),
            E::BadState(_) => bad_request("M_BAD_STATE", &error),
            E::InvalidRoomState(_) => bad_request("M_INVALID_ROOM_STATE", &error),
            E::BadAlias(_) => bad_request("M_BAD_ALIAS", &error),
            E::AliasInUse => bad_request("M_ROOM_IN_USE", &error),
            E::Reserved => bad_request("M_EXCLUSIVE", &error),
            E::DuplicateAnnotation => bad_request("M_DUPLICATE_ANNOTATION", &error),
            E::TooLarge(_) => {
                chappe_web::Error::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", error.to_string())
            }
            E::UnsupportedRoomVersion(_) => bad_request("M_UNSUPPORTED_ROOM_VERSION", &error),
            E::IncompatibleRoomVersion(version) => {
                bad_request("M_INCOMPATIBLE_ROOM_VERSION", &error).with("room_version", version.as_str())
            }
            E::UnableToAuthoriseJoin => bad_request("M_UNABLE_TO_AUTHORISE_JOIN", &error),
            E::UnableToGrantJoin => bad_request("M_UNABLE_TO_GRANT_JOIN", &error),
            E::Peer(peer) => relayed(peer),
            E::PolicyServer(peer) => policy_server(peer),
            // What is wrong with an answer is told in the answer's own words.
            E::HostilePeer(_) => gateway(),
            E::Unreachable => chappe_web::Error::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", error.to_string()),
            E::TooMany { retry_after } => chappe_web::Error::limit_exceeded(*retry_after),
            E::NotInThread => bad_request("IO.ELEMENT.MSC4306.M_NOT_IN_THREAD", &error),
            E::Unsubscribed => {
                let errcode = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION";
                chappe_web::Error::new(StatusCode::CONFLICT, errcode, error.to_string())
            }
            E::Identity(error) => return error.clone().into(),
            E::Ended => chappe_web::Error::new(StatusCode::CONFLICT, "M_UNKNOWN", error.to_string()),
            E::Retry => chappe_web::Error::busy(),
            E::Store(_) => chappe_web::Error::internal(&error),
        })
    }
}

impl From<chappe_delivery::Error> for Error {
    fn from(error: chappe_delivery::Error) -> Self {
        use chappe_delivery::Error as E;
        match error {
            E::BadToken | E::UnknownPos => Self(bad_request("M_UNKNOWN_POS", &error)),
            E::BadParameter(_) => Self(bad_request("M_INVALID_PARAM", &error)),
            E::Stopping => Self(chappe_web::Error::busy()),
            E::Accounts(error) => error.into(),
            E::Rooms(error) => error.into(),
            E::Store(error) => Self(chappe_web::Error::internal(error)),
        }
    }
}

impl From<chappe_search::Error> for Error {
    fn from(error: chappe_search::Error) -> Self {
        use chappe_search::Error as E;
        match error {
            E::BadToken => Self(bad_request("M_INVALID_PARAM", &error)),
            E::Off => Self(bad_request("M_UNRECOGNIZED", &error)),
            E::Stopping | E::Broken => Self(chappe_web::Error::busy()),
            E::Index(_) => Self(chappe_web::Error::internal(error)),
            E::Rooms(error) => error.into(),
            E::Accounts(error) => error.into(),
            E::Store(error) => Self(chappe_web::Error::internal(error)),
        }
    }
}

/// Another server's refusal. Only what is about the room is passed on: never a status or code that a client would take
/// for one about its own session (attack: a peer answers `M_UNKNOWN_TOKEN`, the client wipes its keys).
fn relayed(error: &PeerError) -> chappe_web::Error {
    match error {
        PeerError::Refused { errcode, room_version, .. } => match errcode.as_str() {
            code @ ("M_FORBIDDEN"
            | "M_INVITE_BLOCKED"
            | "M_UNABLE_TO_AUTHORISE_JOIN"
            | "M_UNABLE_TO_GRANT_JOIN") => forbidden(code, &"The other server refused the request"),
            "ORG.MATRIX.MSC4155.INVITE_BLOCKED" => {
                forbidden("M_INVITE_BLOCKED", &"This user does not take invites from you")
            }
            "M_NOT_FOUND" => chappe_web::Error::not_found("The other server does not know the room"),
            code @ ("M_INCOMPATIBLE_ROOM_VERSION" | "M_UNSUPPORTED_ROOM_VERSION" | "M_BAD_STATE") => {
                let refused = bad_request(code, &"The other server refused the request");
                match room_version.as_ref().filter(|_| code == "M_INCOMPATIBLE_ROOM_VERSION") {
                    Some(version) => refused.with("room_version", version.as_str()),
                    None => refused,
                }
            }
            _ => gateway(),
        },
        _ => gateway(),
    }
}

/// The longest sentence of a policy server that a client is shown, in characters.
const LONGEST_REASON: usize = 1_000;

/// What a room's policy server has against an event: its own words and code (server-server API, "Validating Policy Server
/// signatures"), as long as the code is about the event.
fn policy_server(error: &PeerError) -> chappe_web::Error {
    match error {
        PeerError::Refused { status, errcode, error, .. } => {
            let errcode = match errcode.as_str() {
                code @ ("M_BAD_JSON" | "M_NOT_JSON" | "M_NOT_FOUND" | "M_SAFETY" | "M_TOO_LARGE") => code,
                "ORG.MATRIX.MSC4387_SAFETY" => "ORG.MATRIX.MSC4387_SAFETY",
                _ => "M_FORBIDDEN",
            };
            let status = match status {
                403 => StatusCode::FORBIDDEN,
                404 => StatusCode::NOT_FOUND,
                _ => StatusCode::BAD_REQUEST,
            };
            let said: String = error.chars().take(LONGEST_REASON).collect();
            chappe_web::Error::new(status, errcode, said)
        }
        // What is wrong with its answer is told in the answer's own words.
        PeerError::Malformed(why) => {
            let why: String = why.chars().take(LONGEST_REASON).collect();
            tracing::info!(why, "a policy server has not signed an event");
            forbidden("M_FORBIDDEN", &"The policy server of this room has not signed the event")
        }
        PeerError::Unreachable(_) => {
            let said = "The policy server of this room was not reached";
            chappe_web::Error::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", said)
        }
    }
}

fn gateway() -> chappe_web::Error {
    let status = StatusCode::BAD_GATEWAY;
    chappe_web::Error::new(status, "M_UNKNOWN", "The other server could not fulfil the request")
}

impl From<RemoteError> for Error {
    fn from(error: RemoteError) -> Self {
        Self(match error {
            RemoteError::NotFound => chappe_web::Error::not_found("Not found"),
            RemoteError::Unavailable(_) => gateway(),
        })
    }
}

impl From<chappe_calls::Error> for Error {
    fn from(error: chappe_calls::Error) -> Self {
        use chappe_calls::Error as E;
        Self(match &error {
            E::Unauthorized => unauthorized("M_UNAUTHORIZED", &error),
            E::TooShort => bad_request("M_BAD_JSON", &error),
            E::Elsewhere => bad_request("M_UNSUPPORTED", &error),
            E::HomeserverUnreachable => {
                chappe_web::Error::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", error.to_string())
            }
            E::Sfu(why) => {
                tracing::error!(%why, "the SFU made no room");
                chappe_web::Error::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", error.to_string())
            }
        })
    }
}

impl From<chappe_media::Error> for Error {
    fn from(error: chappe_media::Error) -> Self {
        use chappe_media::Error as E;
        let with = |status, errcode| chappe_web::Error::new(status, errcode, error.to_string());
        Self(match &error {
            E::NotFound => with(StatusCode::NOT_FOUND, "M_NOT_FOUND"),
            E::NotYetUploaded => with(StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED"),
            E::AlreadyUploaded => with(StatusCode::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA"),
            E::NotYours | E::QuotaExceeded | E::HostNotAllowed => with(StatusCode::FORBIDDEN, "M_FORBIDDEN"),
            E::TooManyPending => with(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED"),
            E::TooLarge => with(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
            E::BrokeOff(_) | E::NoThumbnail => with(StatusCode::BAD_REQUEST, "M_UNKNOWN"),
            E::RemoteTooLarge => with(StatusCode::BAD_GATEWAY, "M_TOO_LARGE"),
            E::Busy => chappe_web::Error::limit_exceeded(std::time::Duration::from_secs(5)),
            E::PreviewsOff => chappe_web::Error::unrecognized(),
            E::NotAWebAddress(_) => with(StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
            E::PageFailed => with(StatusCode::BAD_GATEWAY, "M_UNKNOWN"),
            E::RemoteFailed(_) => gateway(),
            E::NotClean => with(StatusCode::FORBIDDEN, "MCS_MEDIA_NOT_CLEAN"),
            E::NotInspected(why) => {
                tracing::error!(%why, "a medium could not be inspected");
                with(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN")
            }
            E::Disk(_) | E::Store(_) => chappe_web::Error::internal(&error),
            E::Stopping => with(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_a_policy_server_that_is_none_is_not_quoted() {
        let answer = PeerError::Malformed("invalid type: string \"<b>\", expected a map".to_owned());
        let told = policy_server(&answer);
        assert_eq!((told.status(), told.errcode()), (StatusCode::FORBIDDEN, "M_FORBIDDEN"));
        assert!(!told.sentence().contains("<b>"), "{}", told.sentence());
    }
}
