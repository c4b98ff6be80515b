//! `GET /room_summary/{roomIdOrAlias}`: a room in a few words, for those who may know of it.

use axum::{Json, extract::State};
use chappe_rooms::Rooms;
use chappe_web::{Origin, Ruma};
use ruma::api::client::room::get_summary::v1::Request;
use serde_json::{Value, json};

use crate::{
    directory::find,
    error::Result,
    rates::Limits,
    requester::{Anybody, Requester},
};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    origin: Origin,
    Anybody(requester): Anybody,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    limits.ip("search", origin, |rates| rates.search)?;
    let (room, mut via) = find(&rooms, &request.room_id_or_alias, request.via).await?;
    if via.is_empty() {
        // Ids of version 12 name no server.
        via.extend(room.server_name().map(ToOwned::to_owned));
    }
    // Nobody makes this server ask others without being logged in.
    let via = if requester.is_some() { via } else { Vec::new() };
    let user = requester.as_ref().map(Requester::user);
    let (summary, membership) = rooms.room_summary(user, &room, &via).await?;
    let mut answer = json!(summary);
    if let Some(membership) = membership {
        answer["membership"] = json!(membership);
    }
    Ok(Json(answer))
}
