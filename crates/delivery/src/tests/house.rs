//! A server without other servers, for tests.

mod change;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chappe_accounts::{Accounts, AccountsConfig, NewUser};
use chappe_kv::{Counting, Db, Memory, RoundTrips};
use chappe_rooms::{
    Actor, AliasTarget, BoundInvite, Change, Draft, Extent, Gap, Invitation, JoinAnswer, KeysWanted,
    PeerError, Peers, Rooms, StateEvents, StateIds, Template,
};
use chappe_rules::{build::SigningKey, check::KeyRing};
use chappe_store::{EventNum, LogEntry, Membership, Store, Tx, members::MemberChange};
use chappe_world::{Fake, FakeNet, World};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId,
    RoomVersionId, ServerName, UserId,
    api::{
        Direction,
        client::{receipt::create_receipt::v3::ReceiptType, room::create_room},
        federation::{directory::get_public_rooms_filtered, space::get_hierarchy},
    },
    events::{TimelineEventType, receipt::ReceiptThread},
    presence::PresenceState,
    server_name,
};
use serde_json::{Value, json, value::RawValue};

pub(super) use self::change::{
    back_filled, becomes_whole, by_fork, lacks_members, taken_out, told, unplaced,
};
use crate::{Config, Delivery, Delta, Deps, SyncRequest, SyncToken};

/// No other server is there.
struct Alone;

fn nobody<T>() -> Result<T, PeerError> {
    Err(PeerError::Unreachable(server_name!("b.example").to_owned()))
}

#[async_trait]
impl Peers for Alone {
    async fn keys(&self, _: &KeysWanted) -> KeyRing {
        KeyRing::new()
    }
    async fn policy_signature(
        &self,
        _: &ServerName,
        _: Box<RawValue>,
        _: chappe_rooms::Purpose,
    ) -> Result<String, PeerError> {
        nobody()
    }
    async fn make_join(
        &self,
        _: &ServerName,
        _: &RoomId,
        _: &UserId,
        _: &[RoomVersionId],
    ) -> Result<Template, PeerError> {
        nobody()
    }
    async fn exchange_invite(&self, _: &RoomId, _: BoundInvite) -> Result<(), PeerError> {
        nobody()
    }
    async fn send_join(
        &self,
        _: &ServerName,
        _: &RoomId,
        _: &EventId,
        _: Box<RawValue>,
        _: Extent,
    ) -> Result<JoinAnswer, PeerError> {
        nobody()
    }
    async fn make_leave(&self, _: &ServerName, _: &RoomId, _: &UserId) -> Result<Template, PeerError> {
        nobody()
    }
    async fn send_leave(
        &self,
        _: &ServerName,
        _: &RoomId,
        _: &EventId,
        _: Box<RawValue>,
    ) -> Result<(), PeerError> {
        nobody()
    }
    async fn make_knock(
        &self,
        _: &ServerName,
        _: &RoomId,
        _: &UserId,
        _: &[RoomVersionId],
    ) -> Result<Template, PeerError> {
        nobody()
    }
    async fn send_knock(
        &self,
        _: &ServerName,
        _: &RoomId,
        _: &EventId,
        _: Box<RawValue>,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        nobody()
    }
    async fn invite(
        &self,
        _: &ServerName,
        _: &RoomId,
        _: &EventId,
        _: Invitation,
    ) -> Result<Box<RawValue>, PeerError> {
        nobody()
    }
    async fn missing_events(
        &self,
        _: &ServerName,
        _: &RoomId,
        _: Gap,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        nobody()
    }
    async fn backfill(
        &self,
        _: &ServerName,
        _: &RoomId,
        _: &[OwnedEventId],
        _: u16,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        nobody()
    }
    async fn state_ids(&self, _: &ServerName, _: &RoomId, _: &EventId) -> Result<StateIds, PeerError> {
        nobody()
    }
    async fn state(
        &self,
        _: &ServerName,
        _: &RoomId,
        _: &EventId,
        _: chappe_rooms::Occasion,
    ) -> Result<StateEvents, PeerError> {
        nobody()
    }
    async fn event(&self, _: &ServerName, _: &EventId) -> Result<Box<RawValue>, PeerError> {
        nobody()
    }
    async fn event_auth(
        &self,
        _: &ServerName,
        _: &RoomId,
        _: &EventId,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        nobody()
    }
    async fn alias(&self, _: &RoomAliasId) -> Result<AliasTarget, PeerError> {
        nobody()
    }
    async fn hierarchy(
        &self,
        _: &ServerName,
        _: &RoomId,
        _: bool,
    ) -> Result<get_hierarchy::v1::Response, PeerError> {
        nobody()
    }
    async fn public_rooms(
        &self,
        _: &ServerName,
        _: get_public_rooms_filtered::v1::Request,
    ) -> Result<get_public_rooms_filtered::v1::Response, PeerError> {
        nobody()
    }
    async fn timestamp_to_event(
        &self,
        _: &ServerName,
        _: &RoomId,
        _: MilliSecondsSinceUnixEpoch,
        _: Direction,
    ) -> Result<(OwnedEventId, MilliSecondsSinceUnixEpoch), PeerError> {
        nobody()
    }
}

/// The whole server below HTTP.
pub(super) struct House {
    pub(super) world: World,
    pub(super) accounts: Accounts,
    pub(super) rooms: Rooms,
    pub(super) delivery: Delivery,
    pub(super) trips: Arc<RoundTrips>,
    pub(super) store: Store,
    pub(super) net: FakeNet,
}

impl House {
    pub(super) fn new() -> Self {
        let trips = Arc::new(RoundTrips::default());
        let store = Store::new(Db::new(Counting::new(Memory::default(), trips.clone())));
        Self::on(store, trips)
    }

    /// The same server, stopped and started again.
    pub(super) async fn restarted(self) -> Self {
        assert!(self.world.shut_down(Duration::from_secs(10)).await.is_empty());
        Self::on(self.store, self.trips)
    }

    fn on(store: Store, trips: Arc<RoundTrips>) -> Self {
        let net = FakeNet::new();
        let world = World::fake(Fake {
            name: "a.example".into(),
            seed: 1,
            epoch_ms: 1_700_000_000_000,
            net: net.clone(),
        });
        let server = server_name!("a.example").to_owned();
        let accounts = Accounts::new(store.clone(), world.clone(), server.clone(), AccountsConfig::default());
        let rooms = Rooms::new(
            chappe_rooms::Deps {
                store: store.clone(),
                accounts: accounts.clone(),
                world: world.clone(),
                server,
                key: Arc::new(SigningKey::from_seed([1; 32], "k").unwrap()),
                weak_keys: Arc::default(),
                peers: Arc::new(Alone),
                services: Arc::new(chappe_rooms::NoServices),
            },
            chappe_rooms::Config::default(),
        );
        let deps = Deps {
            store: store.clone(),
            world: world.clone(),
            accounts: accounts.clone(),
            rooms: rooms.clone(),
        };
        let delivery = Delivery::new(deps, Config::default());
        Self { world, accounts, rooms, delivery, trips, store, net }
    }

    /// A new user with a device `D`.
    pub(super) async fn user(&self, localpart: &str) -> Person<'_> {
        let new = NewUser { localpart: Some(localpart.into()), ..NewUser::default() };
        let id = self.accounts.create_user(new).await.unwrap();
        self.accounts.ensure_device(&id, "D".into(), None).await.unwrap();
        Person { house: self, id, device: "D" }
    }

    /// Alice and Bob in a room of hers.
    pub(super) async fn couple(&self) -> (Person<'_>, Person<'_>, OwnedRoomId) {
        let (alice, bob) = (self.user("alice").await, self.user("bob").await);
        let room = alice.room(&[]).await;
        bob.join(&room).await;
        (alice, bob, room)
    }
}

/// A user at a device.
#[derive(Clone)]
pub(super) struct Person<'a> {
    pub(super) house: &'a House,
    pub(super) id: OwnedUserId,
    pub(super) device: &'static str,
}

impl Person<'_> {
    pub(super) fn actor(&self) -> Actor {
        Actor { device: Some(self.device.into()), ..Actor::user(&self.id) }
    }

    /// Creates a room with these users invited.
    pub(super) async fn room(&self, invited: &[&Person<'_>]) -> OwnedRoomId {
        let mut request = create_room::v3::Request::new();
        request.invite = invited.iter().map(|person| person.id.clone()).collect();
        request.preset = Some(create_room::v3::RoomPreset::PublicChat);
        self.house.rooms.create(&self.actor(), request).await.unwrap()
    }

    pub(super) async fn join(&self, room: &RoomId) {
        self.house.rooms.join(&self.actor(), room, Vec::new(), serde_json::Map::new()).await.unwrap();
    }

    pub(super) async fn leave(&self, room: &RoomId) {
        self.house.rooms.leave(&self.actor(), room, None).await.unwrap();
    }

    pub(super) async fn change(&self, room: &RoomId, target: &Person<'_>, change: Change) {
        self.house.rooms.change(&self.actor(), room, &target.id, change, None).await.unwrap();
    }

    pub(super) async fn say(&self, room: &RoomId, body: &str) -> OwnedEventId {
        self.send(room, "m.room.message", json!({"msgtype": "m.text", "body": body})).await
    }

    pub(super) async fn send(&self, room: &RoomId, kind: &str, content: Value) -> OwnedEventId {
        let content = content.as_object().unwrap().clone();
        let draft = Draft::message(TimelineEventType::from(kind), content);
        self.house.rooms.send(&self.actor(), room, draft, None).await.unwrap()
    }

    pub(super) async fn set(&self, room: &RoomId, kind: &str, content: Value) -> OwnedEventId {
        let content = content.as_object().unwrap().clone();
        let draft = Draft::state(kind.to_owned(), "", content);
        self.house.rooms.send(&self.actor(), room, draft, None).await.unwrap()
    }

    /// Reads what was said up to an event.
    pub(super) async fn read(&self, room: &RoomId, event: &EventId) {
        self.read_thread(room, event, ReceiptThread::Unthreaded).await;
    }

    /// The same of one thread.
    pub(super) async fn read_thread(&self, room: &RoomId, event: &EventId, thread: ReceiptThread) {
        let kind = ReceiptType::Read;
        self.house.rooms.set_receipt(&self.actor(), room, &kind, event, &thread).await.unwrap();
    }

    /// A request that does not wait.
    pub(super) fn request(&self, since: Option<SyncToken>, filter: Value) -> SyncRequest {
        SyncRequest {
            user: self.id.clone(),
            device: Some(self.device.into()),
            since,
            filter: Arc::new(serde_json::from_value(filter).unwrap()),
            full_state: false,
            state_after: false,
            presence: PresenceState::Online,
            timeout: Duration::ZERO,
        }
    }

    pub(super) async fn sync(&self, since: Option<SyncToken>) -> Delta {
        self.filtered(since, json!({})).await
    }

    pub(super) async fn filtered(&self, since: Option<SyncToken>, filter: Value) -> Delta {
        self.house.delivery.sync(&self.request(since, filter)).await.unwrap()
    }
}

/// The events as values.
pub(super) fn values(events: &[Box<RawValue>]) -> Vec<Value> {
    events.iter().map(|event| serde_json::from_str(event.get()).unwrap()).collect()
}

/// The bodies of messages, the types of everything else.
pub(super) fn gist(events: &[Box<RawValue>]) -> Vec<String> {
    let gist =
        |event: &Value| event["content"]["body"].as_str().or(event["type"].as_str()).unwrap().to_owned();
    values(events).iter().map(gist).collect()
}

/// The membership events of a user in a room, oldest first.
pub(super) async fn memberships(person: &Person<'_>, room: &RoomId) -> Vec<(Membership, EventNum)> {
    let view = person.house.rooms.view(room).await.unwrap();
    let rows = view.reader.timeline_forward(view.nid, i64::MIN, 100).await.unwrap();
    let nums: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
    let events = view.load(&nums).await.unwrap().into_iter();
    let own = events.filter(|event| event.pdu.state_key() == Some(person.id.as_str()));
    own.filter_map(|event| {
        let content: Value = event.pdu.content_as()?;
        Some((Membership::parse(content["membership"].as_str()?)?, event.num))
    })
    .collect()
}

/// Makes `now` the membership of a user without an event of the timeline, as the resolution of states does.
pub(super) async fn resolve(person: &Person<'_>, room: &RoomId, now: (Membership, EventNum), many: bool) {
    let store = &person.house.store;
    let reader = store.read();
    let nid = reader.room_nid(room).await.unwrap().unwrap();
    let old = reader.room_head(nid).await.unwrap();
    let before = reader.membership(nid, &person.id).await.unwrap().map(|(membership, _)| membership);
    let (mut head, mut tx) = (old.clone(), Tx::new());
    let change = MemberChange { user: person.id.clone(), local: true, old: before, new: Some(now) };
    tx.change_member(nid, &mut head, &change).replace_head(nid, &old, &head);
    tx.log(if many {
        LogEntry::Members { room: nid.0 }
    } else {
        LogEntry::Member { room: nid.0, user: person.id.clone() }
    });
    store.commit(tx).await.unwrap();
}
