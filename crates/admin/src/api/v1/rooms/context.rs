//! `GET /v1/rooms/{roomId}/context/{eventId}`: an event with what happened around it.

use axum::{Json, extract::State};
use chappe_web::{Arguments, Parameters};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{messages::parsed, must_know};
use crate::api::{Administrator, Api, Result};

/// Events around one where no number is asked for.
const USUAL: u64 = 10;

#[derive(Deserialize)]
pub(super) struct Query {
    limit: Option<u64>,
    filter: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Response {
    start: String,
    end: String,
    events_before: Vec<Box<RawValue>>,
    event: Box<RawValue>,
    events_after: Vec<Box<RawValue>>,
    state: Vec<Box<RawValue>>,
}

pub(super) async fn handler(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments((room, event)): Arguments<(OwnedRoomId, OwnedEventId)>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Response>> {
    must_know(&api, &room).await?;
    let filter = parsed(query.filter.as_deref())?;
    let limit = query.limit.unwrap_or(USUAL);
    let found = api.rooms.context(&administrator.overseer(), &room, &event, limit, &filter).await?;
    Ok(Json(Response {
        start: found.start,
        end: found.end,
        events_before: found.before,
        event: found.event,
        events_after: found.after,
        state: found.state,
    }))
}
