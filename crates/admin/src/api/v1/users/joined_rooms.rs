//! `GET /v1/users/{userId}/joined_rooms`: the rooms somebody is in, as far as this server knows.

use axum::{Json, extract::State};
use chappe_store::Membership;
use chappe_web::Arguments;
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use crate::api::{Api, Result};

pub(super) async fn handler(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
) -> Result<Json<Value>> {
    let memberships = api.rooms.memberships(&user).await?.into_iter();
    let joined = memberships.filter(|(_, membership)| *membership == Membership::Join);
    let rooms: Vec<OwnedRoomId> = joined.map(|(room, _)| room).collect();
    Ok(Json(json!({ "total": rooms.len(), "joined_rooms": rooms })))
}
