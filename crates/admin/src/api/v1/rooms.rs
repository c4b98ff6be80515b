//! `/v1/rooms`: rooms that this server knows.

mod block;
mod context;
mod delete;
mod fetch_event;
mod forward_extremities;
mod join;
mod list;
mod make_room_admin;
mod members;
mod messages;
mod room;
mod state;
mod timestamp_to_event;

use chappe_web::Routes;
use ruma::{OwnedRoomId, OwnedServerName, RoomAliasId, RoomId};

use super::Place as _;
use crate::api::{Api, Result};

pub(in crate::api) use self::delete::Request as DeleteRequest;

pub(super) fn routes() -> Routes<Api> {
    let room = "/_synapse/admin/v1/rooms/{room_id}";
    let at = |below: &str| format!("{room}/{below}");
    Routes::new()
        .get("/_synapse/admin/v1/rooms", list::handler)
        .get(room, room::handler)
        .delete(room, delete::handler)
        .get(&at("block"), block::show)
        .put(&at("block"), block::set)
        .get(&at("context/{event_id}"), context::handler)
        .get(&at("forward_extremities"), forward_extremities::show)
        .delete(&at("forward_extremities"), forward_extremities::merge)
        .post(&at("make_room_admin"), make_room_admin::handler)
        .get(&at("members"), members::handler)
        .get(&at("messages"), messages::handler)
        .get(&at("state"), state::handler)
        .get(&at("timestamp_to_event"), timestamp_to_event::handler)
        .get("/_synapse/admin/v1/fetch_event/{event_id}", fetch_event::handler)
        .post("/_synapse/admin/v1/join/{room_id_or_alias}", join::handler)
}

/// 404 for a room that this server does not know.
pub(in crate::api) async fn must_know(api: &Api, room: &RoomId) -> Result<()> {
    if api.rooms.number(room).await?.is_none() {
        return Err(chappe_web::Error::not_found("Room not found").into());
    }
    Ok(())
}

/// The room that an id or an alias stands for, with servers that may help to reach it.
async fn resolved(api: &Api, room: &str) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
    if let Ok(id) = RoomId::parse(room) {
        return Ok((id, Vec::new()));
    }
    let alias = RoomAliasId::parse(room)
        .map_err(|_| chappe_web::Error::invalid_param("Neither a room id nor an alias"))?;
    let target = api.rooms.resolve_alias(&alias).await?;
    Ok((target.room_id, target.servers))
}
