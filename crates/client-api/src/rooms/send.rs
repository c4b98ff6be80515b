//! `PUT /rooms/{roomId}/send/{eventType}/{txnId}`: say something in a room.

use axum::extract::State;
use chappe_rooms::{Draft, Rooms};
use chappe_web::Ruma;
use ruma::{
    api::client::message::send_message_event::v3::{Request, Response},
    events::{MessageLikeEventType, TimelineEventType},
};

use super::content;
use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    let content = content(request.body.json())?;
    let draft = match request.event_type {
        MessageLikeEventType::RoomRedaction => redaction(&content)?,
        kind => Draft::message(TimelineEventType::from(kind), content),
    };
    // A suspended user may take back what it said and nothing else (client-server API, "Account suspension").
    if draft.redacts.is_none() {
        requester.may_act()?;
    }
    limits.user("message", requester.user(), |rates| rates.message)?;
    let sent = rooms.send(&requester.actor(), &request.room_id, draft, Some(request.txn_id)).await?;
    Ok(Ruma(Response::new(sent)))
}

/// A redaction that is sent like a message names its target in the content.
fn redaction(content: &serde_json::Map<String, serde_json::Value>) -> Result<Draft> {
    let redacts = content.get("redacts").and_then(serde_json::Value::as_str);
    let redacts = redacts.and_then(|id| ruma::EventId::parse(id).ok());
    let redacts = redacts.ok_or_else(|| chappe_web::Error::bad_json("redacts must be an event id"))?;
    let reason = content.get("reason").and_then(serde_json::Value::as_str);
    Ok(Draft::redaction(&redacts, reason))
}
