//! `PUT /rooms/{roomId}/redact/{eventId}/{txnId}`: take an event's content away.

use axum::extract::State;
use chappe_rooms::{Draft, Rooms};
use chappe_web::{Arguments, Payload, Ruma, WithBody};
use ruma::{
    OwnedEventId, OwnedRoomId,
    api::client::redact::redact_event::v3::{Request, Response},
};
use serde_json::{Map, Value};

use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    WithBody(request, body): WithBody<Request>,
) -> Result<Ruma<Response>> {
    limits.message(&requester)?;
    let mut draft = Draft::redaction(&request.event_id, request.reason.as_deref());
    draft.with_relations = related(&body)?;
    let sent = rooms.send(&requester.actor(), &request.room_id, draft, Some(request.txn_id)).await?;
    Ok(Ruma(Response::new(sent)))
}

/// `POST /rooms/{roomId}/redact/{eventId}`, without a transaction.
pub(super) async fn once(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Arguments((room, event)): Arguments<(OwnedRoomId, OwnedEventId)>,
    Payload(body): Payload<Map<String, Value>>,
) -> Result<Ruma<Response>> {
    limits.message(&requester)?;
    let mut draft = Draft::redaction(&event, body.get("reason").and_then(Value::as_str));
    draft.with_relations = related(&Value::Object(body))?;
    let sent = rooms.send(&requester.actor(), &room, draft, None).await?;
    Ok(Ruma(Response::new(sent)))
}

/// The types of relation whose events go as well (MSC3912).
fn related(body: &Value) -> Result<Vec<String>> {
    let given = body.get("with_rel_types").or_else(|| body.get("org.matrix.msc3912.with_relations"));
    let Some(given) = given else { return Ok(Vec::new()) };
    let types = serde_json::from_value(given.clone());
    Ok(types.map_err(|_| chappe_web::Error::bad_json("relation types must be a list of strings"))?)
}
