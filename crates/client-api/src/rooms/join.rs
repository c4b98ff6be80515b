//! `POST /rooms/{roomId}/join` and `POST /join/{roomIdOrAlias}`: enter a room.

use axum::extract::State;
use chappe_rooms::Rooms;
use chappe_web::{Ruma, WithBody};
use ruma::api::client::membership::{join_room_by_id, join_room_by_id_or_alias};
use serde_json::{Map, Value};

use super::server_of;
use crate::{directory::find, error::Result, rates::Limits, requester::Acting};

pub(super) async fn by_id(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Acting,
    WithBody(request, body): WithBody<join_room_by_id::v3::Request>,
) -> Result<Ruma<join_room_by_id::v3::Response>> {
    limits.user("join", &requester, |rates| rates.join)?;
    let via = server_of(&request.room_id);
    rooms.join(&requester.actor(), &request.room_id, via, said(body)).await?;
    Ok(Ruma(join_room_by_id::v3::Response::new(request.room_id)))
}

pub(super) async fn by_id_or_alias(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Acting,
    WithBody(request, body): WithBody<join_room_by_id_or_alias::v3::Request>,
) -> Result<Ruma<join_room_by_id_or_alias::v3::Response>> {
    limits.user("join", &requester, |rates| rates.join)?;
    let (room, via) = find(&rooms, &request.room_id_or_alias, request.via).await?;
    rooms.join(&requester.actor(), &room, via, said(body)).await?;
    Ok(Ruma(join_room_by_id_or_alias::v3::Response::new(room)))
}

/// What the client says of its membership: the reason, and fields of its own.
fn said(body: Value) -> Map<String, Value> {
    let Value::Object(mut said) = body else { return Map::new() };
    said.retain(|key, value| key != "reason" || value.is_string());
    said
}
