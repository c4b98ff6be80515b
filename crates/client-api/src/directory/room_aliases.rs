//! `GET /rooms/{roomId}/aliases`: this server's names for a room.

use axum::extract::State;
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::api::client::room::aliases::v3::{Request, Response};

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    Ok(Ruma(Response::new(rooms.aliases(&requester.actor(), &request.room_id).await?)))
}
