//! `GET /rooms/{roomId}/joined_members`: who is in the room, with names and pictures.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::{OwnedUserId, api::client::membership::joined_members::v3::Request};
use serde_json::{Value, json};

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    let members = rooms.joined_members(&requester.actor(), &request.room_id).await?;
    let joined: BTreeMap<OwnedUserId, Value> = members
        .into_iter()
        .map(|(user, profile)| {
            (user, json!({ "display_name": profile.display_name, "avatar_url": profile.avatar_url }))
        })
        .collect();
    Ok(Json(json!({ "joined": joined })))
}
