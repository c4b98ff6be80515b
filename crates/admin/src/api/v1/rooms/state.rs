//! `GET /v1/rooms/{roomId}/state`: the current state of a room, or the events of one type of it.

use axum::{Json, extract::State};
use chappe_web::{Arguments, Parameters};
use ruma::OwnedRoomId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::must_know;
use crate::api::{Administrator, Api, Result};

#[derive(Deserialize)]
pub(super) struct Query {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Response {
    state: Vec<Box<RawValue>>,
}

/// What an event must have to be told from others.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

pub(super) async fn handler(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(room): Arguments<OwnedRoomId>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Response>> {
    must_know(&api, &room).await?;
    let mut state = api.rooms.state(&administrator.overseer(), &room).await?;
    if let Some(wanted) = query.kind {
        state.retain(|event| {
            serde_json::from_str::<Kind>(event.get()).is_ok_and(|event| event.kind == wanted)
        });
    }
    Ok(Json(Response { state }))
}
