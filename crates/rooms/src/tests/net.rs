//! Homeservers in one process: each a [`Rooms`], their [`Peers`] call each other.

mod wire;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use chappe_accounts::{Accounts, AccountsConfig};
use chappe_kv::{Db, Memory};
use chappe_rules::build::SigningKey;
use chappe_store::{
    EventMeta, OutboxItem, RoomNid, Status, Store, Tx, out_of_band::OutOfBand, outbox::Outbox,
};
use chappe_world::{Fake, FakeNet, World};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, RoomVersionId, ServerName, UserId,
    api::{
        Direction,
        client::{filter::RoomEventFilter, room::create_room::v3::Request},
    },
    events::TimelineEventType,
    server_name,
};
use serde_json::{Map, Value, json, value::RawValue};

use self::wire::Wire;
use crate::{Actor, Config, Deps, Draft, Error, JoinAnswer, PageRequest, PeerError, Rooms, desk::Desk};

/// Users of `a`, `b` and `c`.
pub(crate) const ALICE: &str = "@alice:a.example";
pub(crate) const BOB: &str = "@bob:b.example";
pub(super) const CAROL: &str = "@carol:c.example";

type Twist = Arc<dyn Fn(JoinAnswer) -> JoinAnswer + Send + Sync>;
/// A policy server: the signature of an event.
type Judge = Arc<dyn Fn(Value) -> Result<String, PeerError> + Send + Sync>;
type TwistTemplate = Arc<dyn Fn(Value) -> Value + Send + Sync>;

/// All servers of a test.
#[derive(Clone, Default)]
pub(crate) struct Net {
    rooms: Arc<Mutex<BTreeMap<OwnedServerName, Rooms>>>,
    keys: Arc<Mutex<BTreeMap<OwnedServerName, Arc<SigningKey>>>>,
    /// Servers that cannot be reached.
    pub(crate) down: Arc<Mutex<HashSet<OwnedServerName>>>,
    /// Events that nobody gives out, alone or as part of a state.
    pub(super) hidden: Arc<Mutex<HashSet<OwnedEventId>>>,
    /// What becomes of answers to `send_join`.
    pub(super) twist: Arc<Mutex<Option<Twist>>>,
    /// What becomes of templates.
    pub(super) twist_template: Arc<Mutex<Option<TwistTemplate>>>,
    /// What version templates say that their room has.
    pub(super) twist_version: Arc<Mutex<Option<RoomVersionId>>>,
    /// Whether servers leave members out of what they answer to a join, if they are asked to.
    pub(super) partial_joins: Arc<Mutex<bool>>,
    /// Whether servers refuse joins that ask for members.
    pub(super) partial_only: Arc<Mutex<bool>>,
    /// Servers that do not say what the state at an event was.
    pub(super) silent: Arc<Mutex<HashSet<OwnedServerName>>>,
    /// Events that a server leaves out of the states that it tells, and at which it tells none.
    pub(super) untold: Arc<Mutex<HashSet<(OwnedServerName, OwnedEventId)>>>,
    /// How often a server was asked what the state at an event was.
    pub(super) states: Arc<Mutex<usize>>,
    /// How often a server was asked for events that are missing before one.
    pub(super) gaps: Arc<Mutex<usize>>,
    /// Servers that somebody, named first, has nothing to do with.
    pub(super) unlisted: Arc<Mutex<HashSet<(OwnedServerName, OwnedServerName)>>>,
    /// Servers that have no network to talk with.
    closed: Arc<Mutex<HashSet<OwnedServerName>>>,
    /// Word that one of them has one.
    opened: Arc<tokio::sync::Notify>,
    /// Where invites wait for each other on their way.
    pub(super) invites_meet: Arc<Mutex<Option<Arc<tokio::sync::Barrier>>>>,
    /// What happens while an answer about missing events is on its way.
    pub(super) meanwhile: Arc<Mutex<Option<BoxFuture<'static, ()>>>>,
    /// Servers that were asked for single events, and for which.
    pub(super) events: Arc<Mutex<Vec<(OwnedServerName, OwnedEventId)>>>,
    /// What happens before something is asked for, once: keys, answers to joins, leaves, invites, trees, by the names of the functions.
    pub(super) before: Arc<Mutex<BTreeMap<&'static str, BoxFuture<'static, ()>>>>,
    /// Servers that are policy servers.
    pub(super) policy: Arc<Mutex<BTreeMap<OwnedServerName, Judge>>>,
    world: FakeNet,
    /// When the first server started: one that starts later has the same time as the others.
    began: Arc<OnceLock<tokio::time::Instant>>,
}

impl Net {
    /// A new server.
    pub(super) fn server(&self, name: &str, seed: u8) -> Rooms {
        self.server_on(name, seed, Db::new(Memory::default()))
    }

    /// A new server on an engine.
    pub(crate) fn server_on(&self, name: &str, seed: u8, db: Db) -> Rooms {
        self.server_with(name, seed, db, Config::default())
    }

    /// A new server with a configuration.
    pub(super) fn server_with(&self, name: &str, seed: u8, db: Db, config: Config) -> Rooms {
        let server: OwnedServerName = name.try_into().unwrap();
        let key = Arc::new(SigningKey::from_seed([seed; 32], "k").unwrap());
        self.keys.lock().insert(server.clone(), key.clone());
        let mut fake = Fake::new(name, seed.into(), &self.world);
        let began = self.began.get_or_init(tokio::time::Instant::now);
        fake.epoch_ms += u64::try_from(began.elapsed().as_millis()).unwrap();
        let world = World::fake(fake);
        let store = Store::new(db);
        let deps = Deps {
            accounts: Accounts::new(store.clone(), world.clone(), server.clone(), AccountsConfig::default()),
            store,
            world,
            server: server.clone(),
            key,
            weak_keys: Arc::default(),
            peers: Arc::new(Wire { from: server.clone(), net: self.clone() }),
            services: Arc::new(crate::NoServices),
        };
        let rooms = Rooms::new(deps, config);
        self.rooms.lock().insert(server, rooms.clone());
        rooms
    }

    /// A room that Alice made on `a`, and Bob of `b`, whose key has the seed 2, has joined.
    pub(super) async fn couple(&self, body: Value) -> (Rooms, Rooms, OwnedRoomId) {
        let (a, b) = (self.server("a.example", 1), self.server("b.example", 2));
        let id = room(&a, ALICE, body).await;
        join(&b, BOB, &id).await;
        (a, b, id)
    }

    /// A server has no network to talk with any more.
    pub(super) fn close(&self, server: &str) {
        self.closed.lock().insert(server.try_into().unwrap());
    }

    /// It has one again.
    pub(super) fn open(&self, server: &str) {
        let server: OwnedServerName = server.try_into().unwrap();
        self.closed.lock().remove(&server);
        self.opened.notify_waiters();
    }

    async fn comes_to(&self, what: &'static str) {
        let before = self.before.lock().remove(what);
        if let Some(before) = before {
            before.await;
        }
    }

    fn reach(&self, from: &ServerName, to: &ServerName) -> Result<Rooms, PeerError> {
        let down = self.down.lock();
        let found = self.rooms.lock().get(to).cloned();
        match found {
            Some(rooms) if !down.contains(from) && !down.contains(to) => Ok(rooms),
            _ => Err(PeerError::Unreachable(to.to_owned())),
        }
    }

    /// Delivers what waits in every outbox, until nothing does. Gives the number of events delivered.
    pub(crate) async fn deliver(&self) -> usize {
        let mut count = 0;
        loop {
            let before = count;
            let all: Vec<(OwnedServerName, Rooms)> = self.rooms.lock().clone().into_iter().collect();
            for (from, rooms) in &all {
                for (to, _) in &all {
                    count += self.deliver_from(from, rooms, to).await;
                }
            }
            if count == before {
                return count;
            }
        }
    }

    /// Everything that waits for a server is lost.
    pub(super) async fn lose(&self, from: &Rooms, to: &str) {
        let to: OwnedServerName = to.try_into().unwrap();
        let rows = from.store().read().outbox(&to, 10_000).await.unwrap();
        let mut tx = Tx::new();
        for (key, _) in rows {
            tx.delete::<Outbox>(&key);
        }
        from.store().commit(tx).await.unwrap();
    }

    async fn deliver_from(&self, from: &ServerName, rooms: &Rooms, to: &ServerName) -> usize {
        let Ok(peer) = self.reach(from, to) else { return 0 };
        let reader = rooms.store().read();
        let rows = reader.outbox(to, 1_000).await.unwrap();
        let (mut pdus, mut tx) = (Vec::new(), Tx::new());
        for (key, item) in rows {
            let OutboxItem::Pdu { room, event } = item else { continue };
            match rooms.outgoing(RoomNid(room), chappe_store::EventNum(event)).await {
                Err(Error::NotFound(_)) => {}
                pdu => pdus.push(pdu.unwrap()),
            }
            tx.delete::<Outbox>(&key);
        }
        drop(reader);
        if tx.is_empty() {
            return 0;
        }
        let count = pdus.len();
        for outcome in peer.receive(from, pdus).await {
            if let Err(error) = outcome.result {
                eprintln!("{to} did not take {:?}: {error}", outcome.event_id);
            }
        }
        rooms.store().commit(tx).await.unwrap();
        count
    }
}

/// An actor of a user id.
pub(crate) fn actor(user: &str) -> Actor {
    let mut actor = Actor::user(&UserId::parse(user).unwrap());
    actor.device = Some("DEVICE".into());
    actor
}

pub(super) fn user(user: &str) -> ruma::OwnedUserId {
    UserId::parse(user).unwrap()
}

/// A message draft.
pub(super) fn text(body: &str) -> Draft {
    let content = json!({ "msgtype": "m.text", "body": body });
    Draft::message(TimelineEventType::RoomMessage, content.as_object().unwrap().clone())
}

/// A state draft.
pub(crate) fn state(kind: &str, key: &str, content: &Value) -> Draft {
    Draft::state(TimelineEventType::from(kind), key, content.as_object().unwrap().clone())
}

/// Says something; panics if it is refused.
pub(super) async fn say(rooms: &Rooms, who: &str, room: &RoomId, body: &str) -> OwnedEventId {
    rooms.send(&actor(who), room, text(body), None).await.unwrap()
}

/// A room from a `createRoom` body.
pub(crate) async fn room(rooms: &Rooms, who: &str, body: Value) -> OwnedRoomId {
    rooms.create(&actor(who), request(body)).await.unwrap()
}

/// Joins through `a`.
pub(super) async fn join(rooms: &Rooms, who: &str, room: &RoomId) {
    rooms.join(&actor(who), room, vec![server_name!("a.example").to_owned()], Map::new()).await.unwrap();
}

/// A `createRoom` request from its JSON.
#[expect(clippy::needless_pass_by_value, reason = "reads better with json! at the call")]
pub(super) fn request(body: Value) -> Request {
    let mut request = Request::new();
    let field = |name: &str| body.get(name).cloned();
    request.preset = field("preset").map(|v| serde_json::from_value(v).unwrap());
    request.name = field("name").map(|v| serde_json::from_value(v).unwrap());
    request.topic = field("topic").map(|v| serde_json::from_value(v).unwrap());
    request.invite = field("invite").map_or_else(Vec::new, |v| serde_json::from_value(v).unwrap());
    request.room_alias_name = field("room_alias_name").map(|v| serde_json::from_value(v).unwrap());
    request.room_version = field("room_version").map(|v| serde_json::from_value(v).unwrap());
    request.initial_state =
        field("initial_state").map_or_else(Vec::new, |v| serde_json::from_value(v).unwrap());
    request.is_direct = field("is_direct").is_some();
    request.creation_content = field("creation_content").map(|v| serde_json::from_value(v).unwrap());
    request
}

/// Rooms of `who` whose policy server, p.example, never answers; gives how often it was asked.
pub(crate) async fn rooms_without_answer(
    net: &Net,
    rooms: &Rooms,
    who: &str,
    count: usize,
) -> Arc<AtomicUsize> {
    let silent = ruma::owned_server_name!("p.example");
    let judge = net.server(silent.as_str(), 77);
    for _ in 0..count {
        let id = room(rooms, who, json!({ "preset": "public_chat" })).await;
        let via = vec![rooms.server().to_owned()];
        judge.join(&actor("@judge:p.example"), &id, via, Map::new()).await.unwrap();
        net.deliver().await;
        let key: ruma::serde::Base64 = ruma::serde::Base64::new(vec![9; 32]);
        let named = json!({ "via": silent, "public_keys": { "ed25519": key.encode() } });
        rooms.send(&actor(who), &id, state("m.room.policy", "", &named), None).await.unwrap();
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, by) = (asked.clone(), silent.clone());
    let no_answer = move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Err(PeerError::Unreachable(by.clone()))
    };
    net.policy.lock().insert(silent, Arc::new(no_answer));
    asked
}

/// The JSON that is stored of an event.
pub(super) async fn stored(rooms: &Rooms, room: &RoomId, event: &EventId) -> String {
    let view = rooms.view(room).await.unwrap();
    let num = view.reader.event_num(view.nid, event).await.unwrap().unwrap();
    view.reader.pdu(view.nid, num).await.unwrap().json.to_string()
}

/// The same as it goes to other servers.
pub(super) async fn raw(rooms: &Rooms, room: &RoomId, event: &EventId) -> Box<RawValue> {
    RawValue::from_string(stored(rooms, room, event).await).unwrap()
}

/// What became of an event.
pub(super) async fn status(rooms: &Rooms, room: &RoomId, event: &EventId) -> Status {
    let view = rooms.view(room).await.unwrap();
    let num = view.reader.event_num(view.nid, event).await.unwrap().unwrap();
    view.reader.event_meta(view.nid, num).await.unwrap().status
}

/// Changes what is noted about an event.
pub(super) async fn amend(
    rooms: &Rooms,
    room: &RoomId,
    event: &EventId,
    change: impl FnOnce(&mut EventMeta),
) {
    let mut desk = Desk::open(&rooms.0, room).await.unwrap();
    let num = desk.reader.event_num(desk.nid, event).await.unwrap().unwrap();
    let mut meta = desk.reader.event_meta(desk.nid, num).await.unwrap();
    change(&mut meta);
    desk.tx.update_event(desk.nid, num, &meta);
    rooms.store().commit(desk.seal()).await.unwrap();
}

/// The whole current state by event ids.
pub(super) async fn whole_state(rooms: &Rooms, room: &RoomId) -> BTreeMap<(String, String), OwnedEventId> {
    let view = rooms.view(room).await.unwrap();
    let state = view.reader.current_state(view.nid).await.unwrap();
    let mut ids = BTreeMap::new();
    for (key, num) in state {
        let pdu = view.load_one(num).await.unwrap().pdu;
        ids.insert((key.event_type().to_owned(), key.state_key.clone()), pdu.event_id().to_owned());
    }
    ids
}

/// The bodies of the live timeline's messages, in order.
pub(super) async fn bodies(rooms: &Rooms, room: &RoomId) -> Vec<String> {
    let view = rooms.view(room).await.unwrap();
    let rows = view.reader.timeline_forward(view.nid, i64::MIN + 1, 10_000).await.unwrap();
    let nums: Vec<_> = rows.iter().map(|row| row.num).collect();
    let bodies = view.load(&nums).await.unwrap().into_iter().filter_map(|event| {
        let content: Value = serde_json::from_str(event.pdu.content().get()).unwrap();
        content.get("body").and_then(Value::as_str).map(str::to_owned)
    });
    bodies.collect()
}

/// The bodies that a user sees, the newest first, to the very end of the history, in pages of so many events.
pub(super) async fn history(rooms: &Rooms, who: &str, room: &RoomId, limit: u64) -> Vec<String> {
    let (filter, mut from, mut all) = (RoomEventFilter::default(), None::<String>, Vec::new());
    for _ in 0..50 {
        let (direction, to) = (Direction::Backward, None);
        let request =
            PageRequest { from: from.as_deref(), to, direction, limit, filter: &filter, relations: None };
        let page = rooms.messages(&actor(who), room, request).await.unwrap();
        for event in page.chunk {
            let event: Value = serde_json::from_str(event.get()).unwrap();
            all.extend(event["content"]["body"].as_str().map(str::to_owned));
        }
        from = page.end;
        if from.is_none() {
            return all;
        }
    }
    panic!("the history of {room} has no end");
}

/// A user's current membership.
pub(super) async fn membership(rooms: &Rooms, room: &RoomId, who: &str) -> Option<&'static str> {
    let view = rooms.view(room).await.unwrap();
    let found = view.reader.membership(view.nid, &user(who)).await.unwrap();
    found.map(|(membership, _)| membership.as_str())
}

/// A user's membership as it is noted outside of the room.
pub(super) async fn noted(rooms: &Rooms, room: &RoomId, who: &str) -> Option<OutOfBand> {
    rooms.store().read().out_of_band(&user(who), room).await.unwrap().map(|at| at.value.0)
}
