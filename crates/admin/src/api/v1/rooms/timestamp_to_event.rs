//! `GET /v1/rooms/{roomId}/timestamp_to_event`: the event nearest to a time.

use axum::{Json, extract::State};
use chappe_web::{Arguments, Parameters};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{messages::direction, must_know};
use crate::api::{Administrator, Api, Dir, Result};

#[derive(Deserialize)]
pub(super) struct Query {
    ts: u64,
    dir: Option<Dir>,
}

pub(super) async fn handler(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(room): Arguments<OwnedRoomId>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Value>> {
    must_know(&api, &room).await?;
    let ts =
        ruma::UInt::try_from(query.ts).map_err(|_| chappe_web::Error::invalid_param("ts is too large"))?;
    let ts = MilliSecondsSinceUnixEpoch(ts);
    let dir = direction(query.dir);
    let (event, at) = api.rooms.timestamp_to_event(&administrator.overseer(), &room, ts, dir).await?;
    Ok(Json(json!({ "event_id": event, "origin_server_ts": at })))
}
