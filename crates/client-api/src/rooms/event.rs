//! `GET /rooms/{roomId}/event/{eventId}`: one event.

use axum::{Json, extract::State};
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::api::client::room::get_room_event::v3::Request;
use serde_json::value::RawValue;

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Box<RawValue>>> {
    Ok(Json(rooms.event(&requester.actor(), &request.room_id, &request.event_id).await?))
}
