//! `GET /v1/fetch_event/{eventId}`: an event of whichever room.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use ruma::OwnedEventId;
use serde_json::{Value, json};

use crate::api::{Api, Result};

pub(super) async fn handler(
    State(api): State<Api>,
    Arguments(event): Arguments<OwnedEventId>,
) -> Result<Json<Value>> {
    let found = api.rooms.any_event(&event).await?;
    let found = found.ok_or_else(|| chappe_web::Error::not_found("Event not found"))?;
    Ok(Json(json!({ "event": found })))
}
