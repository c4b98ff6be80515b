//! `GET` and `POST /dehydrated_device/{deviceId}/events`: what waits for the device, a page at a time.

use axum::{
    Json,
    extract::{Request, State},
};
use chappe_accounts::{Accounts, DehydratedMessages};
use chappe_web::{Arguments, Parameters, body_bytes};
use ruma::OwnedDeviceId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{error::Result, requester::Requester};

#[derive(Debug, Deserialize)]
pub(super) struct Query {
    from: Option<String>,
    limit: Option<usize>,
}

#[derive(Default, Deserialize)]
struct Body {
    next_batch: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Answer {
    events: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

impl Answer {
    fn new(page: DehydratedMessages, has_next: bool) -> Self {
        let events = page.messages.into_iter().map(|message| message.event).collect();
        Self { events, next_batch: has_next.then_some(page.next) }
    }
}

/// The last page has no token: clients go on as long as there is one.
pub(super) async fn show(
    State(accounts): State<Accounts>,
    requester: Requester,
    Arguments(device): Arguments<OwnedDeviceId>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Answer>> {
    let (from, limit) = (query.from.as_deref(), query.limit);
    let page = accounts.dehydrated_messages(requester.user(), &device, from, limit).await?;
    let has_next = page.more;
    Ok(Json(Answer::new(page, has_next)))
}

/// As an earlier draft of the proposal has it: there is always a token, and after the last page one without events.
pub(super) async fn post(
    State(accounts): State<Accounts>,
    requester: Requester,
    Arguments(device): Arguments<OwnedDeviceId>,
    request: Request,
) -> Result<Json<Answer>> {
    let (parts, body) = request.into_parts();
    let bytes = body_bytes(&parts, body).await?;
    let body: Body = match &*bytes {
        [] => Body::default(),
        bytes => serde_json::from_slice(bytes).map_err(|error| chappe_web::Error::unreadable_json(&error))?,
    };
    let from = body.next_batch.as_deref();
    let page = accounts.dehydrated_messages(requester.user(), &device, from, None).await?;
    Ok(Json(Answer::new(page, true)))
}
