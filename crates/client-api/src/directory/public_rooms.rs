//! `GET` and `POST /publicRooms`: the rooms that are listed, here or on another server.

use axum::{Json, extract::State};
use chappe_rooms::{PublicRoomsRequest, Rooms};
use chappe_web::{Origin, Ruma};
use ruma::api::client::directory::{get_public_rooms, get_public_rooms_filtered};
use serde_json::{Value, json};

use crate::{
    error::Result,
    rates::Limits,
    requester::{Anybody, Requester},
};

pub(super) async fn all(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    origin: Origin,
    Anybody(requester): Anybody,
    Ruma(request): Ruma<get_public_rooms::v3::Request>,
) -> Result<Json<Value>> {
    match &requester {
        Some(requester) => limits.user("search", requester, |rates| rates.search)?,
        None => limits.ip("search", origin, |rates| rates.search)?,
    }
    // A closed network shows its rooms to its own people alone, and no server asks another one for strangers.
    let is_elsewhere = request.server.as_ref().is_some_and(|server| server != rooms.server());
    if requester.is_none() && (is_elsewhere || rooms.neighbours().is_some()) {
        return Err(chappe_web::Error::missing_token().into());
    }
    let (limit, since, server) = (request.limit.map(u64::from), request.since, request.server);
    page(&rooms, PublicRoomsRequest { server, limit, since, ..PublicRoomsRequest::default() }).await
}

pub(super) async fn filtered(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<get_public_rooms_filtered::v3::Request>,
) -> Result<Json<Value>> {
    limits.user("search", &requester, |rates| rates.search)?;
    let (limit, since, server) = (request.limit.map(u64::from), request.since, request.server);
    let (filter, network) = (request.filter, request.room_network);
    page(&rooms, PublicRoomsRequest { server, limit, since, filter, network }).await
}

async fn page(rooms: &Rooms, request: PublicRoomsRequest) -> Result<Json<Value>> {
    let page = rooms.public_rooms(&request).await?;
    let mut answer = json!({ "chunk": page.chunk });
    for room in answer["chunk"].as_array_mut().into_iter().flatten() {
        // Ruma leaves out what is the usual case; clients look for it all the same.
        if room.get("join_rule").is_none() {
            room["join_rule"] = "public".into();
        }
    }
    for (name, token) in [("next_batch", page.next_batch), ("prev_batch", page.prev_batch)] {
        if let Some(token) = token {
            answer[name] = token.into();
        }
    }
    if let Some(total) = page.total {
        answer["total_room_count_estimate"] = total.into();
    }
    Ok(Json(answer))
}
