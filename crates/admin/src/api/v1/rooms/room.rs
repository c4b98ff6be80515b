//! `GET /v1/rooms/{roomId}`: what there is to know of a room.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use ruma::OwnedRoomId;
use serde_json::{Value, json};

use crate::api::{Api, Result};

pub(super) async fn handler(
    State(api): State<Api>,
    Arguments(room): Arguments<OwnedRoomId>,
) -> Result<Json<Value>> {
    let listed = api.rooms.described(&room).await?;
    let listed = listed.ok_or_else(|| chappe_web::Error::not_found("Room not found"))?;
    let mut devices = 0;
    for user in api.rooms.all_joined(&room).await?.iter().filter(|user| api.accounts.is_local(user)) {
        devices += api.accounts.devices(user).await?.len();
    }
    let mut shown = json!(listed);
    shown["joined_local_devices"] = devices.into();
    shown["forgotten"] = api.rooms.is_forgotten(&room).await?.into();
    Ok(Json(shown))
}
