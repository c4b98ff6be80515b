//! `PUT /rooms/{roomId}/typing/{userId}`: somebody is writing.

use std::time::Duration;

use axum::{
    Json,
    extract::{Request, State},
};
use chappe_delivery::Delivery;
use chappe_web::{Arguments, body_bytes};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{error::Result, rates::Limits, requester::Acting};

/// The body. The specification asks nobody for a timeout, the endpoint type of ruma does.
#[derive(Deserialize)]
struct Wanted {
    typing: bool,
    #[serde(default)]
    timeout: Option<u64>,
}

/// How long somebody types who does not say so, in milliseconds.
const USUAL: u64 = 30_000;

pub(super) async fn handler(
    State(delivery): State<Delivery>,
    State(limits): State<Limits>,
    requester: Acting,
    Arguments((room, user)): Arguments<(OwnedRoomId, OwnedUserId)>,
    request: Request,
) -> Result<Json<Value>> {
    limits.signal(&requester)?;
    let (parts, body) = request.into_parts();
    let wanted: Wanted = serde_json::from_slice(&body_bytes(&parts, body).await?)
        .map_err(|error| chappe_web::Error::unreadable_json(&error))?;
    requester.must_be(&user)?;
    let time = wanted.typing.then(|| Duration::from_millis(wanted.timeout.unwrap_or(USUAL)));
    if !delivery.typing().set_local(&room, requester.user(), time).await? {
        return Err(chappe_web::Error::forbidden("You are not in this room").into());
    }
    Ok(Json(json!({})))
}
