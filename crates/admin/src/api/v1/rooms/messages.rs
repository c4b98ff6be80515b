//! `GET /v1/rooms/{roomId}/messages`: a room's history, page by page, as nobody in it need see it.

use axum::{Json, extract::State};
use chappe_rooms::PageRequest;
use chappe_web::{Arguments, Parameters};
use ruma::{
    OwnedRoomId,
    api::{Direction, client::filter::RoomEventFilter},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::must_know;
use crate::api::{Administrator, Api, Dir, Result};

/// Events of a page where no number is asked for.
const USUAL: u64 = 10;

#[derive(Deserialize)]
pub(super) struct Query {
    from: Option<String>,
    to: Option<String>,
    limit: Option<u64>,
    dir: Option<Dir>,
    filter: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Response {
    start: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    chunk: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    state: Vec<Box<RawValue>>,
}

pub(super) async fn handler(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(room): Arguments<OwnedRoomId>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Response>> {
    must_know(&api, &room).await?;
    let filter = parsed(query.filter.as_deref())?;
    let request = PageRequest {
        from: query.from.as_deref(),
        to: query.to.as_deref(),
        direction: direction(query.dir),
        limit: query.limit.unwrap_or(USUAL),
        filter: &filter,
        relations: None,
    };
    let page = api.rooms.messages(&administrator.overseer(), &room, request).await?;
    Ok(Json(Response { start: page.start, end: page.end, chunk: page.chunk, state: page.state }))
}

/// The filter that a query string holds as JSON.
pub(super) fn parsed(filter: Option<&str>) -> Result<RoomEventFilter, chappe_web::Error> {
    let Some(filter) = filter else { return Ok(RoomEventFilter::default()) };
    serde_json::from_str(filter).map_err(|error| chappe_web::Error::unreadable_json(&error))
}

/// Forward unless asked otherwise.
pub(super) fn direction(dir: Option<Dir>) -> Direction {
    if dir == Some(Dir::Backward) { Direction::Backward } else { Direction::Forward }
}
