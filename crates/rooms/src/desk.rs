//! One room being written: a snapshot, the head it was read with, and everything one transaction adds.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use chappe_rules::{
    Pdu, access::RETENTION, auth::StateKey as RuleKey, build::Reference, pdu::Judged, redact,
};
use chappe_store::{
    EventMeta, EventNum, LogEntry, MemberChange, Membership, NewEvent, Reader, RoomHead, RoomNid,
    StateChange, StateRef, StateWriter, Status, StoredPdu, Tx, out_of_band::OutOfBand, outbox::OutboxItem,
    state::StateKey,
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId,
    RoomVersionId, ServerName, events::StateEventType, room_version_rules::RoomVersionRules,
};
use serde_json::{Map, Value};

use crate::{Error, Inner, Result, receive::Payer};

/// Memberships that one commit names in the log by themselves.
const MEMBERS_NAMED: usize = 200;
/// Members of a room of which all servers are read where one is asked about: whoever says something there needs them next.
const FEW: u32 = 100;

/// Some state events with their numbers, by type and state key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(pub(crate) BTreeMap<RuleKey, (EventNum, Pdu)>);

impl Held {
    /// The event of a key.
    pub(crate) fn get(&self, kind: &StateEventType, key: &str) -> Option<Pdu> {
        self.0.get(&(kind.clone(), key.to_owned())).map(|(_, pdu)| pdu.clone())
    }

    /// Its number.
    pub(crate) fn num(&self, key: &RuleKey) -> Option<EventNum> {
        self.0.get(key).map(|(num, _)| *num)
    }
}

/// Where an event came from, for the log and for whom it is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Made here: goes to every server in the room.
    Here,
    /// Another server's: sent by whoever made it.
    Elsewhere,
    /// Another server's that enters the room through this one (a join by `send_join`): passed on by this server.
    PassedOn,
}

/// An event about to get its place.
#[derive(Clone, Debug)]
pub(crate) struct Placing {
    pub(crate) pdu: Pdu,
    pub(crate) auth: Vec<EventNum>,
    pub(crate) prev: Vec<EventNum>,
    /// Its previous events that are not part of the room here.
    pub(crate) missing: Vec<OwnedEventId>,
    /// Its number if it is stored as an outlier already.
    pub(crate) stored: Option<EventNum>,
    pub(crate) source: Source,
}

/// One room being written.
pub(crate) struct Desk<'s> {
    pub(crate) inner: &'s Inner,
    pub(crate) reader: Reader<'s>,
    pub(crate) nid: RoomNid,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) rules: &'static RoomVersionRules,
    pub(crate) head: RoomHead,
    pub(crate) state: StateWriter,
    pub(crate) tx: Tx,
    /// When what is made here is made.
    pub(crate) now: MilliSecondsSinceUnixEpoch,
    old: Option<RoomHead>,
    fresh: HashMap<EventNum, Pdu>,
    ids: HashMap<OwnedEventId, EventNum>,
    moved: BTreeMap<OwnedServerName, i64>,
    /// What this transaction redacts.
    pub(crate) redacted: HashSet<EventNum>,
    /// What it takes the content of.
    pub(crate) stripped: Vec<EventNum>,
    /// When the earliest was said of what it adds that came late, in milliseconds since 1970.
    pub(crate) said_first: Option<u64>,
    /// Whether a membership that is missing from its states is that of nobody, and not only unknown.
    pub(crate) knows_members: bool,
    /// Against whom large resolutions count.
    pub(crate) charged: Option<Payer>,
}

/// Servers with joined users, and how many.
pub(crate) type ServerCounts = Arc<Vec<(OwnedServerName, u32)>>;

pub(crate) fn rules_of(version: &RoomVersionId) -> Result<&'static RoomVersionRules> {
    chappe_rules::version::rules(version).ok_or_else(|| Error::UnsupportedRoomVersion(version.to_string()))
}

pub(crate) fn store_key((kind, key): &RuleKey) -> StateKey {
    StateKey::new(kind, key)
}

pub(crate) fn rule_key(key: &StateKey) -> RuleKey {
    (StateEventType::from(key.event_type()), key.state_key.clone())
}

/// The parsed form of a stored event, kept with it in the cache.
pub(crate) fn parsed(rules: &RoomVersionRules, stored: &StoredPdu) -> Result<Pdu> {
    let restore =
        |stored: &StoredPdu| Pdu::restore_shared(rules, stored.event_id.clone(), stored.json.clone());
    let form = stored.form(restore).map_err(|_| chappe_store::Error::Corrupt("event JSON"))?;
    Ok(Pdu::clone(&form))
}

/// What redaction leaves of a stored event.
fn redacted(rules: &RoomVersionRules, pdu: &Pdu) -> Result<Pdu> {
    Ok(redact::event(rules, pdu).map_err(|_| chappe_store::Error::Corrupt("event JSON"))?)
}

/// Whether the state around an event is known. It is not for an outlier, rejected or not, unless it was staged.
pub(crate) fn is_placed(meta: &EventMeta) -> bool {
    meta.after != StateRef::EMPTY
}

/// The content of an event as another event may have it: canonical JSON, whatever numbers the first one has.
pub(crate) fn content_of(pdu: &Pdu) -> Map<String, Value> {
    pdu.content_object().into_iter().map(|(field, value)| (field, value.into())).collect()
}

/// The membership that an event says, for the indexes; anything unreadable is `leave`.
pub(crate) fn membership_of(pdu: &Pdu) -> Membership {
    let said = chappe_rules::visibility::membership(Some(pdu));
    Membership::parse(said.as_str()).unwrap_or(Membership::Leave)
}

impl<'s> Desk<'s> {
    /// A desk for a room that this server has.
    pub(crate) async fn open(inner: &'s Inner, room: &RoomId) -> Result<Self> {
        let reader = inner.store.read();
        let nid = reader.room_nid(room).await?.ok_or(Error::NotFound("room"))?;
        let head = reader.room_head(nid).await?;
        Self::at(inner, reader, (nid, room), head).map(|desk| Self { old: Some(desk.head.clone()), ..desk })
    }

    /// A desk for a room that this server does not have yet. `room` may be a placeholder until
    /// [`Desk::name`] is called.
    pub(crate) async fn found(inner: &'s Inner, room: &RoomId, version: &RoomVersionId) -> Result<Self> {
        let reader = inner.store.read();
        let nid = reader.next_room().await?;
        Self::at(inner, reader, (nid, room), RoomHead::new(version.clone()))
    }

    fn at(
        inner: &'s Inner,
        reader: Reader<'s>,
        (nid, room): (RoomNid, &RoomId),
        head: RoomHead,
    ) -> Result<Self> {
        Ok(Self {
            rules: rules_of(&head.version)?,
            state: StateWriter::new(nid, &head),
            old: None,
            room_id: room.to_owned(),
            tx: Tx::new(),
            fresh: HashMap::new(),
            ids: HashMap::new(),
            moved: BTreeMap::new(),
            redacted: HashSet::new(),
            stripped: Vec::new(),
            said_first: None,
            knows_members: !head.partial,
            charged: None,
            now: inner.now(),
            inner,
            reader,
            nid,
            head,
        })
    }

    /// Gives a new room its id: version 12 learns it from the create event.
    pub(crate) fn name(&mut self, room: &RoomId) {
        room.clone_into(&mut self.room_id);
    }

    /// The transaction, with head and state put in. The caller commits it.
    pub(crate) fn seal(mut self) -> Tx {
        self.schedule_expiry(self.old.as_ref().map_or(0, |old| old.next_event));
        self.state.write(&mut self.head, &mut self.tx);
        match &self.old {
            Some(old) => self.tx.replace_head(self.nid, old, &self.head),
            None => self.tx.new_room(self.nid, &self.room_id).first_head(self.nid, &self.head),
        };
        self.tx
    }

    /// Events of the room by number, committed or of this transaction: as they came.
    pub(crate) async fn pdus(&self, nums: &[EventNum]) -> Result<Vec<Pdu>> {
        let stored: Vec<EventNum> =
            nums.iter().copied().filter(|num| !self.fresh.contains_key(num)).collect();
        let mut stored = self.reader.pdus(self.nid, &stored).await?.into_iter();
        let mut pdus = Vec::with_capacity(nums.len());
        for num in nums {
            if let Some(pdu) = self.fresh.get(num) {
                pdus.push(pdu.clone());
            } else {
                let found = stored.next().ok_or(chappe_store::Error::Corrupt("event without JSON"))?;
                pdus.push(parsed(self.rules, &found)?);
            }
        }
        Ok(pdus)
    }

    /// State events of the room by number, with what redaction has left of them.
    pub(crate) async fn state_events(&self, nums: &[EventNum]) -> Result<Vec<Pdu>> {
        let mut pdus = self.pdus(nums).await?;
        let gone = self.redacted_among(nums).await?;
        for (_, pdu) in nums.iter().zip(&mut pdus).filter(|(num, _)| gone.contains(*num)) {
            *pdu = redacted(self.rules, pdu)?;
        }
        Ok(pdus)
    }

    /// Those of some state events that are redacted as this transaction leaves them.
    async fn redacted_among(&self, nums: &[EventNum]) -> Result<HashSet<EventNum>> {
        let mut found: HashSet<EventNum> =
            nums.iter().copied().filter(|num| self.redacted.contains(num)).collect();
        if self.head.no_redacted_state {
            return Ok(found);
        }
        let stored: Vec<EventNum> =
            nums.iter().copied().filter(|num| !self.fresh.contains_key(num)).collect();
        let metas = self.reader.event_metas(self.nid, &stored).await?;
        let known = stored.into_iter().zip(metas).filter(|(_, meta)| meta.redacted_by.some().is_some());
        found.extend(known.map(|(num, _)| num));
        Ok(found)
    }

    /// Notes that an event is redacted: where it is state, it has to be looked from now on which state is.
    pub(crate) fn note_redacted(&mut self, pdu: &Pdu) {
        self.head.no_redacted_state &= pdu.state_key().is_none();
    }

    /// Stored events with their verdict, as they came: servers resolve whole events, whatever was redacted since.
    pub(crate) async fn judged(&self, nums: &[EventNum]) -> Result<Vec<Judged>> {
        let events = self.reader.events(self.nid, nums).await?;
        let judged = |(meta, stored): (EventMeta, Arc<StoredPdu>)| {
            Ok(Judged { pdu: parsed(self.rules, &stored)?, rejected: meta.status == Status::Rejected })
        };
        events.into_iter().map(judged).collect()
    }

    /// The same with what redaction has left of them: so authorization reads what an event names.
    pub(crate) async fn judged_as_left(&self, nums: &[EventNum]) -> Result<Vec<Judged>> {
        let events = self.reader.events(self.nid, nums).await?.into_iter().zip(nums);
        let judged = |((meta, stored), num): ((EventMeta, Arc<StoredPdu>), &EventNum)| {
            let is_redacted = meta.redacted_by.some().is_some() || self.redacted.contains(num);
            let whole = parsed(self.rules, &stored)?;
            let pdu = if is_redacted { redacted(self.rules, &whole)? } else { whole };
            Ok(Judged { pdu, rejected: meta.status == Status::Rejected })
        };
        events.map(judged).collect()
    }

    /// Numbers of events of this room, those of this transaction included.
    pub(crate) async fn nums(&self, ids: &[OwnedEventId]) -> Result<Vec<Option<EventNum>>> {
        let asked: Vec<&EventId> = ids.iter().map(|id| &**id).collect();
        let found = self.reader.event_nums(self.nid, &asked).await?;
        Ok(ids.iter().zip(found).map(|(id, num)| num.or_else(|| self.ids.get(id).copied())).collect())
    }

    /// What is known of events of this room, in their order.
    pub(crate) async fn known<'i>(
        &self,
        ids: &'i [OwnedEventId],
    ) -> Result<Vec<(&'i OwnedEventId, Option<(EventNum, EventMeta)>)>> {
        let nums = self.nums(ids).await?;
        let stored: Vec<EventNum> = nums.iter().copied().flatten().collect();
        let mut metas = self.reader.event_metas(self.nid, &stored).await?.into_iter();
        let mut known = |num: Option<EventNum>| num.and_then(|num| Some((num, metas.next()?)));
        Ok(ids.iter().zip(nums).map(|(id, num)| (id, known(num))).collect())
    }

    /// Some keys of the state at `at`, with what redaction has left of the events.
    pub(crate) async fn held_at(&self, at: StateRef, keys: &[RuleKey]) -> Result<Held> {
        if keys.is_empty() {
            return Ok(Held::default());
        }
        let wanted: Vec<StateKey> = keys.iter().map(store_key).collect();
        let nums = self.state.state_at(&self.reader, at, &wanted).await?;
        let present: Vec<EventNum> = nums.iter().copied().flatten().collect();
        let mut pdus = self.state_events(&present).await?.into_iter();
        let mut held = Held::default();
        for (key, num) in keys.iter().zip(nums) {
            if let (Some(num), Some(pdu)) = (num, num.and_then(|_| pdus.next())) {
                held.0.insert(key.clone(), (num, pdu));
            }
        }
        Ok(held)
    }

    /// Some keys of the current state.
    pub(crate) async fn held(&self, keys: &[RuleKey]) -> Result<Held> {
        self.held_at(self.state.current(), keys).await
    }

    /// One event of the current state.
    pub(crate) async fn current(&self, kind: StateEventType, key: &str) -> Result<Option<Pdu>> {
        let held = self.held(&[(kind.clone(), key.to_owned())]).await?;
        Ok(held.get(&kind, key))
    }

    /// Keys of members and invited addresses that events of this transaction have.
    pub(crate) fn new_parties(&self) -> impl Iterator<Item = RuleKey> {
        let kinds = [StateEventType::RoomMember, StateEventType::RoomThirdPartyInvite];
        let states = self.fresh.values().filter_map(|pdu| pdu.state());
        states.filter(move |(kind, _)| kinds.contains(kind)).map(|(kind, key)| (kind, key.to_owned()))
    }

    /// Servers with a joined user, as this transaction leaves them.
    pub(crate) async fn servers(&self) -> Result<Vec<OwnedServerName>> {
        let mut counts: BTreeMap<OwnedServerName, i64> = self.moved.clone();
        if let Some(old) = &self.old {
            for (server, count) in self.committed_servers(old).await?.iter() {
                *counts.entry(server.clone()).or_default() += i64::from(*count);
            }
        }
        Ok(counts.into_iter().filter(|(_, count)| *count > 0).map(|(server, _)| server).collect())
    }

    /// Servers follow from the state, so what is true of a committed version stays true of it. Those that are only said to
    /// be in a room, while its members are to come, go without a new version.
    async fn committed_servers(&self, old: &RoomHead) -> Result<ServerCounts> {
        let key = (self.nid, old.state);
        if let Some(servers) = self.inner.servers.get(&key).filter(|_| !old.partial) {
            return Ok(servers);
        }
        let servers: ServerCounts = Arc::new(self.reader.room_servers(self.nid).await?);
        if !old.partial {
            self.inner.servers.insert(key, servers.clone());
        }
        Ok(servers)
    }

    /// Joined users of a server; in a large room, or one whose members are to come, no other server is read.
    async fn committed_count(&self, old: &RoomHead, server: &ServerName) -> Result<i64> {
        if old.partial || old.joined > FEW {
            let key = (self.nid, server.to_owned());
            let count = self.reader.get::<chappe_store::members::RoomServers>(&key).await?;
            return Ok(count.unwrap_or_default().max(0));
        }
        let servers = self.committed_servers(old).await?;
        let own = servers.iter().find(|(known, _)| known == server);
        Ok(own.map_or(0, |(_, count)| i64::from(*count)))
    }

    /// Whether a server has a joined user, as this transaction leaves it.
    pub(crate) async fn has(&self, server: &ServerName) -> Result<bool> {
        let before = match &self.old {
            Some(old) => self.committed_count(old, server).await?,
            None => 0,
        };
        Ok(before + self.moved.get(server).copied().unwrap_or_default() > 0)
    }

    /// Changes the current state and every index that follows from it.
    pub(crate) async fn change_current(&mut self, changes: &[StateChange]) -> Result<()> {
        let keys: Vec<StateKey> = changes.iter().map(|change| change.key.clone()).collect();
        let old = self.state.state_at(&self.reader, self.state.current(), &keys).await?;
        self.state.advance(&self.reader, changes).await?;
        for (change, old) in changes.iter().zip(old) {
            if change.key.event_type() == "m.room.member" && old != change.num.some() {
                self.change_member(&change.key.state_key, old, change.num.some()).await?;
            }
            if change.key.event_type() == RETENTION && change.key.state_key.is_empty() {
                self.note_retention(change.num.some()).await?;
            }
            if change.key.event_type() == "m.room.guest_access" && change.key.state_key.is_empty() {
                self.change_guest_access(old, change.num.some()).await?;
            }
        }
        Ok(())
    }

    async fn change_member(
        &mut self,
        user: &str,
        old: Option<EventNum>,
        new: Option<EventNum>,
    ) -> Result<()> {
        let Ok(user) = OwnedUserId::try_from(user) else { return Ok(()) };
        let nums: Vec<EventNum> = old.into_iter().chain(new).collect();
        let pdus = self.state_events(&nums).await?;
        let mut memberships = pdus.iter().map(membership_of);
        let old = old.and_then(|_| memberships.next());
        let new = new.and_then(|num| Some((memberships.next()?, num)));
        let local = user.server_name() == self.inner.server;
        let joined = |membership: Option<Membership>| i64::from(membership == Some(Membership::Join));
        let change = joined(new.map(|(membership, _)| membership)) - joined(old);
        *self.moved.entry(user.server_name().to_owned()).or_default() += change;
        if local && new.is_some_and(|(membership, _)| membership == Membership::Join) {
            self.head.resident = true;
            // Those who were sent the join are right to believe it.
            self.tx.delete_sent_join(&user, &self.room_id);
        }
        if local {
            let was_told = matches!(old, Some(Membership::Join | Membership::Invite | Membership::Knock));
            if let Some(last) = pdus.first().filter(|_| was_told && new.is_none()) {
                // No event says that they are out.
                let last = (last.event_id(), last.to_raw());
                let farewell = OutOfBand::farewell(self.nid, &self.head.version, last);
                self.tx.put_out_of_band(&user, &self.room_id, &farewell);
            } else {
                // The room itself knows now.
                self.tx.delete_out_of_band(&user, &self.room_id);
            }
        }
        if local && change != 0 && self.inner.accounts.appservices().cover_user(&user) {
            let (user, room) = (user.clone(), self.nid.0);
            self.tx.log(LogEntry::ServiceUser { user, room, joined: change > 0 });
        }
        self.tx.change_member(self.nid, &mut self.head, &MemberChange { user, local, old, new });
        Ok(())
    }

    /// Puts an event that follows all heads at the live end: event, state, head, timeline, indexes, log, outbox.
    pub(crate) async fn append(&mut self, placing: Placing) -> Result<EventNum> {
        let Placing { pdu, auth, prev, stored, source, .. } = placing;
        let before = self.state.current();
        let servers = if source == Source::Elsewhere { Vec::new() } else { self.servers().await? };
        let num = self.number(&pdu, stored);
        let known = match stored {
            Some(num) => self.reader.event_meta(self.nid, num).await?.redacted_by,
            None => EventNum::NONE,
        };
        let redacted_by = self.redaction_of((&pdu, num), known, source, before).await?;
        if let Some((kind, key)) = pdu.state() {
            let change = StateChange { key: StateKey::new(kind, key), num };
            self.change_current(&[change]).await?;
        }
        let after = self.state.current();
        let ordinal = Some(self.head.take_live_ordinal());
        let position = chappe_store::Position(0);
        let (status, expired, came) = (Status::Accepted, false, self.came(&pdu));
        let meta =
            EventMeta { position, status, before, after, ordinal, redacted_by, auth, prev, expired, came };
        self.put(&pdu, num, stored.is_some(), meta.clone());
        self.follow_heads(&pdu, num, &meta.prev);
        self.announce(&pdu, num, source, servers).await?;
        self.index(&pdu, num, &meta).await?;
        Ok(num)
    }

    /// The number of an event: the one it has, or the next.
    pub(crate) fn number(&mut self, pdu: &Pdu, stored: Option<EventNum>) -> EventNum {
        let num = stored.unwrap_or_else(|| self.head.take_event_num());
        self.fresh.insert(num, pdu.clone());
        self.ids.insert(pdu.event_id().to_owned(), num);
        num
    }

    /// Writes the event's own rows.
    pub(crate) fn put(&mut self, pdu: &Pdu, num: EventNum, is_stored: bool, meta: EventMeta) {
        if meta.redacted_by.some().is_some() {
            self.note_redacted(pdu);
        }
        self.note_media(pdu, num, &meta);
        self.note_late(pdu, num, &meta);
        if is_stored {
            self.tx.place_event(self.nid, num, &meta);
        } else {
            let event = NewEvent { num, event_id: pdu.event_id().to_owned(), json: pdu.json().into(), meta };
            self.tx.put_event(self.nid, &event);
        }
    }

    /// The event is a head now, those before it no longer are.
    fn follow_heads(&mut self, pdu: &Pdu, num: EventNum, prev: &[EventNum]) {
        self.head.extremities.retain(|head| !prev.contains(head));
        self.head.extremities.push(num);
        self.head.depth = self.head.depth.max(pdu.depth());
    }

    /// Takes events off the heads: those in `prev`, and those that are only reached from there through events which
    /// are not followed themselves. A head that an accepted event rests on would bring its old state back.
    pub(crate) async fn cover_heads(&mut self, prev: &[EventNum]) -> Result<()> {
        let mut covered: HashSet<EventNum> = prev.iter().copied().collect();
        let mut todo = prev.to_vec();
        while !todo.is_empty() {
            let metas = self.reader.event_metas(self.nid, &todo).await?.into_iter();
            let aside = metas.filter(|meta| meta.status != Status::Accepted);
            todo = aside.flat_map(|meta| meta.prev).filter(|num| covered.insert(*num)).collect();
        }
        self.head.extremities.retain(|head| !covered.contains(head));
        Ok(())
    }

    /// Whether an accepted event names `event` among those before it: it was missing until now.
    pub(crate) async fn is_followed(&self, event: &EventId) -> Result<bool> {
        Ok(self.reader.is_missing(self.nid, event).await?)
    }

    /// Whether an event is redacted as this transaction leaves it.
    pub(crate) async fn is_redacted(&self, num: EventNum) -> Result<bool> {
        if self.redacted.contains(&num) || self.fresh.contains_key(&num) {
            return Ok(self.redacted.contains(&num));
        }
        Ok(self.reader.event_meta(self.nid, num).await?.redacted_by.some().is_some())
    }

    /// Tells the log, and the outboxes of the servers it has to be sent to. `servers` were in the room before it.
    pub(crate) async fn announce(
        &mut self,
        pdu: &Pdu,
        num: EventNum,
        source: Source,
        mut servers: Vec<OwnedServerName>,
    ) -> Result<()> {
        let member = (pdu.kind().to_string() == "m.room.member").then(|| pdu.state_key()).flatten();
        let member = member.and_then(|user| OwnedUserId::try_from(user).ok());
        if source != Source::Elsewhere {
            if member.is_some() {
                servers.extend(self.servers().await?);
            }
            let out = matches!(membership_of(pdu), Membership::Leave | Membership::Ban);
            servers.extend(member.as_ref().filter(|_| out).map(|user| user.server_name().to_owned()));
            servers.sort_unstable();
            servers.dedup();
            let own: &ServerName = &self.inner.server;
            let item = OutboxItem::Pdu { room: self.nid.0, event: num.0 };
            for server in
                servers.iter().filter(|server| **server != own && **server != pdu.sender().server_name())
            {
                self.tx.enqueue(server, &item);
            }
        }
        let local = source != Source::Elsewhere;
        let sticky = self.stick(pdu, num).await?;
        self.tx.log(LogEntry::Event { room: self.nid.0, event: num.0, member, local, sticky });
        Ok(())
    }

    /// Tells the log whose memberships changes of the current state touched, that of the event `but` left out, which is
    /// announced by itself. Users of this server are named however many they are: each of them is told.
    pub(crate) fn announce_members(&mut self, changes: &[StateChange], but: Option<EventNum>) {
        let room = self.nid.0;
        let others = changes
            .iter()
            .filter(|change| change.key.event_type() == "m.room.member" && Some(change.num) != but)
            .filter_map(|change| OwnedUserId::try_from(&*change.key.state_key).ok());
        let mut users: Vec<OwnedUserId> = others.collect();
        if users.len() > MEMBERS_NAMED {
            self.tx.log(LogEntry::Members { room });
            users.retain(|user| user.server_name() == self.inner.server);
        }
        for user in users {
            self.tx.log(LogEntry::Member { room, user });
        }
    }

    /// Whether any user of this server is joined.
    pub(crate) async fn is_here(&self) -> Result<bool> {
        self.has(&self.inner.server).await
    }

    /// The heads, 20 at most, newest first, and their numbers.
    pub(crate) async fn heads(&self) -> Result<(Vec<Reference>, Vec<EventNum>)> {
        let nums: Vec<EventNum> = self.head.extremities.iter().rev().take(20).copied().collect();
        Ok((self.references(&nums).await?, nums))
    }

    /// How a new event of the room names these.
    pub(crate) async fn references(&self, nums: &[EventNum]) -> Result<Vec<Reference>> {
        Ok(self.pdus(nums).await?.iter().map(|pdu| Reference::to(self.rules, pdu)).collect())
    }
}
