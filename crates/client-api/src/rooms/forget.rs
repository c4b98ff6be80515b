//! `POST /rooms/{roomId}/forget`: take a left room out of the lists.

use axum::extract::State;
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::api::client::membership::forget_room::v3::{Request, Response};

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    match rooms.forget(requester.user(), &request.room_id).await {
        // The specification asks for `M_UNKNOWN` while the user is in the room.
        Err(chappe_rooms::Error::BadState(error)) => {
            Err(chappe_web::Error::new(http::StatusCode::BAD_REQUEST, "M_UNKNOWN", error).into())
        }
        other => Ok(other.map(|()| Ruma(Response::new()))?),
    }
}
