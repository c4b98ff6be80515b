//! `POST /rooms/{roomId}/leave`: leave, reject an invite, take back a knock.

use axum::extract::State;
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::api::client::membership::leave_room::v3::{Request, Response};

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    rooms.leave(&requester.actor(), &request.room_id, request.reason).await?;
    Ok(Ruma(Response::new()))
}
