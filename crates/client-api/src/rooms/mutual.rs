//! `GET /mutual_rooms`: the rooms one shares with somebody.

use std::collections::BTreeSet;

use axum::{Json, extract::State};
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::api::client::membership::get_mutual_rooms::v1::Request;
use serde_json::{Value, json};

use crate::{error::Result, requester::Requester};

/// Rooms of one page.
const PAGE: usize = 100;

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    if requester.user() == request.user_id {
        return Err(chappe_web::Error::invalid_param("These are all rooms you are in").into());
    }
    let shared: BTreeSet<_> =
        rooms.shared_rooms(requester.user(), &request.user_id).await?.into_iter().collect();
    let after = request.from.unwrap_or_default();
    let mut page: Vec<_> =
        shared.iter().filter(|room| room.as_str() > after.as_str()).take(PAGE + 1).collect();
    let next = (page.len() > PAGE).then(|| page.truncate(PAGE)).and_then(|()| page.last().copied());
    let mut answer = json!({ "joined": page, "count": shared.len() });
    if let Some(next) = next {
        answer["next_batch"] = json!(next);
    }
    Ok(Json(answer))
}
