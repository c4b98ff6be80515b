//! `POST /_matrix/policy/v1/sign`: this server, if it is the policy server of the room, signs an event or refuses to.

use axum::extract::State;
use chappe_rooms::{Error as RoomError, PeerError};
use chappe_web::{Error, Ruma};
use http::StatusCode;
use ruma::api::federation::policy::sign_event::v1::{Request, Response};

use crate::{Federation, Origin, refusal::Answer};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    let rooms = federation.rooms();
    if rooms.policy_key().is_none() {
        return Err(Error::unrecognized().into());
    }
    match rooms.sign_for_room(&origin, &request.pdu).await {
        Ok(signature) => Ok(Ruma(Response::new(rooms.server().to_owned(), signature))),
        Err(RoomError::PolicyServer(PeerError::Refused { status, errcode, error, .. })) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            Err(Error::new(status, &errcode, error).into())
        }
        Err(error) => Err(error.into()),
    }
}
