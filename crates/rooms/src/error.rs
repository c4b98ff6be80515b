//! Why a room operation was not done, in variants named by what the caller can do about it.

use ruma::RoomVersionId;

use crate::PeerError;

/// Why a room operation was not done. Nothing was written unless the variant says otherwise.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The rules or the policy do not allow it: `M_FORBIDDEN`, with a sentence for people.
    #[error("{0}")]
    Forbidden(String),
    /// The invited user does not want invites by this one: `M_INVITE_BLOCKED`.
    #[error("this user does not take invites from you")]
    InviteBlocked,
    /// The room has members on servers that this one does not talk with: `M_FORBIDDEN`.
    #[error("this room has members on servers that this one does not talk with, such as {0}")]
    Outsiders(ruma::OwnedServerName),
    /// The room does not let guests in: `M_GUEST_ACCESS_FORBIDDEN`.
    #[error("this room does not let guests in")]
    NoGuests,
    /// The server's own invite cannot be turned down: 403 `M_CANNOT_LEAVE_SERVER_NOTICE_ROOM`.
    #[error("you cannot turn down the invite to the server's notices")]
    NoticeRoom,
    /// There is no such thing, or the asker may not know of it: `M_NOT_FOUND`.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// What was asked for is malformed: `M_BAD_JSON`.
    #[error("{0}")]
    BadJson(String),
    /// A parameter has a value that cannot be used: `M_INVALID_PARAM`.
    #[error("{0}")]
    InvalidParam(String),
    /// The operation makes no sense in the present state of the room: `M_BAD_STATE`.
    #[error("{0}")]
    BadState(String),
    /// The state of a room to be created contradicts itself: `M_INVALID_ROOM_STATE`.
    #[error("{0}")]
    InvalidRoomState(String),
    /// The alias is kept for an application service, or is none of the service's that asks: `M_EXCLUSIVE`.
    #[error("this room alias is reserved")]
    Reserved,
    /// The alias is taken: `M_ROOM_IN_USE`.
    #[error("this room alias is already in use")]
    AliasInUse,
    /// An alias in `m.room.canonical_alias` does not point at the room: `M_BAD_ALIAS`.
    #[error("{0} is not an alias of this room")]
    BadAlias(ruma::OwnedRoomAliasId),
    /// The user has reacted to the event in the same way before: `M_DUPLICATE_ANNOTATION`.
    #[error("you have already reacted in this way")]
    DuplicateAnnotation,
    /// The event exceeds a size limit of the specification: `M_TOO_LARGE`.
    #[error("{0}")]
    TooLarge(String),
    /// This server does not know the room version: `M_UNSUPPORTED_ROOM_VERSION`.
    #[error("room version {0} is not supported")]
    UnsupportedRoomVersion(String),
    /// The asking server does not know the room's version: `M_INCOMPATIBLE_ROOM_VERSION`.
    #[error("the room has version {0}, which your server does not support")]
    IncompatibleRoomVersion(RoomVersionId),
    /// This server cannot check the conditions of a restricted room: `M_UNABLE_TO_AUTHORISE_JOIN`. Ask another one.
    #[error("this server cannot check the conditions for joining")]
    UnableToAuthoriseJoin,
    /// No member of this server may authorise the join: `M_UNABLE_TO_GRANT_JOIN`. Ask another one.
    #[error("no user of this server may authorise the join")]
    UnableToGrantJoin,
    /// Another server answered with an error that is worth passing on.
    #[error("{0}")]
    Peer(PeerError),
    /// The room's policy server did not sign the event: what it said, for the client.
    #[error("the policy server of the room did not let this pass: {0}")]
    PolicyServer(PeerError),
    /// The room's policy server is to be asked first: seen outside this crate only where nobody waits for it.
    #[error("the policy server of the room is to be asked first")]
    Unasked(std::sync::Arc<crate::Unasked>),
    /// No other server that could help was reached: 502.
    #[error("no server that could help was reached")]
    Unreachable,
    /// What another server sent was not used: it broke a rule.
    #[error("another server's answer was refused: {0}")]
    HostilePeer(String),
    /// The user has as many events waiting as may wait: `M_LIMIT_EXCEEDED`.
    #[error("too many delayed events")]
    TooMany {
        /// When the next of them is sent.
        retry_after: std::time::Duration,
    },
    /// The delayed event was sent or cancelled before: 409.
    #[error("this delayed event has been sent or cancelled")]
    Ended,
    /// The event is not in the thread: `M_NOT_IN_THREAD` (MSC4306).
    #[error("this event is not in the thread")]
    NotInThread,
    /// The user ceased to follow the thread after the event: `M_CONFLICTING_UNSUBSCRIPTION` (MSC4306).
    #[error("the thread was unsubscribed from after this event")]
    Unsubscribed,
    /// The identity server did not do its part.
    #[error(transparent)]
    Identity(#[from] chappe_identity::Error),
    /// Too many writers at once: try again.
    #[error("the room is busy, try again")]
    Retry,
    /// The store failed.
    #[error(transparent)]
    Store(chappe_store::Error),
}

impl From<chappe_store::Error> for Error {
    fn from(error: chappe_store::Error) -> Self {
        match error {
            chappe_store::Error::Conflict => Self::Retry,
            chappe_store::Error::Gone => Self::NotFound("event"),
            other => Self::Store(other),
        }
    }
}

impl From<PeerError> for Error {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Unreachable(_) => Self::Unreachable,
            PeerError::Malformed(what) => Self::HostilePeer(what),
            refused @ PeerError::Refused { .. } => Self::Peer(refused),
        }
    }
}

/// What the functions of this crate give.
pub type Result<T, E = Error> = std::result::Result<T, E>;
