//! `PUT /_matrix/federation/v1/send_leave/{roomId}/{eventId}`: a leave; the answer is wrapped in `[200, …]`.

use crate::{Federation, Origin, refusal::Refusal, routes::federation::v2};
use axum::{Json, extract::State};
use ruma::api::federation::membership::create_leave_event::v2::Request;
use serde_json::{Value, json};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Result<Json<(u16, Value)>, Refusal> {
    v2::send_leave::accept(&federation, &origin, request).await?;
    Ok(Json((200, json!({}))))
}
