//! `GET …/delayed_events` and `GET …/delayed_events/{delayId}`: a user's own delayed events.

use axum::{Json, extract::State};
use chappe_rooms::{Delayed, Rooms};
use chappe_web::Arguments;
use serde_json::{Value, json};

use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn all(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
) -> Result<Json<Value>> {
    limits.user("delayed", &requester, |rates| rates.message)?;
    let waiting = rooms.all_delayed(requester.user()).await?;
    let shown: Vec<Value> = waiting.into_iter().map(|(id, delayed)| shown(&id, delayed)).collect();
    Ok(Json(json!({ "delayed_events": shown })))
}

pub(super) async fn one(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Arguments(id): Arguments<String>,
) -> Result<Json<Value>> {
    limits.user("delayed", &requester, |rates| rates.message)?;
    let delayed = rooms.delayed(requester.user(), &id).await?;
    Ok(Json(shown(&id, delayed)))
}

/// A delayed event as its user sees it, under the names of now and those that clients began with.
fn shown(id: &str, delayed: Delayed) -> Value {
    let mut shown = json!({
        "delay_id": id,
        "room_id": delayed.room,
        "type": delayed.kind,
        "delay_ms": delayed.delay_ms,
        "delay": delayed.delay_ms,
        "scheduled_at": delayed.scheduled_at,
        "running_since": delayed.scheduled_at,
        "content": delayed.content,
    });
    if let Some(state_key) = delayed.state_key {
        shown["state_key"] = state_key.into();
    }
    if let Some(end) = delayed.end {
        shown["finalised_ts"] = end.at.into();
        if let Some(event) = end.event {
            shown["event_id"] = event.as_str().into();
        }
        if let Some((errcode, error)) = end.error {
            shown["error"] = json!({ "errcode": errcode, "error": error });
        }
    }
    shown
}
