//! `PUT …/rooms/{roomId}/delayed_event/{eventType}/{txnId}`, and the parameter that delays what `/send` and `/state` are given.

use axum::{Json, extract::State};
use chappe_rooms::{Draft, Rooms, Transaction};
use chappe_rules::pdu::MAX_STICKY_MS;
use chappe_web::{Arguments, Parameters, Payload};
use ruma::{OwnedRoomId, OwnedTransactionId, RoomId, events::TimelineEventType};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{error::Result, rates::Limits, requester::Acting, requester::Requester};

/// How long an event that is sent has to wait, and how long it is to stick, in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Delay {
    #[serde(rename = "org.matrix.msc4140.delay")]
    delay: Option<u64>,
    #[serde(rename = "org.matrix.msc4354.sticky_duration_ms")]
    sticky: Option<u32>,
}

impl Delay {
    /// Sends a draft, now or later.
    pub(crate) async fn send(
        self,
        rooms: &Rooms,
        requester: &Requester,
        room: &RoomId,
        mut draft: Draft,
        txn: Option<Transaction>,
    ) -> Result<Json<Value>> {
        if self.sticky.is_some_and(|sticky| sticky > MAX_STICKY_MS) {
            return Err(chappe_web::Error::invalid_param("An event sticks for an hour at most").into());
        }
        draft.sticky_ms = self.sticky;
        let actor = requester.actor();
        Ok(Json(match self.delay {
            Some(delay) => json!({ "delay_id": rooms.schedule(&actor, room, draft, delay, txn).await? }),
            None => json!({ "event_id": rooms.send(&actor, room, draft, txn).await? }),
        }))
    }
}

#[derive(Deserialize)]
pub(super) struct Body {
    delay_ms: u64,
    state_key: Option<String>,
    content: Map<String, Value>,
}

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Acting,
    Arguments((room, kind, txn)): Arguments<(OwnedRoomId, String, OwnedTransactionId)>,
    Parameters(delay): Parameters<Delay>,
    Payload(body): Payload<Body>,
) -> Result<Json<Value>> {
    limits.message(&requester)?;
    let kind = chappe_rules::pdu::kind_of(&kind);
    let draft = match body.state_key {
        Some(state_key) => Draft::state(kind, state_key, body.content),
        None if kind == TimelineEventType::RoomRedaction => crate::rooms::redaction(&body.content)?,
        None => Draft::message(kind, body.content),
    };
    Delay { delay: Some(body.delay_ms), ..delay }.send(&rooms, &requester, &room, draft, Some(txn)).await
}
