//! `POST /v1/rooms/{roomIdOrAlias}/make_room_admin`: give somebody the most power that a user of this server has there.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{must_know, resolved};
use crate::api::{Administrator, Api, Body, Result};

#[derive(Deserialize)]
pub(super) struct Request {
    user_id: Option<OwnedUserId>,
}

pub(super) async fn handler(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(room): Arguments<String>,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    let (room, _) = resolved(&api, &room).await?;
    must_know(&api, &room).await?;
    let user = request.user_id.unwrap_or_else(|| administrator.user().to_owned());
    api.rooms.empower(&room, &user).await?;
    Ok(Json(json!({})))
}
