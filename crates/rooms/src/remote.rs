//! Memberships of local users in rooms of other servers: join, knock, leave, and invites of other servers' users.

use chappe_store::{At, Json, out_of_band::OutOfBand};
use ruma::{OwnedEventId, RoomId, UserId};
use serde_json::{Map, Value};

use crate::{Actor, Error, Result, Rooms, Via};

impl Rooms {
    pub(crate) async fn join_remote(&self, _: &Actor, _: &RoomId, _: Via, _: Option<String>) -> Result<()> {
        Err(Error::Unreachable)
    }
    pub(crate) async fn knock_remote(&self, _: &Actor, _: &RoomId, _: Via, _: Option<String>) -> Result<()> {
        Err(Error::Unreachable)
    }
    pub(crate) async fn leave_remote(
        &self,
        _: &Actor,
        _: &RoomId,
        _: At<Json<OutOfBand>>,
        _: Option<String>,
    ) -> Result<()> {
        Err(Error::Unreachable)
    }
    pub(crate) async fn invite_remote(
        &self,
        _: &Actor,
        _: &RoomId,
        _: &UserId,
        _: Map<String, Value>,
    ) -> Result<OwnedEventId> {
        Err(Error::Unreachable)
    }
}
