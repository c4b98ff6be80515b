//! `PUT /rooms/{roomId}/redact/{eventId}/{txnId}`: take an event's content away.

use axum::extract::State;
use chappe_rooms::{Draft, Rooms};
use chappe_web::Ruma;
use ruma::api::client::redact::redact_event::v3::{Request, Response};

use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    limits.user("message", requester.user(), |rates| rates.message)?;
    let draft = Draft::redaction(&request.event_id, request.reason.as_deref());
    let sent = rooms.send(&requester.actor(), &request.room_id, draft, Some(request.txn_id)).await?;
    Ok(Ruma(Response::new(sent)))
}
