//! `POST /rooms/{roomId}/kick`, `/ban` and `/unban`: what one member does to another.

use axum::extract::State;
use chappe_rooms::{Change, REDACT_EVENTS, Rooms};
use chappe_web::{Ruma, WithBody};
use ruma::api::client::membership::{ban_user, kick_user, unban_user};
use serde_json::{Map, Value, json};

use crate::{error::Result, requester::Acting};

pub(super) async fn kick(
    State(rooms): State<Rooms>,
    requester: Acting,
    WithBody(request, body): WithBody<kick_user::v3::Request>,
) -> Result<Ruma<kick_user::v3::Response>> {
    let (actor, room, user) = (requester.actor(), &request.room_id, &request.user_id);
    let said = said(request.reason, &body)?;
    rooms.change_saying(&actor, room, user, Change::Kick, said).await?;
    Ok(Ruma(kick_user::v3::Response::new()))
}

pub(super) async fn ban(
    State(rooms): State<Rooms>,
    requester: Acting,
    WithBody(request, body): WithBody<ban_user::v3::Request>,
) -> Result<Ruma<ban_user::v3::Response>> {
    let (actor, room, user) = (requester.actor(), &request.room_id, &request.user_id);
    let said = said(request.reason, &body)?;
    rooms.change_saying(&actor, room, user, Change::Ban, said).await?;
    Ok(Ruma(ban_user::v3::Response::new()))
}

pub(super) async fn unban(
    State(rooms): State<Rooms>,
    requester: Acting,
    Ruma(request): Ruma<unban_user::v3::Request>,
) -> Result<Ruma<unban_user::v3::Response>> {
    let (actor, room, user) = (requester.actor(), &request.room_id, &request.user_id);
    rooms.change(&actor, room, user, Change::Unban, request.reason).await?;
    Ok(Ruma(unban_user::v3::Response::new()))
}

/// What of a request becomes part of the membership: the reason, and whether what the user said is redacted (MSC4293).
fn said(reason: Option<String>, body: &Value) -> Result<Map<String, Value>> {
    let mut said = Map::from_iter(reason.map(|reason| ("reason".to_owned(), json!(reason))));
    match body.get(REDACT_EVENTS) {
        None => {}
        Some(Value::Bool(redact)) => {
            said.insert(REDACT_EVENTS.to_owned(), json!(redact));
        }
        Some(_) => {
            return Err(chappe_web::Error::bad_json(format!("{REDACT_EVENTS} is true or false")).into());
        }
    }
    Ok(said)
}
