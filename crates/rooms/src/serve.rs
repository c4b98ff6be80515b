//! The inbound halves of the federation handshakes and what other servers may read.

use ruma::{EventId, OwnedEventId, RoomId, RoomVersionId, ServerName, UserId};
use serde_json::value::RawValue;

use crate::{Error, Gap, Invitation, JoinAnswer, Result, Rooms, StateEvents, StateIds, Template};

/// A membership event that another server made and signed.
#[derive(Clone, Debug)]
pub struct SignedMember {
    /// The event id in the request's path; it must be the event's.
    pub event_id: OwnedEventId,
    /// The event.
    pub pdu: Box<RawValue>,
}

impl Rooms {
    /// `make_join`: a template for `user` of `origin`, whose server knows `versions`.
    pub async fn make_join(
        &self,
        _origin: &ServerName,
        _room: &RoomId,
        _user: &UserId,
        _versions: &[RoomVersionId],
    ) -> Result<Template> {
        Err(Error::Retry)
    }

    /// `make_leave`.
    pub async fn make_leave(&self, _origin: &ServerName, _room: &RoomId, _user: &UserId) -> Result<Template> {
        Err(Error::Retry)
    }

    /// `make_knock`.
    pub async fn make_knock(
        &self,
        _origin: &ServerName,
        _room: &RoomId,
        _user: &UserId,
        _versions: &[RoomVersionId],
    ) -> Result<Template> {
        Err(Error::Retry)
    }

    /// `send_join` (v2): the state before the join and its auth chain.
    pub async fn accept_join(
        &self,
        _origin: &ServerName,
        _room: &RoomId,
        _member: SignedMember,
    ) -> Result<JoinAnswer> {
        Err(Error::Retry)
    }

    /// `send_leave` (v2).
    pub async fn accept_leave(
        &self,
        _origin: &ServerName,
        _room: &RoomId,
        _member: SignedMember,
    ) -> Result<()> {
        Err(Error::Retry)
    }

    /// `send_knock`: gives the room's stripped state.
    pub async fn accept_knock(
        &self,
        _origin: &ServerName,
        _room: &RoomId,
        _member: SignedMember,
    ) -> Result<Vec<Box<RawValue>>> {
        Err(Error::Retry)
    }

    /// `invite` (v2): gives the invite with this server's signature added.
    pub async fn accept_invite(
        &self,
        _origin: &ServerName,
        _room: &RoomId,
        _event: &EventId,
        _invitation: Invitation,
    ) -> Result<Box<RawValue>> {
        Err(Error::Retry)
    }

    /// `backfill`: the events `from` and those before them, newest first, that `origin` may see.
    pub async fn backfill_for(
        &self,
        _origin: &ServerName,
        _room: &RoomId,
        _from: &[OwnedEventId],
        _limit: u16,
    ) -> Result<Vec<Box<RawValue>>> {
        Err(Error::Retry)
    }

    /// `get_missing_events`, oldest first.
    pub async fn missing_events_for(
        &self,
        _origin: &ServerName,
        _room: &RoomId,
        _gap: Gap,
    ) -> Result<Vec<Box<RawValue>>> {
        Err(Error::Retry)
    }

    /// `state_ids` before `at`.
    pub async fn state_ids_for(
        &self,
        _origin: &ServerName,
        _room: &RoomId,
        _at: &EventId,
    ) -> Result<StateIds> {
        Err(Error::Retry)
    }

    /// `state` before `at`.
    pub async fn state_for(
        &self,
        _origin: &ServerName,
        _room: &RoomId,
        _at: &EventId,
    ) -> Result<StateEvents> {
        Err(Error::Retry)
    }

    /// `event`.
    pub async fn event_for(&self, _origin: &ServerName, _event: &EventId) -> Result<Box<RawValue>> {
        Err(Error::Retry)
    }

    /// `event_auth`: the auth chain of `event`.
    pub async fn event_auth_for(
        &self,
        _origin: &ServerName,
        _room: &RoomId,
        _event: &EventId,
    ) -> Result<Vec<Box<RawValue>>> {
        Err(Error::Retry)
    }
}
