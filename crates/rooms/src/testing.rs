//! A server without a disk and without peers, for the tests of this crate.

use std::sync::Arc;

use chappe_accounts::Accounts;
use chappe_kv::{Counting, Db, Memory, RoundTrips};
use chappe_store::Store;
use ruma::{
    OwnedEventId, OwnedRoomId, RoomId, UserId, api::client::room::create_room, events::TimelineEventType,
};
use serde_json::{Map, Value};

use crate::{Actor, Change, Draft, Rooms, tests::net::Net};

/// A server with users who talk.
pub(crate) struct Town {
    pub(crate) rooms: Rooms,
    pub(crate) store: Store,
    pub(crate) accounts: Accounts,
    pub(crate) trips: Arc<RoundTrips>,
}

impl Town {
    pub(crate) fn new() -> Self {
        let trips = Arc::new(RoundTrips::default());
        let db = Db::new(Counting::new(Memory::default(), trips.clone()));
        let rooms = Net::default().server_on("here.fr", 1, db);
        Self { store: rooms.store().clone(), accounts: rooms.0.accounts.clone(), rooms, trips }
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
        self.rooms.join(actor, room, Vec::new(), Map::new()).await.unwrap();
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
