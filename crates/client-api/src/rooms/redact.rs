//! `PUT /rooms/{roomId}/redact/{eventId}/{txnId}`: take an event's content away.

use std::sync::Arc;

use axum::extract::State;
use chappe_rooms::{Draft, Rooms};
use chappe_web::{RateLimiter, Ruma};
use ruma::api::client::redact::redact_event::v3::{Request, Response};

use crate::{Config, error::Result, rates::by_user, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(config): State<Arc<Config>>,
    State(limiter): State<RateLimiter>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    by_user(&limiter, "message", requester.user(), config.rates.message)?;
    let draft = Draft::redaction(&request.event_id, request.reason.as_deref());
    let sent = rooms.send(&requester.actor(), &request.room_id, draft, Some(request.txn_id)).await?;
    Ok(Ruma(Response::new(sent)))
}
