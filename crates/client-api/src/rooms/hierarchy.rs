//! `GET /rooms/{roomId}/hierarchy`: the rooms of a space.

use axum::{Json, extract::State};
use chappe_rooms::{HierarchyRequest, HierarchyRoom, Rooms};
use chappe_web::Ruma;
use ruma::api::client::space::get_hierarchy::v1::Request;
use serde_json::{Value, json};

use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    limits.user("search", &requester, |rates| rates.search)?;
    let wanted = HierarchyRequest {
        room: &request.room_id,
        from: request.from.as_deref(),
        limit: request.limit.map(u64::from),
        max_depth: request.max_depth.map(u64::from),
        suggested_only: request.suggested_only,
    };
    let page = rooms.hierarchy(requester.user(), &wanted).await?;
    let mut answer = json!({ "rooms": page.rooms.iter().map(shown).collect::<Vec<_>>() });
    if let Some(token) = page.next_batch {
        answer["next_batch"] = token.into();
    }
    Ok(Json(answer))
}

fn shown(room: &HierarchyRoom) -> Value {
    let mut shown = json!(room.summary);
    shown["children_state"] = json!(room.children_state);
    shown
}
