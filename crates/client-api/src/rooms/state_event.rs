//! `GET` and `PUT /rooms/{roomId}/state/{eventType}[/{stateKey}]`: one piece of the state.

use std::sync::Arc;

use axum::{Json, extract::State};
use chappe_accounts::Accounts;
use chappe_rooms::{Draft, Rooms};
use chappe_web::{Parameters, Ruma};
use ruma::{
    api::client::state::{
        get_state_event_for_key::v3::{Request, StateEventFormat},
        send_state_event,
    },
    events::TimelineEventType,
};
use serde_json::{Map, Value, value::RawValue};

use super::content;
use crate::{
    Config,
    delayed::Delay,
    error::Result,
    profile::may_be_renamed,
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

#[expect(clippy::too_many_arguments, reason = "extractors, one by one")]
pub(super) async fn set(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    State(config): State<Arc<Config>>,
    State(limits): State<Limits>,
    requester: Acting,
    Parameters(delay): Parameters<Delay>,
    Ruma(request): Ruma<send_state_event::v3::Request>,
) -> Result<Json<Value>> {
    limits.message(&requester)?;
    let kind = TimelineEventType::from(request.event_type);
    let content = content(request.body.json())?;
    if kind == TimelineEventType::RoomMember && request.state_key == requester.user().as_str() {
        must_be_own_name(&accounts, &config, &requester, &content).await?;
    }
    let mut draft = Draft::state(kind, request.state_key, content);
    // Services say when something happened on their side (application service API, "Timestamp massaging").
    draft.timestamp = requester.appservice().and(request.timestamp);
    delay.send(&rooms, &requester, &request.room_id, draft, None).await
}

/// Refuses a name for one room alone where users do not choose theirs.
async fn must_be_own_name(
    accounts: &Accounts,
    config: &Config,
    requester: &Acting,
    content: &Map<String, Value>,
) -> Result<()> {
    let profile = accounts.profile(&accounts.read(), requester.user()).await?;
    match content.get("displayname") {
        Some(Value::String(name)) if Some(&**name) != profile.displayname() => {
            may_be_renamed(config, requester)
        }
        _ => Ok(()),
    }
}
