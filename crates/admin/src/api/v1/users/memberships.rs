//! `GET /v1/users/{userId}/memberships`: somebody's part in every room this server knows.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use ruma::OwnedUserId;
use serde_json::{Map, Value, json};

use crate::api::{Api, Result};

pub(super) async fn handler(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
) -> Result<Json<Value>> {
    let memberships = api.rooms.memberships(&user).await?.into_iter();
    let memberships: Map<String, Value> =
        memberships.map(|(room, membership)| (room.to_string(), membership.as_str().into())).collect();
    Ok(Json(json!({ "memberships": memberships })))
}
