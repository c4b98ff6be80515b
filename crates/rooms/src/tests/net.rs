//! Homeservers in one process: each a [`Rooms`], their [`Peers`] call each other.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use chappe_accounts::{Accounts, AccountsConfig, NewUser};
use chappe_kv::{Db, Memory};
use chappe_rules::{
    build::SigningKey,
    check::{KeyRing, ServerKey},
};
use chappe_store::{OutboxItem, RoomNid, Store, Tx, outbox::Outbox};
use chappe_world::{Fake, FakeNet, World};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId,
    RoomVersionId, ServerName, UInt, UserId,
    api::{
        Direction,
        client::room::create_room::v3::Request,
        federation::{directory::get_public_rooms_filtered, space::get_hierarchy},
    },
    events::TimelineEventType,
};
use serde_json::{Value, json, value::RawValue};

use crate::{
    Actor, AliasTarget, BoundInvite, Config, Deps, Draft, Error, Extent, Gap, Invitation, JoinAnswer,
    KeysWanted, PeerError, Peers, PublicRoomsRequest, Purpose, Rooms, SignedMember, StateEvents, StateIds,
    Template,
};

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
    /// How often a server was asked what the state at an event was.
    pub(super) states: Arc<Mutex<usize>>,
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
    /// What happens before something is asked for, once: keys, leaves, invites, trees, by the names of the functions.
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
            pdus.push(rooms.outgoing(RoomNid(room), chappe_store::EventNum(event)).await.unwrap());
            tx.delete::<Outbox>(&key);
        }
        drop(reader);
        if pdus.is_empty() {
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

struct Wire {
    from: OwnedServerName,
    net: Net,
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err asks for")]
fn refused(error: Error) -> PeerError {
    let (status, errcode) = match error {
        Error::NotFound(_) => (404, "M_NOT_FOUND"),
        Error::UnableToAuthoriseJoin => (400, "M_UNABLE_TO_AUTHORISE_JOIN"),
        Error::UnableToGrantJoin => (400, "M_UNABLE_TO_GRANT_JOIN"),
        _ => (403, "M_FORBIDDEN"),
    };
    PeerError::Refused { status, errcode: errcode.to_owned(), error: error.to_string() }
}

impl Wire {
    fn to(&self, to: &ServerName) -> Result<Rooms, PeerError> {
        self.net.reach(&self.from, to)
    }

    fn twisted(&self, template: Template) -> Template {
        let said = self.net.twist_version.lock().clone();
        let template = Template { room_version: said.or(template.room_version), ..template };
        let Some(twist) = self.net.twist_template.lock().clone() else { return template };
        let event = twist(serde_json::from_str(template.event.get()).unwrap());
        Template { event: serde_json::value::to_raw_value(&event).unwrap(), ..template }
    }
}

#[async_trait]
impl Peers for Wire {
    fn takes_part(&self, server: &ServerName) -> bool {
        !self.is_closed() && !self.net.unlisted.lock().contains(&(self.from.clone(), server.to_owned()))
    }

    fn is_closed(&self) -> bool {
        self.net.closed.lock().contains(&self.from)
    }

    async fn until_open(&self) {
        loop {
            let opened = self.net.opened.notified();
            if !self.is_closed() {
                return;
            }
            opened.await;
        }
    }

    async fn is_away(&self, server: &ServerName) -> bool {
        self.net.down.lock().contains(server)
    }

    async fn keys(&self, wanted: &KeysWanted, _: MilliSecondsSinceUnixEpoch) -> KeyRing {
        self.net.comes_to("keys").await;
        let keys = self.net.keys.lock();
        let known = wanted.keys().filter_map(|server| Some((server.clone(), keys.get(server)?)));
        let until = MilliSecondsSinceUnixEpoch(UInt::MAX);
        let ring = |key: &Arc<SigningKey>| {
            BTreeMap::from([(key.id().to_owned(), ServerKey { public: key.public_key(), until })])
        };
        known.map(|(server, key)| (server, ring(key))).collect()
    }

    async fn make_join(
        &self,
        to: &ServerName,
        room: &RoomId,
        user: &UserId,
        versions: &[RoomVersionId],
    ) -> Result<Template, PeerError> {
        let template = self.to(to)?.make_join(&self.from, room, user, versions).await.map_err(refused)?;
        Ok(self.twisted(template))
    }

    async fn exchange_invite(&self, room: &RoomId, bound: BoundInvite) -> Result<(), PeerError> {
        let to = bound.sender.server_name().to_owned();
        self.to(&to)?.exchange_invite(room, bound).await.map_err(refused)
    }

    async fn send_join(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        pdu: Box<RawValue>,
        extent: Extent,
    ) -> Result<JoinAnswer, PeerError> {
        if *self.net.partial_only.lock() && extent == Extent::Whole {
            return Err(PeerError::Unreachable(to.to_owned()));
        }
        let member = SignedMember { event_id: event.to_owned(), pdu };
        let extent = if *self.net.partial_joins.lock() { extent } else { Extent::Whole };
        let resident = self.to(to)?;
        let join = resident.accept_join(&self.from, room, member).await.map_err(refused)?;
        let answer = resident.join_answer(&join, extent).await.map_err(refused)?;
        let twist = self.net.twist.lock().clone();
        Ok(twist.map_or_else(|| answer.clone(), |twist| twist(answer.clone())))
    }

    async fn make_leave(&self, to: &ServerName, room: &RoomId, user: &UserId) -> Result<Template, PeerError> {
        self.net.comes_to("make_leave").await;
        self.to(to)?.make_leave(&self.from, room, user).await.map_err(refused)
    }

    async fn send_leave(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        pdu: Box<RawValue>,
    ) -> Result<(), PeerError> {
        let member = SignedMember { event_id: event.to_owned(), pdu };
        self.to(to)?.accept_leave(&self.from, room, member).await.map_err(refused)
    }

    async fn make_knock(
        &self,
        to: &ServerName,
        room: &RoomId,
        user: &UserId,
        versions: &[RoomVersionId],
    ) -> Result<Template, PeerError> {
        self.to(to)?.make_knock(&self.from, room, user, versions).await.map_err(refused)
    }

    async fn send_knock(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        pdu: Box<RawValue>,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        let member = SignedMember { event_id: event.to_owned(), pdu };
        self.to(to)?.accept_knock(&self.from, room, member).await.map_err(refused)
    }

    async fn invite(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        invitation: Invitation,
    ) -> Result<Box<RawValue>, PeerError> {
        self.net.comes_to("invite").await;
        let peer = self.to(to)?;
        signed_up(&peer, &invitation.event).await;
        let meet = self.net.invites_meet.lock().clone();
        if let Some(meet) = meet {
            meet.wait().await;
        }
        peer.accept_invite(&self.from, room, event, invitation).await.map_err(refused)
    }

    async fn policy_signature(
        &self,
        to: &ServerName,
        pdu: Box<RawValue>,
        _: Purpose,
    ) -> Result<String, PeerError> {
        let peer = self.to(to)?;
        let judge = self.net.policy.lock().get(to).cloned();
        match judge {
            Some(judge) => judge(serde_json::from_str(pdu.get()).unwrap()),
            None => match peer.sign_for_room(&self.from, &pdu).await {
                Err(Error::PolicyServer(refusal)) => Err(refusal),
                answer => answer.map_err(refused),
            },
        }
    }

    async fn missing_events(
        &self,
        to: &ServerName,
        room: &RoomId,
        gap: Gap,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        let answer = self.to(to)?.missing_events_for(&self.from, room, gap).await.map_err(refused);
        let meanwhile = self.net.meanwhile.lock().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile.await;
        }
        answer
    }

    async fn backfill(
        &self,
        to: &ServerName,
        room: &RoomId,
        from: &[OwnedEventId],
        limit: u16,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        self.to(to)?.backfill_for(&self.from, room, from, limit).await.map_err(refused)
    }

    async fn state_ids(&self, to: &ServerName, room: &RoomId, at: &EventId) -> Result<StateIds, PeerError> {
        *self.net.states.lock() += 1;
        if self.net.silent.lock().contains(to) {
            return Err(PeerError::Unreachable(to.to_owned()));
        }
        self.to(to)?.state_ids_for(&self.from, room, at).await.map_err(refused)
    }

    async fn state(&self, to: &ServerName, room: &RoomId, at: &EventId) -> Result<StateEvents, PeerError> {
        let mut told = self.to(to)?.state_for(&self.from, room, at).await.map_err(refused)?;
        let hidden = self.net.hidden.lock();
        let is_hidden = |raw: &RawValue| {
            let rules = chappe_rules::version::rules(&RoomVersionId::V11).unwrap();
            hidden.contains(chappe_rules::Pdu::parse(rules, raw.get().as_bytes()).unwrap().event_id())
        };
        told.state.retain(|raw| hidden.is_empty() || !is_hidden(raw));
        Ok(told)
    }

    async fn event(&self, to: &ServerName, event: &EventId) -> Result<Box<RawValue>, PeerError> {
        self.net.events.lock().push((to.to_owned(), event.to_owned()));
        if self.net.hidden.lock().contains(event) {
            return Err(refused(Error::NotFound("event")));
        }
        self.to(to)?.event_for(&self.from, event).await.map_err(refused)
    }

    async fn event_auth(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        self.to(to)?.event_auth_for(&self.from, room, event).await.map_err(refused)
    }

    async fn alias(&self, alias: &RoomAliasId) -> Result<AliasTarget, PeerError> {
        if self.net.silent.lock().contains(alias.server_name()) {
            std::future::pending::<()>().await;
        }
        self.to(alias.server_name())?.alias_for(&self.from, alias).await.map_err(refused)
    }

    async fn hierarchy(
        &self,
        to: &ServerName,
        room: &RoomId,
        suggested_only: bool,
    ) -> Result<get_hierarchy::v1::Response, PeerError> {
        self.net.comes_to("hierarchy").await;
        self.to(to)?.hierarchy_for(&self.from, room, suggested_only).await.map_err(refused)
    }

    async fn public_rooms(
        &self,
        to: &ServerName,
        request: get_public_rooms_filtered::v1::Request,
    ) -> Result<get_public_rooms_filtered::v1::Response, PeerError> {
        let own = PublicRoomsRequest { since: request.since, filter: request.filter, ..Default::default() };
        let page = self.to(to)?.public_rooms(&own).await.map_err(refused)?;
        let mut answer = get_public_rooms_filtered::v1::Response::new();
        answer.chunk = page.chunk;
        Ok(answer)
    }

    async fn timestamp_to_event(
        &self,
        to: &ServerName,
        room: &RoomId,
        ts: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<(OwnedEventId, MilliSecondsSinceUnixEpoch), PeerError> {
        self.to(to)?.timestamp_to_event_for(&self.from, room, ts, direction).await.map_err(refused)
    }
}

/// Whoever is invited in these tests has an account.
async fn signed_up(rooms: &Rooms, invite: &RawValue) {
    let invite: Value = serde_json::from_str(invite.get()).unwrap();
    let invited = user(invite["state_key"].as_str().unwrap());
    if rooms.0.accounts.user(&invited).await.unwrap().is_none() {
        let localpart = Some(invited.localpart().to_owned());
        rooms.0.accounts.create_user(NewUser { localpart, ..NewUser::default() }).await.unwrap();
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
        judge.join(&actor("@judge:p.example"), &id, via, serde_json::Map::new()).await.unwrap();
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

/// A user's current membership.
pub(super) async fn membership(rooms: &Rooms, room: &RoomId, who: &str) -> Option<&'static str> {
    let view = rooms.view(room).await.unwrap();
    let found = view.reader.membership(view.nid, &user(who)).await.unwrap();
    found.map(|(membership, _)| membership.as_str())
}
