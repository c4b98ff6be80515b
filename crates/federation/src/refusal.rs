//! What another server is told when something cannot be done for it.

use axum::response::{IntoResponse, Response};
use chappe_rooms::{Error as RoomError, PeerError};
use chappe_web::Error;
use http::StatusCode;

/// A Matrix error on its way to another server.
#[derive(Clone, Debug)]
pub(crate) struct Refusal(pub(crate) Error);

/// What inbound handlers give.
pub(crate) type Answer<T> = Result<chappe_web::Ruma<T>, Refusal>;

impl Refusal {
    pub(crate) fn not_found() -> Self {
        Self(Error::not_found("Not found"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<chappe_store::Error> for Refusal {
    fn from(error: chappe_store::Error) -> Self {
        match error {
            chappe_store::Error::Conflict => Self(Error::busy()),
            other => Self(Error::internal(other)),
        }
    }
}

impl From<chappe_accounts::Error> for Refusal {
    fn from(error: chappe_accounts::Error) -> Self {
        use chappe_accounts::Error as Account;
        Self(match error {
            Account::NotFound(what) => Error::not_found(format!("There is no such {what}")),
            Account::Deactivated | Account::Locked | Account::Suspended => Error::not_found("Not found"),
            Account::UnknownToken { .. } => {
                Error::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", "Unknown or expired token")
            }
            Account::Forbidden(why) => Error::forbidden(why),
            Account::Invalid(why) => Error::invalid_param(why),
            Account::BadJson(why) => Error::bad_json(why),
            Account::TooLarge(_) => Error::too_large(),
            Account::Busy => Error::busy(),
            Account::Store(error) => return error.into(),
            other => Error::internal(other),
        })
    }
}

impl From<chappe_search::Error> for Refusal {
    fn from(error: chappe_search::Error) -> Self {
        use chappe_search::Error as Search;
        match error {
            Search::Rooms(error) => error.into(),
            Search::Accounts(error) => error.into(),
            Search::Store(error) => error.into(),
            Search::Broken | Search::Stopping => Self(Error::busy()),
            other => Self(Error::internal(other)),
        }
    }
}

impl From<RoomError> for Refusal {
    fn from(error: RoomError) -> Self {
        let bad = |errcode: &str, why: String| Error::new(StatusCode::BAD_REQUEST, errcode, why);
        Self(match error {
            RoomError::Forbidden(why) => Error::forbidden(why),
            error @ RoomError::Outsiders(_) => Error::forbidden(error.to_string()),
            RoomError::NotFound(what) => Error::not_found(format!("There is no such {what}")),
            RoomError::BadJson(why) => Error::bad_json(why),
            RoomError::InvalidParam(why) => Error::invalid_param(why),
            RoomError::BadState(why) => bad("M_BAD_STATE", why),
            RoomError::TooLarge(_) => Error::too_large(),
            // No other server names a version but with an invite.
            RoomError::UnsupportedRoomVersion(version) => {
                bad("M_INCOMPATIBLE_ROOM_VERSION", format!("This server does not know version {version}"))
                    .with("room_version", version)
            }
            RoomError::IncompatibleRoomVersion(version) => {
                bad("M_INCOMPATIBLE_ROOM_VERSION", "Your server does not know the room's version".to_owned())
                    .with("room_version", version.as_str())
            }
            RoomError::UnableToAuthoriseJoin => {
                bad("M_UNABLE_TO_AUTHORISE_JOIN", "This server cannot check the conditions".to_owned())
            }
            RoomError::UnableToGrantJoin => {
                bad("M_UNABLE_TO_GRANT_JOIN", "No user of this server may authorise the join".to_owned())
            }
            RoomError::Peer(
                PeerError::Refused { .. } | PeerError::Malformed(_) | PeerError::Unreachable(_),
            )
            | RoomError::Unreachable
            | RoomError::HostilePeer(_) => {
                Error::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", "A server that is needed did not help")
            }
            RoomError::PolicyServer(_) | RoomError::Unasked(_) => {
                Error::forbidden("The policy server of the room did not let this pass")
            }
            RoomError::InviteBlocked => {
                let why = "This user does not take invites from yours";
                Error::new(StatusCode::FORBIDDEN, "M_INVITE_BLOCKED", why)
            }
            RoomError::Retry => Error::busy(),
            RoomError::Store(error) => return error.into(),
            other => Error::internal(other),
        })
    }
}
