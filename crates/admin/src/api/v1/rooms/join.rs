//! `POST /v1/join/{roomIdOrAlias}`: join a user of this server to a room. A room that is not open is one the administrator
//! is in and may invite to.

use axum::{Json, extract::State};
use chappe_rooms::{Actor, Change};
use chappe_web::{Arguments, Parameters};
use ruma::{OwnedServerName, OwnedUserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::resolved;
use crate::api::{Administrator, Api, Body, Result};

#[derive(Deserialize)]
pub(super) struct Request {
    user_id: OwnedUserId,
}

pub(super) async fn handler(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(room): Arguments<String>,
    Parameters(query): Parameters<Vec<(String, String)>>,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    api.account(&request.user_id).await?;
    let (room, mut via) = resolved(&api, &room).await?;
    let named = query.iter().filter(|(key, _)| key == "server_name" || key == "via");
    via.extend(named.filter_map(|(_, server)| OwnedServerName::try_from(server.as_str()).ok()));
    let listed = api.rooms.described(&room).await?;
    let is_closed = listed.is_some_and(|listed| {
        listed.joined_local_members > 0 && listed.join_rules.as_deref() != Some("public")
    });
    if is_closed {
        let inviter = administrator.actor();
        api.rooms.change(&inviter, &room, &request.user_id, Change::Invite, None).await?;
    }
    api.rooms.join(&Actor::user(&request.user_id), &room, via, Map::new()).await?;
    Ok(Json(json!({ "room_id": room })))
}
