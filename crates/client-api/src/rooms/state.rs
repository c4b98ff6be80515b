//! `GET /rooms/{roomId}/state`: the whole state.

use axum::{Json, extract::State};
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::api::client::state::get_state_events::v3::Request;
use serde_json::value::RawValue;

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Vec<Box<RawValue>>>> {
    Ok(Json(rooms.state(&requester.actor(), &request.room_id).await?))
}
