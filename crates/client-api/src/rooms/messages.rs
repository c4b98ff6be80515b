//! `GET /rooms/{roomId}/messages`: the history, page by page.

use axum::{Json, extract::State};
use chappe_rooms::{PageRequest, Rooms};
use chappe_web::Ruma;
use ruma::api::client::message::get_message_events::v3::Request;
use serde_json::{Value, json};

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    let wanted = PageRequest {
        from: request.from.as_deref(),
        to: request.to.as_deref(),
        direction: request.dir,
        limit: request.limit.into(),
        filter: &request.filter,
    };
    let page = rooms.messages(&requester.actor(), &request.room_id, wanted).await?;
    let mut answer = json!({ "start": page.start, "chunk": page.chunk, "state": page.state });
    if let Some(end) = page.end {
        answer["end"] = end.into();
    }
    Ok(Json(answer))
}
