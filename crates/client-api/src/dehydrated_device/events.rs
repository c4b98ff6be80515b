//! `POST /dehydrated_device/{deviceId}/events`: what waits for the device, a page at a time.

use axum::{
    Json,
    extract::{Request, State},
};
use chappe_accounts::Accounts;
use chappe_web::{Arguments, body_bytes};
use ruma::OwnedDeviceId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{error::Result, requester::Requester};

#[derive(Default, Deserialize)]
struct Body {
    next_batch: Option<String>,
}

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    requester: Requester,
    Arguments(device): Arguments<OwnedDeviceId>,
    request: Request,
) -> Result<Json<Value>> {
    let (parts, body) = request.into_parts();
    let bytes = body_bytes(&parts, body).await?;
    let body: Body = match &*bytes {
        [] => Body::default(),
        bytes => serde_json::from_slice(bytes).map_err(|error| chappe_web::Error::unreadable_json(&error))?,
    };
    let page = accounts.dehydrated_messages(requester.user(), &device, body.next_batch.as_deref()).await?;
    let events: Vec<_> = page.messages.into_iter().map(|message| message.event).collect();
    Ok(Json(json!({ "events": events, "next_batch": page.next })))
}
