//! `GET /events/{eventId}`: one event, wherever it is.

use axum::{Json, extract::State};
use chappe_rooms::Rooms;
use chappe_web::Arguments;
use ruma::OwnedEventId;
use serde_json::value::RawValue;

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Requester,
    Arguments(event): Arguments<OwnedEventId>,
) -> Result<Json<Box<RawValue>>> {
    Ok(Json(rooms.event_anywhere(&requester.actor(), &event).await?))
}
