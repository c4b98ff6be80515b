//! Names of rooms and the public directory.

mod alias;
mod list;
mod public_rooms;
mod room_aliases;

use chappe_rooms::Rooms;
use chappe_web::Routes;
use ruma::{
    OwnedRoomAliasId, OwnedRoomId, OwnedServerName, RoomOrAliasId,
    api::client::{alias as alias_api, directory as api, room::aliases},
};

use crate::{Api, error::Result};

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on::<alias_api::get_alias::v3::Request, _>(alias::show)
        .on::<alias_api::create_alias::v3::Request, _>(alias::create)
        .on::<alias_api::delete_alias::v3::Request, _>(alias::delete)
        .on::<aliases::v3::Request, _>(room_aliases::handler)
        .on::<api::get_room_visibility::v3::Request, _>(list::show)
        .on::<api::set_room_visibility::v3::Request, _>(list::set)
        .on::<api::get_public_rooms::v3::Request, _>(public_rooms::all)
        .on::<api::get_public_rooms_filtered::v3::Request, _>(public_rooms::filtered)
}

/// Servers tried at most for one room.
const SERVERS: usize = 20;

/// The room that an id or an alias means, and the servers that are named as those that may help to enter it.
pub(crate) async fn find(
    rooms: &Rooms,
    name: &RoomOrAliasId,
    mut via: Vec<OwnedServerName>,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
    let (room, servers) = match OwnedRoomId::try_from(name.to_owned()) {
        Ok(room) => (room, Vec::new()),
        Err(_) => {
            let alias = OwnedRoomAliasId::try_from(name.to_owned());
            let alias = alias.map_err(|_| chappe_web::Error::invalid_param("Neither room id nor alias"))?;
            let target = rooms.resolve_alias(&alias).await?;
            (target.room_id, target.servers)
        }
    };
    via.extend(servers);
    via.truncate(SERVERS);
    Ok((room, via))
}
