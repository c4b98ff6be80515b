//! `GET /v1/rooms/{roomId}/members`: who is in a room.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use ruma::OwnedRoomId;
use serde_json::{Value, json};

use super::must_know;
use crate::api::{Api, Result};

pub(super) async fn handler(
    State(api): State<Api>,
    Arguments(room): Arguments<OwnedRoomId>,
) -> Result<Json<Value>> {
    must_know(&api, &room).await?;
    let members = api.rooms.all_joined(&room).await?;
    Ok(Json(json!({ "total": members.len(), "members": members })))
}
