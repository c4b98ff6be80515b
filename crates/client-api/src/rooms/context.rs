//! `GET /rooms/{roomId}/context/{eventId}`: an event and what is around it.

use axum::{Json, extract::State};
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::api::client::context::get_context::v3::Request;
use serde_json::{Value, json};

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    let (room, event, limit) = (&request.room_id, &request.event_id, request.limit.into());
    let context = rooms.context(&requester.actor(), room, event, limit, &request.filter).await?;
    Ok(Json(json!({
        "event": context.event, "events_before": context.before, "events_after": context.after,
        "start": context.start, "end": context.end, "state": context.state,
    })))
}
