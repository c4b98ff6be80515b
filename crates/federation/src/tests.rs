//! Whole servers that talk with each other in one process, over stores in memory and a fake network.

mod answers;
mod catch_up;
mod devices;
mod exchange;
mod families;
mod fuzz;
mod gathered;
mod hearsay;
mod hostile;
mod keys;
mod later;
mod lies;
mod lists;
mod memberships;
mod peer;
mod places;
mod queues;
mod redacted;
mod removed;
mod requests;
mod restored;
mod turns;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::body::Body;
use chappe_accounts::{Accounts, AccountsConfig, NewUser};
use chappe_rooms::{Actor, Deps, Draft, Rooms};
use chappe_rules::build::SigningKey;
use chappe_store::{Store, state::StateKey};
use chappe_world::{Fake, FakeNet, Fate, World};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId,
    api::{
        client::room::create_room::v3::{Request as CreateRoom, RoomPreset},
        federation::transactions::edu::PresenceUpdate,
    },
    events::TimelineEventType,
};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{Config, Federation, FederationDeps, Network, NetworkDeps, RemoteActivity, routes};

/// A store in memory.
pub(crate) fn memory() -> Store {
    Store::new(chappe_kv::Db::new(chappe_kv::Memory::default()))
}

/// A world of its own, alone on its network.
pub(crate) fn world(seed: u64) -> World {
    World::fake(Fake::new("a.example", seed, &FakeNet::new()))
}

/// What remote users did, as a server was shown it.
#[derive(Default)]
struct Seen {
    typing: Mutex<Vec<(OwnedRoomId, String, bool)>>,
    presence: Mutex<Vec<String>>,
}

#[async_trait]
impl RemoteActivity for Seen {
    async fn typing(&self, room: &RoomId, user: &UserId, typing: bool) {
        self.typing.lock().push((room.to_owned(), user.to_string(), typing));
    }

    async fn presence(&self, update: PresenceUpdate) {
        self.presence.lock().push(update.user_id.to_string());
    }
}

/// A server.
struct Server {
    name: OwnedServerName,
    world: World,
    store: Store,
    accounts: Accounts,
    rooms: Rooms,
    network: Network,
    federation: Federation,
    seen: Arc<Seen>,
    router: axum::Router,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32], &format!("k{seed}")).unwrap()
}

fn config() -> Config {
    Config { backoff_min_ms: 1_000, catch_up_after: 60, ..Config::default() }
}

impl Server {
    /// A server on the network, at work.
    fn start(net: &FakeNet, name: &str, seed: u8, config: Config) -> Self {
        let server = Self::build(net, name, seed, config, memory());
        server.federation.start();
        server
    }

    fn build(net: &FakeNet, name: &str, seed: u8, config: Config, store: Store) -> Self {
        let world = World::fake(Fake::new(name, seed.into(), net));
        let name: OwnedServerName = name.try_into().unwrap();
        let key = Arc::new(key(seed));
        let deps = NetworkDeps {
            world: world.clone(),
            store: store.clone(),
            server: name.clone(),
            key: Arc::clone(&key),
        };
        let network = Network::new(deps, config);
        let accounts = Accounts::new(store.clone(), world.clone(), name.clone(), AccountsConfig::default());
        let deps = Deps {
            store: store.clone(),
            accounts: accounts.clone(),
            world: world.clone(),
            server: name.clone(),
            key,
            weak_keys: Arc::default(),
            peers: Arc::new(network.clone()),
            services: Arc::new(chappe_rooms::NoServices),
        };
        let rooms = Rooms::new(deps, chappe_rooms::Config::default());
        let deps = chappe_search::Deps {
            store: store.clone(),
            world: world.clone(),
            accounts: accounts.clone(),
            rooms: rooms.clone(),
            others: Arc::new(network.clone()),
            circle: None,
            folder: std::path::PathBuf::new(),
        };
        // Nobody looks into the index here: it is not opened.
        let search = chappe_search::Search::new(deps, chappe_search::Config::default());
        let shown = Arc::new(Seen::default());
        let federation = Federation::new(FederationDeps {
            network: network.clone(),
            rooms: rooms.clone(),
            accounts: accounts.clone(),
            search,
            activity: shown.clone(),
            list: None,
        });
        let router =
            chappe_web::finish(routes().into_router(), Arc::default()).with_state(federation.clone());
        net.route(name.as_str(), &world, router.clone());
        Self { name, world, store, accounts, rooms, network, federation, seen: shown, router }
    }

    fn back(&self, net: &FakeNet) {
        net.route(self.name.as_str(), &self.world, self.router.clone());
    }

    fn actor(&self, user: &str) -> Actor {
        Actor::user(&UserId::parse(format!("@{user}:{}", self.name)).unwrap())
    }

    /// What it answers to a request, with nothing between.
    async fn answer(&self, request: Request<Body>) -> (StatusCode, Value) {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// A user with an account.
    async fn account(&self, name: &str) -> OwnedUserId {
        let new = NewUser { localpart: Some(name.to_owned()), ..NewUser::default() };
        self.accounts.create_user(new).await.unwrap()
    }

    /// A public room of `user`.
    async fn room(&self, user: &str) -> OwnedRoomId {
        let mut request = CreateRoom::new();
        request.preset = Some(RoomPreset::PublicChat);
        self.rooms.create(&self.actor(user), request).await.unwrap()
    }

    async fn join(&self, user: &str, room: &RoomId, via: &Server) {
        self.rooms
            .join(&self.actor(user), room, vec![via.name.clone()], serde_json::Map::new())
            .await
            .unwrap();
        // Its members follow behind.
        self.rooms.joined_members(&self.actor(user), room).await.unwrap();
    }

    async fn say(&self, user: &str, room: &RoomId, text: &str) -> OwnedEventId {
        let content = json!({ "msgtype": "m.text", "body": text });
        let content = content.as_object().unwrap().clone();
        let draft = Draft::message(TimelineEventType::RoomMessage, content);
        self.rooms.send(&self.actor(user), room, draft, None).await.unwrap()
    }

    async fn stick(&self, user: &str, room: &RoomId, text: &str) -> OwnedEventId {
        let content = json!({ "msgtype": "m.text", "body": text }).as_object().unwrap().clone();
        let draft = Draft::message(TimelineEventType::RoomMessage, content);
        let draft = Draft { sticky_ms: Some(3_600_000), ..draft };
        self.rooms.send(&self.actor(user), room, draft, None).await.unwrap()
    }

    async fn has(&self, event: &OwnedEventId) -> bool {
        self.store.read().event_address(event).await.unwrap().is_some()
    }

    /// A state event of the room as it is now; null if there is none.
    async fn current(&self, room: &RoomId, kind: &str, key: &str) -> Value {
        let reader = self.store.read();
        let nid = reader.room_nid(room).await.unwrap().unwrap();
        let now = reader.state_now(nid, &[StateKey::new(kind, key)]).await.unwrap()[0];
        let Some(num) = now else { return Value::Null };
        serde_json::from_str(&reader.pdu(nid, num).await.unwrap().json).unwrap()
    }

    /// How many rows wait for a destination.
    async fn waiting(&self, to: &Server) -> usize {
        self.store.read().outbox(&to.name, 10_000).await.unwrap().len()
    }
}

/// Waits, in the tests' own time, until something holds.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..20_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(holds().await, "never: {what}");
}

/// Two servers that have not met.
fn pair(net: &FakeNet) -> (Server, Server) {
    (Server::start(net, "a.example", 1, config()), Server::start(net, "b.example", 2, config()))
}

/// Two servers with a room of which both have a user.
async fn couple(net: &FakeNet) -> (Server, Server, OwnedRoomId) {
    let (a, b) = pair(net);
    let room = a.room("alice").await;
    b.join("bob", &room, &a).await;
    (a, b, room)
}

/// Counts the requests whose path begins so.
pub(crate) fn count(net: &FakeNet, path: &'static str) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    net.judge(move |_, _, request| {
        if request.uri().path().starts_with(path) {
            counted.fetch_add(1, SeqCst);
        }
        Fate::Deliver
    });
    count
}
