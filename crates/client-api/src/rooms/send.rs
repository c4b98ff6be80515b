//! `PUT /rooms/{roomId}/send/{eventType}/{txnId}`: say something in a room.

use axum::{Json, extract::State};
use chappe_rooms::{Draft, Rooms};
use chappe_web::{Parameters, Ruma};
use ruma::{
    api::client::message::send_message_event::v3::Request,
    events::{MessageLikeEventType, TimelineEventType},
};
use serde_json::{Map, Value};

use super::content;
use crate::{delayed::Delay, error::Result, rates::Limits, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Parameters(delay): Parameters<Delay>,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    let content = content(request.body.json())?;
    let mut draft = match request.event_type {
        MessageLikeEventType::RoomRedaction => redaction(&content)?,
        kind => Draft::message(TimelineEventType::from(kind), content),
    };
    draft.timestamp = requester.appservice().and(request.timestamp);
    // A suspended user may take back what it said and nothing else (client-server API, "Account suspension").
    if draft.redacts.is_none() {
        requester.may_act()?;
    }
    limits.user("message", &requester, |rates| rates.message)?;
    delay.send(&rooms, &requester, &request.room_id, draft, Some(request.txn_id)).await
}

/// A redaction that is sent like a message names its target in the content.
pub(crate) fn redaction(content: &Map<String, Value>) -> Result<Draft> {
    let redacts = content.get("redacts").and_then(Value::as_str);
    let redacts = redacts.and_then(|id| ruma::EventId::parse(id).ok());
    let redacts = redacts.ok_or_else(|| chappe_web::Error::bad_json("redacts must be an event id"))?;
    let reason = content.get("reason").and_then(Value::as_str);
    Ok(Draft::redaction(&redacts, reason))
}
