//! `GET` and `PUT /rooms/{roomId}/state/{eventType}[/{stateKey}]`: one piece of the state.

use axum::{Json, extract::State};
use chappe_rooms::{Draft, Rooms};
use chappe_web::{Parameters, Ruma};
use ruma::{
    api::client::state::{
        get_state_event_for_key::v3::{Request, StateEventFormat},
        send_state_event,
    },
    events::TimelineEventType,
};
use serde_json::{Value, value::RawValue};

use super::content;
use crate::{
    delayed::Delay,
    error::Result,
    rates::Limits,
    requester::{Acting, Requester},
};

pub(super) async fn show(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Box<RawValue>>> {
    let (actor, room, kind) = (requester.actor(), &request.room_id, request.event_type);
    Ok(Json(match request.format {
        StateEventFormat::Event => rooms.state_event(&actor, room, kind, &request.state_key).await?,
        _ => rooms.state_content(&actor, room, kind, &request.state_key).await?,
    }))
}

pub(super) async fn set(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Acting,
    Parameters(delay): Parameters<Delay>,
    Ruma(request): Ruma<send_state_event::v3::Request>,
) -> Result<Json<Value>> {
    limits.message(&requester)?;
    let kind = TimelineEventType::from(request.event_type);
    let mut draft = Draft::state(kind, request.state_key, content(request.body.json())?);
    // Services say when something happened on their side (application service API, "Timestamp massaging").
    draft.timestamp = requester.appservice().and(request.timestamp);
    delay.send(&rooms, &requester, &request.room_id, draft, None).await
}
