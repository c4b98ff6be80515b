//! `createRoom`: presets, initial state and invites in one commit.

use ruma::{OwnedEventId, OwnedRoomId, api::client::room::create_room};

use crate::{Actor, Error, Result, Rooms};

/// Where an upgraded room comes from.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// The old room.
    pub room_id: OwnedRoomId,
    /// Its last event, for versions whose create event names it.
    pub event_id: Option<OwnedEventId>,
}

impl Rooms {
    /// Creates a room (client-server API, `POST /createRoom`). All its events are one commit; invites of users
    /// of other servers follow it.
    pub async fn create(&self, _actor: &Actor, _request: create_room::v3::Request) -> Result<OwnedRoomId> {
        Err(Error::Retry)
    }
}
