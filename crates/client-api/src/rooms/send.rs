//! `PUT /rooms/{roomId}/send/{eventType}/{txnId}`: say something in a room.

use axum::{Json, extract::State};
use chappe_rooms::{Draft, Rooms};
use chappe_web::{Arguments, Parameters, Payload, Ruma};
use ruma::{
    OwnedRoomId, OwnedTransactionId, api::client::message::send_message_event::v3::Request,
    events::TimelineEventType,
};
use serde_json::{Map, Value, value::RawValue};

use super::content;
use crate::{delayed::Delay, error::Result, rates::Limits, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    // Not the request's own type, which for some is another one than what is written.
    Arguments((room, kind, txn)): Arguments<(OwnedRoomId, String, OwnedTransactionId)>,
    Parameters(delay): Parameters<Delay>,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    let mut draft = draft(&kind, request.body.json())?;
    draft.timestamp = requester.appservice().and(request.timestamp);
    may_send(&limits, &requester, &draft)?;
    delay.send(&rooms, &requester, &room, draft, Some(txn)).await
}

/// `POST /rooms/{roomId}/send/{eventType}`, without a transaction: what is sent again is said twice.
pub(super) async fn once(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Parameters(delay): Parameters<Delay>,
    Arguments((room, kind)): Arguments<(OwnedRoomId, String)>,
    Payload(body): Payload<Box<RawValue>>,
) -> Result<Json<Value>> {
    let draft = draft(&kind, &body)?;
    may_send(&limits, &requester, &draft)?;
    delay.send(&rooms, &requester, &room, draft, None).await
}

fn draft(kind: &str, json: &RawValue) -> Result<Draft> {
    let content = content(json)?;
    match chappe_rules::pdu::kind_of(kind) {
        TimelineEventType::RoomRedaction => redaction(&content),
        kind => Ok(Draft::message(kind, content)),
    }
}

/// A suspended user may take back what it said and nothing else (client-server API, "Account suspension").
fn may_send(limits: &Limits, requester: &Requester, draft: &Draft) -> Result<()> {
    if draft.redacts.is_none() {
        requester.may_act()?;
    }
    Ok(limits.message(requester)?)
}

/// A redaction that is sent like a message names its target in the content.
pub(crate) fn redaction(content: &Map<String, Value>) -> Result<Draft> {
    let redacts = content.get("redacts").and_then(Value::as_str);
    let redacts = redacts.and_then(|id| ruma::EventId::parse(id).ok());
    let redacts = redacts.ok_or_else(|| chappe_web::Error::bad_json("redacts must be an event id"))?;
    let reason = content.get("reason").and_then(Value::as_str);
    Ok(Draft::redaction(&redacts, reason))
}
