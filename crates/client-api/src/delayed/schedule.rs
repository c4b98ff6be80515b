//! `PUT …/rooms/{roomId}/delayed_event/{eventType}/{txnId}`, and the parameter that delays what `/send` and `/state` are given.

use axum::{Json, extract::State};
use chappe_rooms::{Draft, Rooms, Transaction};
use chappe_web::Arguments;
use ruma::{OwnedRoomId, OwnedTransactionId, RoomId, events::TimelineEventType};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{error::Result, rates::Limits, requester::Acting, requester::Requester};

/// How long an event that is sent has to wait, in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Delay {
    #[serde(rename = "org.matrix.msc4140.delay")]
    delay: Option<u64>,
}

impl Delay {
    /// Sends a draft, now or later.
    pub(crate) async fn send(
        self,
        rooms: &Rooms,
        requester: &Requester,
        room: &RoomId,
        draft: Draft,
        txn: Option<Transaction>,
    ) -> Result<Json<Value>> {
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
    body: axum::body::Bytes,
) -> Result<Json<Value>> {
    limits.user("message", &requester, |rates| rates.message)?;
    let body: Body =
        serde_json::from_slice(&body).map_err(|error| chappe_web::Error::unreadable_json(&error))?;
    let kind = TimelineEventType::from(kind);
    let draft = match body.state_key {
        Some(state_key) => Draft::state(kind, state_key, body.content),
        None if kind == TimelineEventType::RoomRedaction => crate::rooms::redaction(&body.content)?,
        None => Draft::message(kind, body.content),
    };
    Delay { delay: Some(body.delay_ms) }.send(&rooms, &requester, &room, draft, Some(txn)).await
}
