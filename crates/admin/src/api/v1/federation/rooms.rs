//! `GET /v1/federation/destinations/{destination}/rooms`: the rooms that a server shares with this one.

use axum::{Json, extract::State};
use chappe_web::{Arguments, Parameters};
use ruma::{OwnedRoomId, OwnedServerName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::destination::known;
use crate::api::{Api, Dir, Page, Result};

#[derive(Deserialize)]
pub(super) struct Query {
    dir: Option<Dir>,
}

pub(super) async fn handler(
    State(api): State<Api>,
    Arguments(server): Arguments<OwnedServerName>,
    Parameters(page): Parameters<Page>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Value>> {
    known(&api, &server).await?;
    let mut rooms: Vec<OwnedRoomId> = api.rooms.shared_with(&server).await?;
    rooms.sort();
    if query.dir == Some(Dir::Backward) {
        rooms.reverse();
    }
    let total = rooms.len();
    // What was sent last is known by server, not by room.
    let shown = |room: &OwnedRoomId| json!({ "room_id": room, "stream_ordering": null });
    let rooms: Vec<Value> = page.of(rooms).iter().map(shown).collect();
    let mut answer = json!({ "rooms": rooms, "total": total });
    if let Some(next) = page.next(total) {
        answer["next_token"] = next.to_string().into();
    }
    Ok(Json(answer))
}
