//! `GET /v1/room/{roomId}/media`: the media that a room's events name, where they are not encrypted.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use ruma::{OwnedMxcUri, OwnedRoomId};
use serde_json::{Value, json};

use crate::api::{Api, Result, v1::must_know};

pub(super) async fn handler(
    State(api): State<Api>,
    Arguments(room): Arguments<OwnedRoomId>,
) -> Result<Json<Value>> {
    must_know(&api, &room).await?;
    let is_own = |address: &OwnedMxcUri| address.server_name().is_ok_and(|server| api.media.is_local(server));
    let (local, remote): (Vec<_>, Vec<_>) = api.rooms.media_in(&room).await?.into_iter().partition(is_own);
    Ok(Json(json!({ "local": local, "remote": remote })))
}
