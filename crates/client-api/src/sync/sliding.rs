//! `POST /unstable/org.matrix.simplified_msc3575/sync`: sliding sync (MSC4186).

use axum::{
    Json,
    extract::{Request, State},
};
use chappe_accounts::Accounts;
use chappe_delivery::Delivery;
use chappe_web::{Parameters, body_bytes};

use self::{
    answer::Answer,
    body::{Body, Query},
};
use crate::{error::Result, requester::Requester};

mod answer;
mod body;

pub(super) async fn handler(
    State(delivery): State<Delivery>,
    State(accounts): State<Accounts>,
    requester: Requester,
    Parameters(query): Parameters<Query>,
    request: Request,
) -> Result<Json<Answer>> {
    let body = read(request).await?;
    let txn_id = body.txn_id.clone();
    let request = body.request(query, requester.user(), requester.device_id.as_deref())?;
    let answer = delivery.sliding_sync(&request).await?;
    accounts.still_admits(&requester).await?;
    Ok(Json(Answer::new(answer, txn_id)))
}

/// What is asked. Head and body of the request are gone with this, before the answer is waited for.
async fn read(request: Request) -> Result<Body> {
    let (parts, body) = request.into_parts();
    let bytes = body_bytes(&parts, body).await?;
    let bytes = if bytes.is_empty() { &b"{}"[..] } else { &bytes };
    Ok(serde_json::from_slice(bytes).map_err(|error| chappe_web::Error::unreadable_json(&error))?)
}
