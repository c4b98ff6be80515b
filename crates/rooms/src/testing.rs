//! A server without a disk and without peers, for the tests of this crate.

use std::sync::Arc;

use async_trait::async_trait;
use chappe_accounts::{Accounts, AccountsConfig};
use chappe_kv::{Counting, Db, Memory, RoundTrips};
use chappe_rules::{build::SigningKey, check::KeyRing, policy::Plain};
use chappe_store::Store;
use chappe_world::{Fake, FakeNet, World};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId,
    RoomVersionId, ServerName, UserId,
    api::{
        Direction,
        client::room::create_room,
        federation::{directory::get_public_rooms_filtered, space::get_hierarchy},
    },
    events::TimelineEventType,
};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    Actor, AliasTarget, Change, Config, Deps, Draft, Gap, Invitation, JoinAnswer, KeysWanted, PeerError,
    Peers, Rooms, StateEvents, StateIds, Template,
};

/// Nobody is reached.
pub(crate) struct Nobody;

fn unreachable<T>(server: &ServerName) -> Result<T, PeerError> {
    Err(PeerError::Unreachable(server.to_owned()))
}

#[async_trait]
impl Peers for Nobody {
    async fn keys(&self, _: &KeysWanted, _: MilliSecondsSinceUnixEpoch) -> KeyRing {
        KeyRing::default()
    }
    async fn make_join(
        &self,
        to: &ServerName,
        _: &RoomId,
        _: &UserId,
        _: &[RoomVersionId],
    ) -> Result<Template, PeerError> {
        unreachable(to)
    }
    async fn send_join(
        &self,
        to: &ServerName,
        _: &RoomId,
        _: &EventId,
        _: Box<RawValue>,
    ) -> Result<JoinAnswer, PeerError> {
        unreachable(to)
    }
    async fn make_leave(&self, to: &ServerName, _: &RoomId, _: &UserId) -> Result<Template, PeerError> {
        unreachable(to)
    }
    async fn send_leave(
        &self,
        to: &ServerName,
        _: &RoomId,
        _: &EventId,
        _: Box<RawValue>,
    ) -> Result<(), PeerError> {
        unreachable(to)
    }
    async fn make_knock(
        &self,
        to: &ServerName,
        _: &RoomId,
        _: &UserId,
        _: &[RoomVersionId],
    ) -> Result<Template, PeerError> {
        unreachable(to)
    }
    async fn send_knock(
        &self,
        to: &ServerName,
        _: &RoomId,
        _: &EventId,
        _: Box<RawValue>,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        unreachable(to)
    }
    async fn invite(
        &self,
        to: &ServerName,
        _: &RoomId,
        _: &EventId,
        _: Invitation,
    ) -> Result<Box<RawValue>, PeerError> {
        unreachable(to)
    }
    async fn missing_events(
        &self,
        to: &ServerName,
        _: &RoomId,
        _: Gap,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        unreachable(to)
    }
    async fn backfill(
        &self,
        to: &ServerName,
        _: &RoomId,
        _: &[OwnedEventId],
        _: u16,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        unreachable(to)
    }
    async fn state_ids(&self, to: &ServerName, _: &RoomId, _: &EventId) -> Result<StateIds, PeerError> {
        unreachable(to)
    }
    async fn state(&self, to: &ServerName, _: &RoomId, _: &EventId) -> Result<StateEvents, PeerError> {
        unreachable(to)
    }
    async fn event(&self, to: &ServerName, _: &EventId) -> Result<Box<RawValue>, PeerError> {
        unreachable(to)
    }
    async fn event_auth(
        &self,
        to: &ServerName,
        _: &RoomId,
        _: &EventId,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        unreachable(to)
    }
    async fn alias(&self, alias: &RoomAliasId) -> Result<AliasTarget, PeerError> {
        unreachable(alias.server_name())
    }
    async fn hierarchy(
        &self,
        to: &ServerName,
        _: &RoomId,
        _: bool,
    ) -> Result<get_hierarchy::v1::Response, PeerError> {
        unreachable(to)
    }
    async fn public_rooms(
        &self,
        to: &ServerName,
        _: get_public_rooms_filtered::v1::Request,
    ) -> Result<get_public_rooms_filtered::v1::Response, PeerError> {
        unreachable(to)
    }
    async fn timestamp_to_event(
        &self,
        to: &ServerName,
        _: &RoomId,
        _: MilliSecondsSinceUnixEpoch,
        _: Direction,
    ) -> Result<(OwnedEventId, MilliSecondsSinceUnixEpoch), PeerError> {
        unreachable(to)
    }
}

/// A server with users who talk.
pub(crate) struct Town {
    pub(crate) rooms: Rooms,
    pub(crate) store: Store,
    pub(crate) accounts: Accounts,
    pub(crate) trips: Arc<RoundTrips>,
}

impl Town {
    pub(crate) async fn new() -> Self {
        let trips = Arc::new(RoundTrips::default());
        let store = Store::open(Db::new(Counting::new(Memory::default(), trips.clone()))).await.unwrap();
        let world = World::fake(Fake::new("here.fr", 1, &FakeNet::new()));
        let server: OwnedServerName = "here.fr".try_into().unwrap();
        let accounts = Accounts::new(store.clone(), world.clone(), server.clone(), AccountsConfig::default());
        let deps = Deps {
            store: store.clone(),
            accounts: accounts.clone(),
            world,
            server,
            key: Arc::new(SigningKey::from_seed([7; 32], "1").unwrap()),
            policy: Arc::new(Plain),
            weak_keys: Arc::default(),
            peers: Arc::new(Nobody),
        };
        Self { rooms: Rooms::new(deps, Config::default()), store, accounts, trips }
    }

    /// A room of `creator` from the fields of a createRoom request.
    pub(crate) async fn room(&self, creator: &Actor, fields: Value) -> OwnedRoomId {
        let mut request = create_room::v3::Request::new();
        let text = |field: &str| fields.get(field).and_then(Value::as_str).map(str::to_owned);
        request.name = text("name");
        request.topic = text("topic");
        request.room_alias_name = text("alias");
        if let Some(preset) = text("preset") {
            request.preset = Some(preset.as_str().into());
        }
        if let Some(visibility) = text("visibility") {
            request.visibility = visibility.as_str().into();
        }
        if let Some(content) = fields.get("creation_content") {
            request.creation_content = Some(serde_json::from_value(content.clone()).unwrap());
        }
        self.rooms.create(creator, request).await.unwrap()
    }

    pub(crate) async fn say(&self, actor: &Actor, room: &RoomId, content: Value) -> OwnedEventId {
        let draft = Draft::message(TimelineEventType::RoomMessage, object(content));
        self.rooms.send(actor, room, draft, None).await.unwrap()
    }

    pub(crate) async fn set(&self, actor: &Actor, room: &RoomId, kind: &str, key: &str, content: Value) {
        let draft = Draft::state(TimelineEventType::from(kind), key, object(content));
        self.rooms.send(actor, room, draft, None).await.unwrap();
    }

    pub(crate) async fn join(&self, actor: &Actor, room: &RoomId) {
        self.rooms.join(actor, room, Vec::new(), None).await.unwrap();
    }

    pub(crate) async fn change(&self, actor: &Actor, room: &RoomId, target: &Actor, change: Change) {
        self.rooms.change(actor, room, &target.user, change, None).await.unwrap();
    }
}

pub(crate) fn actor(name: &str) -> Actor {
    let mut actor = Actor::user(&UserId::parse(format!("@{name}:here.fr")).unwrap());
    actor.device = Some("DEVICE".into());
    actor
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
