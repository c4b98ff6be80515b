//! `GET` and `PUT /v1/rooms/{roomId}/block`: whether this server's users are kept out of a room, known or not.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Administrator, Api, Body, Result};

#[derive(Deserialize)]
pub(super) struct Request {
    block: bool,
}

pub(super) async fn show(
    State(api): State<Api>,
    Arguments(room): Arguments<OwnedRoomId>,
) -> Result<Json<Value>> {
    Ok(Json(match api.rooms.blocked(&room).await? {
        Some(block) => json!({ "block": true, "user_id": block.by }),
        None => json!({ "block": false }),
    }))
}

pub(super) async fn set(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(room): Arguments<OwnedRoomId>,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    if request.block {
        api.rooms.block(&room, administrator.user()).await?;
    } else {
        api.rooms.unblock(&room).await?;
    }
    Ok(Json(json!({ "block": request.block })))
}
