//! `POST …/delayed_events/{delayId}/{action}`, or with the action in the body: restart, send or cancel a delayed event. The
//! id is all that is needed, so that a call server can be entrusted with it.

use axum::{Json, extract::State};
use chappe_rooms::Rooms;
use chappe_web::{Arguments, Origin, Payload};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{error::Result, rates::Limits};

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Restart,
    Send,
    Cancel,
}

#[derive(Deserialize)]
pub(super) struct Body {
    action: Action,
}

pub(super) async fn by_path(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    origin: Origin,
    Arguments((id, action)): Arguments<(String, String)>,
) -> Result<Json<Value>> {
    let action = match action.as_str() {
        "restart" => Action::Restart,
        "send" => Action::Send,
        "cancel" => Action::Cancel,
        _ => return Err(chappe_web::Error::not_found("There is no such action").into()),
    };
    act(&rooms, &limits, origin, &id, action).await
}

pub(super) async fn by_body(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    origin: Origin,
    Arguments(id): Arguments<String>,
    Payload(body): Payload<Body>,
) -> Result<Json<Value>> {
    act(&rooms, &limits, origin, &id, body.action).await
}

async fn act(
    rooms: &Rooms,
    limits: &Limits,
    origin: Origin,
    id: &str,
    action: Action,
) -> Result<Json<Value>> {
    // Of one delayed event for those who know it, and of one address for those who guess.
    limits.named("delayed event", id, |rates| rates.message)?;
    let done = match action {
        Action::Restart => rooms.restart_delayed(id).await,
        Action::Send => rooms.send_delayed(id).await.map(drop),
        Action::Cancel => rooms.cancel_delayed(id).await,
    };
    if let Err(chappe_rooms::Error::NotFound(_)) = &done {
        limits.ip("unknown delayed event", origin, |rates| rates.search)?;
    }
    done?;
    Ok(Json(json!({})))
}
