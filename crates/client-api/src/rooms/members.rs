//! `GET /rooms/{roomId}/members`: member events, now or at a token.

use axum::{Json, extract::State};
use chappe_rooms::{MembersRequest, Rooms};
use chappe_web::Ruma;
use ruma::api::client::membership::get_member_events::v3::Request;
use serde_json::{Value, json};

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    let wanted = MembersRequest {
        at: request.at.as_deref(),
        membership: request.membership,
        not_membership: request.not_membership,
    };
    let chunk = rooms.members(&requester.actor(), &request.room_id, &wanted).await?;
    Ok(Json(json!({ "chunk": chunk })))
}
