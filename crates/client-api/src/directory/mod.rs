//! Names of rooms and the public directory.

use chappe_rooms::Rooms;
use ruma::{OwnedRoomId, OwnedServerName, RoomOrAliasId};

use crate::error::Result;

/// The room that an id or an alias means, and servers that may help to enter it.
pub(crate) async fn find(
    _rooms: &Rooms,
    name: &RoomOrAliasId,
    mut via: Vec<OwnedServerName>,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
    via.truncate(20);
    match OwnedRoomId::try_from(name.to_owned()) {
        Ok(room) => {
            via.extend(room.server_name().map(ToOwned::to_owned));
            Ok((room, via))
        }
        Err(_) => Err(chappe_web::Error::not_found("No such alias").into()),
    }
}
