//! What this crate needs from other servers; crate `federation` implements it.
//!
//! Every call has a deadline of its own inside the implementation, talks only to servers the configuration
//! allows, and gives back what came unread: checking it is the business of this crate.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use chappe_rules::check::KeyRing;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId,
    RoomVersionId, ServerName, UInt, UserId,
    api::{
        Direction,
        federation::{directory::get_public_rooms_filtered, space::get_hierarchy},
    },
};
use serde_json::value::RawValue;

use crate::BoundInvite;

/// Why another server did not help.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PeerError {
    /// It was not reached, answered 5xx, is backing off, or may not be talked to.
    #[error("{0} was not reached")]
    Unreachable(OwnedServerName),
    /// It answered, but not what the specification says.
    #[error("malformed answer: {0}")]
    Malformed(String),
    /// It refused with a Matrix error (4xx).
    #[error("{error}")]
    Refused {
        /// HTTP status, 400–499.
        status: u16,
        /// `errcode` of the body, `M_UNKNOWN` if it had none.
        errcode: String,
        /// `error` of the body, for people.
        error: String,
        /// `room_version` of the body, which `M_INCOMPATIBLE_ROOM_VERSION` comes with.
        room_version: Option<RoomVersionId>,
    },
}

/// Keys of a server that are needed to check events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedKeys {
    /// Their ids (`ed25519:…`).
    pub ids: BTreeSet<String>,
    /// How many of the events have to be signed by the server: where not all servers can be asked, those with most come first.
    pub events: usize,
    /// The latest `origin_server_ts` of these events, in milliseconds since the Unix epoch.
    pub at: u64,
}

/// Which keys are needed to check events, by server, as [`chappe_rules::check::keys_needed`] says.
pub type KeysWanted = BTreeMap<OwnedServerName, WantedKeys>;

/// An unsigned template of a membership event, from `make_join`, `make_leave` or `make_knock`.
#[derive(Clone, Debug)]
pub struct Template {
    /// The room's version; none means 1.
    pub room_version: Option<RoomVersionId>,
    /// The template: a hint, never to be signed as it is.
    pub event: Box<RawValue>,
}

/// How much of a room is asked for with `send_join`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The whole state.
    Whole,
    /// The state without memberships, which follow later (`omit_members`).
    WithoutMembers,
}

/// The answer to `send_join`.
#[derive(Clone, Debug, Default)]
pub struct JoinAnswer {
    /// Events in the auth chains of the join and of `state`.
    pub auth_chain: Vec<Box<RawValue>>,
    /// The state before the join.
    pub state: Vec<Box<RawValue>>,
    /// The join, signed by the resident server too.
    pub event: Option<Box<RawValue>>,
    /// Servers that the peer says are in the room.
    pub servers_in_room: Option<Vec<String>>,
    /// Whether memberships were left out.
    pub members_omitted: bool,
    /// Its room among the long answers.
    pub held: Held,
}

/// State at an event, in event ids.
#[derive(Clone, Debug, Default)]
pub struct StateIds {
    /// The state before the event.
    pub state: Vec<OwnedEventId>,
    /// The auth chains of the state.
    pub auth_chain: Vec<OwnedEventId>,
}

/// State at an event, in full.
#[derive(Clone, Debug, Default)]
pub struct StateEvents {
    /// The state before the event.
    pub state: Vec<Box<RawValue>>,
    /// The auth chains of the state.
    pub auth_chain: Vec<Box<RawValue>>,
    /// Its room among the long answers.
    pub held: Held,
}

/// What goes with an answer that takes much memory: it is let go with the answer. Nothing, for answers made here.
#[derive(Clone, Default)]
pub struct Held(Option<Arc<dyn Any + Send + Sync>>);

impl Held {
    /// Keeps `place` for as long as there is a clone.
    pub fn new(place: impl Any + Send + Sync) -> Self {
        Self(Some(Arc::new(place)))
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({})", self.0.is_some())
    }
}

/// An invite on its way to the invited user's server.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// The room's version.
    pub room_version: RoomVersionId,
    /// The invite, signed by the sender's server.
    pub event: Box<RawValue>,
    /// Stripped state (before v11 of the federation API) or full PDUs that tell what room it is.
    pub room_state: Vec<Box<RawValue>>,
}

/// What a policy server is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody waits to have the event sent: asked also when the server did not answer a moment ago.
    Sending,
    /// The event came from elsewhere.
    Receiving,
}

/// Why the state of a room is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// This server wants the room: the answer may be as long as one to a join.
    OwnAccord,
    /// An event that came made it look.
    Received,
}

/// The question of `get_missing_events`.
#[derive(Clone, Debug)]
pub struct Gap {
    /// Events the asker has: go no further back.
    pub earliest: Vec<OwnedEventId>,
    /// Events whose ancestors are missing.
    pub latest: Vec<OwnedEventId>,
    /// How many events at most.
    pub limit: u16,
    /// No event below this depth.
    pub min_depth: UInt,
}

/// Where an alias points.
#[derive(Clone, Debug)]
pub struct AliasTarget {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers that may know it.
    pub servers: Vec<OwnedServerName>,
}

/// Other servers. All calls may fail with [`PeerError`]; none retries for longer than a client would wait.
#[async_trait]
pub trait Peers: Send + Sync {
    /// Whether another server is of the network that this one talks with: a room with members elsewhere is not entered, and
    /// nobody elsewhere says or becomes anything here.
    fn takes_part(&self, _: &ServerName) -> bool {
        true
    }

    /// Whether it is, or may turn out to be once there is a network to talk with: what is for its users is kept.
    fn may_take_part(&self, server: &ServerName) -> bool {
        self.takes_part(server) || self.is_closed()
    }

    /// Whether there is no network to talk with for now, so that nobody takes part: who does is not known.
    fn is_closed(&self) -> bool {
        false
    }

    /// Waits until there is one.
    async fn until_open(&self) {}

    /// The servers of a closed network, as far as their names are known; none: this server talks with everybody.
    fn members(&self) -> Option<Vec<OwnedServerName>> {
        None
    }

    /// Whether a server did not answer of late, so that it is not asked for a while.
    async fn is_away(&self, _: &ServerName) -> bool {
        false
    }

    /// The keys among `wanted` that could be had; missing ones are left out. A key known to have expired before the latest of
    /// its server's events is fetched again first.
    async fn keys(&self, wanted: &KeysWanted) -> KeyRing;

    /// The same for the answer to a join, which may name many servers and is waited for: more of them are asked at the same time,
    /// and for longer.
    async fn keys_for_join(&self, wanted: &KeysWanted) -> KeyRing {
        self.keys(wanted).await
    }

    /// `GET /make_join`.
    async fn make_join(
        &self,
        to: &ServerName,
        room: &RoomId,
        user: &UserId,
        versions: &[RoomVersionId],
    ) -> Result<Template, PeerError>;

    /// `PUT /send_join` (v2).
    async fn send_join(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        pdu: Box<RawValue>,
        extent: Extent,
    ) -> Result<JoinAnswer, PeerError>;

    /// `GET /make_leave`.
    async fn make_leave(&self, to: &ServerName, room: &RoomId, user: &UserId) -> Result<Template, PeerError>;

    /// `PUT /send_leave` (v2).
    async fn send_leave(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        pdu: Box<RawValue>,
    ) -> Result<(), PeerError>;

    /// `GET /make_knock`.
    async fn make_knock(
        &self,
        to: &ServerName,
        room: &RoomId,
        user: &UserId,
        versions: &[RoomVersionId],
    ) -> Result<Template, PeerError>;

    /// `PUT /send_knock`; gives the stripped state of the room.
    async fn send_knock(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        pdu: Box<RawValue>,
    ) -> Result<Vec<Box<RawValue>>, PeerError>;

    /// `PUT /invite` (v2); gives the invite with the invited server's signature added.
    async fn invite(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        invitation: Invitation,
    ) -> Result<Box<RawValue>, PeerError>;

    /// `PUT /exchange_third_party_invite`, asked of the server of whoever invited the address.
    async fn exchange_invite(&self, room: &RoomId, bound: BoundInvite) -> Result<(), PeerError>;

    /// `POST /_matrix/policy/v1/sign`: the signature of the policy server `to` with its key `ed25519:policy_server`.
    async fn policy_signature(
        &self,
        to: &ServerName,
        pdu: Box<RawValue>,
        purpose: Purpose,
    ) -> Result<String, PeerError>;

    /// `POST /get_missing_events`, oldest first.
    async fn missing_events(
        &self,
        to: &ServerName,
        room: &RoomId,
        gap: Gap,
    ) -> Result<Vec<Box<RawValue>>, PeerError>;

    /// `GET /backfill`: the events `from` and up to `limit` before them, newest first.
    async fn backfill(
        &self,
        to: &ServerName,
        room: &RoomId,
        from: &[OwnedEventId],
        limit: u16,
    ) -> Result<Vec<Box<RawValue>>, PeerError>;

    /// `GET /state_ids`.
    async fn state_ids(&self, to: &ServerName, room: &RoomId, at: &EventId) -> Result<StateIds, PeerError>;

    /// `GET /state`.
    async fn state(
        &self,
        to: &ServerName,
        room: &RoomId,
        at: &EventId,
        occasion: Occasion,
    ) -> Result<StateEvents, PeerError>;

    /// `GET /event`.
    async fn event(&self, to: &ServerName, event: &EventId) -> Result<Box<RawValue>, PeerError>;

    /// `GET /event_auth`.
    async fn event_auth(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
    ) -> Result<Vec<Box<RawValue>>, PeerError>;

    /// `GET /query/directory`, asked of the alias's server.
    async fn alias(&self, alias: &RoomAliasId) -> Result<AliasTarget, PeerError>;

    /// `GET /hierarchy`.
    async fn hierarchy(
        &self,
        to: &ServerName,
        room: &RoomId,
        suggested_only: bool,
    ) -> Result<get_hierarchy::v1::Response, PeerError>;

    /// `POST /publicRooms`.
    async fn public_rooms(
        &self,
        to: &ServerName,
        request: get_public_rooms_filtered::v1::Request,
    ) -> Result<get_public_rooms_filtered::v1::Response, PeerError>;

    /// The same for a list of the rooms of many servers: given up soon, and at once for a server that did not answer a moment
    /// ago.
    async fn listed(
        &self,
        to: &ServerName,
        request: get_public_rooms_filtered::v1::Request,
    ) -> Result<get_public_rooms_filtered::v1::Response, PeerError> {
        self.public_rooms(to, request).await
    }

    /// `GET /timestamp_to_event`.
    async fn timestamp_to_event(
        &self,
        to: &ServerName,
        room: &RoomId,
        ts: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<(OwnedEventId, MilliSecondsSinceUnixEpoch), PeerError>;
}
