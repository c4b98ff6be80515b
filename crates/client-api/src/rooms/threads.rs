//! `GET /rooms/{roomId}/threads`: the threads of a room.

use axum::{Json, extract::State};
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::api::client::threads::get_threads::v1::Request;
use serde_json::{Value, json};

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    let (actor, from, limit) = (requester.actor(), request.from.as_deref(), request.limit.map(u64::from));
    let page = rooms.threads(&actor, &request.room_id, from, &request.include, limit).await?;
    let mut answer = json!({ "chunk": page.chunk });
    if let Some(token) = page.next_batch {
        answer["next_batch"] = token.into();
    }
    Ok(Json(answer))
}
