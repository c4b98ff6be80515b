//! `/unstable/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription`: whether the user follows a thread.

use axum::{
    Json,
    extract::{Request, State},
};
use chappe_rooms::Rooms;
use chappe_web::{Arguments, body_bytes};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{error::Result, requester::Requester};

type Thread = Arguments<(OwnedRoomId, OwnedEventId)>;

pub(super) async fn show(
    State(rooms): State<Rooms>,
    requester: Requester,
    Arguments((room, root)): Thread,
) -> Result<Json<Value>> {
    let found = rooms.thread_subscription(requester.user(), &room, &root).await?;
    let automatic =
        found.ok_or_else(|| chappe_web::Error::not_found("You are not subscribed to this thread"))?;
    Ok(Json(json!({ "automatic": automatic })))
}

/// The body. A client that subscribes by itself says because of which event.
#[derive(Default, Deserialize)]
struct Wanted {
    automatic: Option<OwnedEventId>,
}

pub(super) async fn set(
    State(rooms): State<Rooms>,
    requester: Requester,
    Arguments((room, root)): Thread,
    request: Request,
) -> Result<Json<Value>> {
    let (parts, body) = request.into_parts();
    let bytes = body_bytes(&parts, body).await?;
    let wanted: Wanted = match &*bytes {
        [] => Wanted::default(),
        bytes => serde_json::from_slice(bytes).map_err(|error| chappe_web::Error::unreadable_json(&error))?,
    };
    rooms.subscribe_to_thread(requester.user(), &room, &root, wanted.automatic.as_deref()).await?;
    Ok(Json(json!({})))
}

pub(super) async fn remove(
    State(rooms): State<Rooms>,
    requester: Requester,
    Arguments((room, root)): Thread,
) -> Result<Json<Value>> {
    rooms.unsubscribe_from_thread(requester.user(), &room, &root).await?;
    Ok(Json(json!({})))
}
