//! `GET` and `DELETE /v1/rooms/{roomIdOrAlias}/forward_extremities`: events that nothing follows yet, and bringing them
//! together.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use serde_json::{Value, json};

use super::{must_know, resolved};
use crate::api::{Api, Result};

pub(super) async fn show(State(api): State<Api>, Arguments(room): Arguments<String>) -> Result<Json<Value>> {
    let (room, _) = resolved(&api, &room).await?;
    must_know(&api, &room).await?;
    let heads = api.rooms.heads(&room).await?;
    let shown: Vec<Value> = heads
        .iter()
        .map(|head| json!({ "event_id": head.event_id, "depth": head.depth, "received_ts": head.sent, "state_group": null }))
        .collect();
    Ok(Json(json!({ "count": shown.len(), "results": shown })))
}

/// None of them is dropped: an event that follows them all takes their place.
pub(super) async fn merge(State(api): State<Api>, Arguments(room): Arguments<String>) -> Result<Json<Value>> {
    let (room, _) = resolved(&api, &room).await?;
    must_know(&api, &room).await?;
    let gone = api.rooms.merge_heads(&room).await?;
    Ok(Json(json!({ "deleted": gone })))
}
