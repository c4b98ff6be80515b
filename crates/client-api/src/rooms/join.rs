//! `POST /rooms/{roomId}/join` and `POST /join/{roomIdOrAlias}`: enter a room.

use axum::extract::State;
use chappe_rooms::Rooms;
use chappe_web::{Ruma, WithBody};
use ruma::{
    RoomId,
    api::client::membership::{join_room_by_id, join_room_by_id_or_alias},
};
use serde_json::{Map, Value};

use crate::{directory::find, error::Result, rates::Limits, requester::Acting};

pub(super) async fn by_id(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Acting,
    WithBody(request, body): WithBody<join_room_by_id::v3::Request>,
) -> Result<Ruma<join_room_by_id::v3::Response>> {
    limits.user("join", &requester, |rates| rates.join)?;
    redeem(&rooms, &requester, &request.room_id, &body).await?;
    rooms.join(&requester.actor(), &request.room_id, Vec::new(), said(body)).await?;
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
    redeem(&rooms, &requester, &room, &body).await?;
    rooms.join(&requester.actor(), &room, via, said(body)).await?;
    Ok(Ruma(join_room_by_id_or_alias::v3::Response::new(room)))
}

/// An invite of the user's address, signed for the user, becomes an invite of the user first.
async fn redeem(rooms: &Rooms, requester: &Acting, room: &RoomId, body: &Value) -> Result<()> {
    match body.get("third_party_signed").and_then(Value::as_object) {
        Some(signed) => Ok(rooms.redeem_invite(&requester.actor(), room, signed.clone()).await?),
        None => Ok(()),
    }
}

/// What the client says of its membership: the reason, and fields of its own.
fn said(body: Value) -> Map<String, Value> {
    let Value::Object(mut said) = body else { return Map::new() };
    said.retain(|key, value| key != "reason" || value.is_string());
    said
}
