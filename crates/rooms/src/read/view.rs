//! A room as it is at one moment, to be read.

use std::{collections::BTreeSet, sync::Arc};

use chappe_rules::{Pdu, redact};
use chappe_store::{
    EventMeta, EventNum, Reader, RoomHead, RoomNid, StateRef, Status, StoredPdu, rooms::RoomHeads,
    state::StateKey,
};
use parking_lot::Mutex;
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId, events::StateEventType,
    room_version_rules::RoomVersionRules,
};

use crate::{
    Error, Inner, Result, Rooms,
    desk::{ServerCounts, parsed, rules_of},
    visible::{Ignored, Part},
};

/// Events that are in memory at once where there may be as many as a room has members.
const PAGE: usize = 1_000;

/// An event with what this server thinks of it. A redacted event comes without what redaction takes away.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number in the room.
    pub num: EventNum,
    /// Status, state references, place.
    pub meta: EventMeta,
    /// The event; redacted if [`EventMeta::redacted_by`] says so.
    pub pdu: Pdu,
    /// Whether it is redacted for whoever reads it here alone, as its sender is erased.
    pub(crate) erased: bool,
    /// As it is stored; forms worked out from it are kept there.
    pub(crate) stored: Arc<StoredPdu>,
}

/// A room at one moment: one snapshot for everything that is asked of it. Short-lived.
pub struct View<'s> {
    pub(crate) inner: &'s Inner,
    pub(crate) rules: &'static RoomVersionRules,
    /// The snapshot.
    pub reader: Reader<'s>,
    /// The room's number.
    pub nid: RoomNid,
    /// The room.
    pub room_id: OwnedRoomId,
    /// Its head at that moment.
    pub head: RoomHead,
    /// The part of the user who was asked about last.
    pub(crate) part: Mutex<Option<(OwnedUserId, Part)>>,
    /// Whom that user ignores.
    pub(crate) ignored: Mutex<Option<(OwnedUserId, Ignored)>>,
}

/// A redacted event, kept with the stored one.
struct Redacted(Pdu);

impl Rooms {
    /// A view of a room that this server knows.
    pub async fn view(&self, room: &RoomId) -> Result<View<'_>> {
        self.0.view(room).await
    }

    /// A view of a room by number.
    pub async fn view_of(&self, nid: RoomNid) -> Result<View<'_>> {
        self.view_at(self.0.store.read(), nid).await
    }

    /// A view of a room at the moment of a snapshot, with the head that the room has there: no reads.
    pub fn view_with<'s>(
        &'s self,
        reader: Reader<'s>,
        (nid, room_id): (RoomNid, OwnedRoomId),
        head: RoomHead,
    ) -> Result<View<'s>> {
        Ok(View {
            inner: &self.0,
            rules: rules_of(&head.version)?,
            reader,
            nid,
            room_id,
            head,
            part: Mutex::default(),
            ignored: Mutex::default(),
        })
    }

    /// A view of a room at the moment of a snapshot.
    pub async fn view_at<'s>(&'s self, reader: Reader<'s>, nid: RoomNid) -> Result<View<'s>> {
        let room_id = reader.room_id(nid).await?;
        let head = reader.room_head(nid).await?;
        Ok(View {
            inner: &self.0,
            rules: rules_of(&head.version)?,
            reader,
            nid,
            room_id,
            head,
            part: Mutex::default(),
            ignored: Mutex::default(),
        })
    }
}

impl Rooms {
    /// The servers with joined users in some rooms at the moment of a snapshot. They follow from the state of a room and are
    /// remembered with it, unless it is not known whole.
    pub async fn servers_in(
        &self,
        reader: &Reader<'_>,
        nids: &[RoomNid],
    ) -> Result<BTreeSet<OwnedServerName>, chappe_store::Error> {
        let known = &self.0.servers;
        let mut found = BTreeSet::new();
        for (nid, head) in nids.iter().zip(reader.get_many::<RoomHeads>(nids).await?) {
            let Some(head) = head else { continue };
            let key = (*nid, head.state);
            let servers = match known.get(&key).filter(|_| !head.partial) {
                Some(servers) => servers,
                None => {
                    let servers: ServerCounts = Arc::new(reader.room_servers(*nid).await?);
                    if !head.partial {
                        known.insert(key, servers.clone());
                    }
                    servers
                }
            };
            for (server, _) in servers.iter().filter(|(_, count)| *count > 0) {
                if !found.contains(server) {
                    found.insert(server.clone());
                }
            }
        }
        Ok(found)
    }
}

impl Inner {
    pub(crate) async fn view(&self, room: &RoomId) -> Result<View<'_>> {
        let reader = self.store.read();
        let nid = reader.room_nid(room).await?.ok_or(Error::NotFound("room"))?;
        let head = reader.room_head(nid).await?;
        Ok(View {
            inner: self,
            rules: rules_of(&head.version)?,
            reader,
            nid,
            room_id: room.to_owned(),
            head,
            part: Mutex::default(),
            ignored: Mutex::default(),
        })
    }
}

impl View<'_> {
    /// Events by number, in their order.
    pub async fn load(&self, nums: &[EventNum]) -> Result<Vec<Event>> {
        if nums.is_empty() {
            return Ok(Vec::new());
        }
        self.events_from(nums, self.reader.events(self.nid, nums).await?)
    }

    /// The same for events that are meant to be looked at once: they push out none that others read.
    pub async fn load_once(&self, nums: &[EventNum]) -> Result<Vec<Event>> {
        if nums.is_empty() {
            return Ok(Vec::new());
        }
        self.events_from(nums, self.reader.events_once(self.nid, nums).await?)
    }

    /// Makes something of each of some events, or of those that it is wanted of, in their order: a page at a time, as they may be
    /// all members of a large room. Those of an earlier state are told as [`View::veil_state`] leaves them.
    pub(crate) async fn load_each<T>(
        &self,
        nums: &[EventNum],
        veil: Option<(&UserId, StateRef)>,
        mut make: impl FnMut(Event) -> Result<Option<T>>,
    ) -> Result<Vec<T>> {
        let mut made = Vec::new();
        for some in nums.chunks(PAGE) {
            // The members of a small room are soon asked for again.
            let mut events =
                if nums.len() > PAGE { self.load_once(some).await? } else { self.load(some).await? };
            if let Some((user, at)) = veil {
                self.veil_state(user, &[at], events.iter_mut().collect()).await?;
            }
            for event in events {
                made.extend(make(event)?);
            }
        }
        Ok(made)
    }

    fn events_from(&self, nums: &[EventNum], stored: Vec<(EventMeta, Arc<StoredPdu>)>) -> Result<Vec<Event>> {
        nums.iter().zip(stored).map(|(num, (meta, stored))| self.event_from(*num, meta, stored)).collect()
    }

    /// Those of some events that were not removed, in their order.
    pub async fn load_kept(&self, nums: &[EventNum]) -> Result<Vec<Event>> {
        match self.load(nums).await {
            Err(Error::NotFound(_)) => {}
            loaded => return loaded,
        }
        let mut kept = Vec::new();
        for num in nums {
            match self.load_one(*num).await {
                Err(Error::NotFound(_)) => {}
                event => kept.push(event?),
            }
        }
        Ok(kept)
    }

    /// One event by number.
    pub async fn load_one(&self, num: EventNum) -> Result<Event> {
        self.load(&[num]).await?.pop().ok_or(Error::NotFound("event"))
    }

    pub(crate) fn event_from(&self, num: EventNum, meta: EventMeta, stored: Arc<StoredPdu>) -> Result<Event> {
        let pdu = parsed(self.rules, &stored)?;
        let is_redacted = meta.redacted_by.some().is_some();
        let pdu = if is_redacted { redacted(self.rules, &stored, &pdu)? } else { pdu };
        Ok(Event { num, meta, pdu, erased: false, stored })
    }

    /// The event of a key of the current state.
    pub async fn current(&self, kind: StateEventType, state_key: &str) -> Result<Option<Event>> {
        self.state_event_at(self.head.state, kind, state_key).await
    }

    /// The event of a key of any version of the state.
    pub async fn state_event_at(
        &self,
        at: StateRef,
        kind: StateEventType,
        state_key: &str,
    ) -> Result<Option<Event>> {
        let found = self.state_events_at(at, &[StateKey::new(kind, state_key)]).await?;
        Ok(found.into_iter().next().flatten())
    }

    /// The events of some keys of any version of the state, in their order.
    pub async fn state_events_at(&self, at: StateRef, keys: &[StateKey]) -> Result<Vec<Option<Event>>> {
        let nums = if at == self.head.state {
            self.reader.state_now(self.nid, keys).await?
        } else {
            self.reader.state_at(self.nid, at, keys).await?
        };
        let present: Vec<EventNum> = nums.iter().copied().flatten().collect();
        let mut events = self.load(&present).await?.into_iter();
        Ok(nums.into_iter().map(|num| num.and_then(|_| events.next())).collect())
    }

    /// The content of a key of the current state as `T`; none where the room says nothing readable.
    pub async fn current_content<T: serde::de::DeserializeOwned>(
        &self,
        kind: StateEventType,
    ) -> Result<Option<T>> {
        Ok(self
            .current(kind, "")
            .await?
            .and_then(|event| serde_json::from_str(event.pdu.content().get()).ok()))
    }
}

/// What redaction leaves of an event, worked out once.
fn redacted(rules: &RoomVersionRules, stored: &StoredPdu, pdu: &Pdu) -> Result<Pdu> {
    let redacted = stored.form(|_| redact::event(rules, pdu).map(Redacted));
    Ok(redacted.map_err(|_| chappe_store::Error::Corrupt("event JSON"))?.0.clone())
}

impl Event {
    /// Has it say no more than a redacted one.
    pub(crate) fn erase(&mut self, rules: &RoomVersionRules) -> Result<()> {
        self.pdu = redacted(rules, &self.stored, &self.pdu)?;
        self.erased = true;
        Ok(())
    }

    /// Whether it is part of the room's visible history: accepted, with a place in the timeline.
    pub fn is_shown(&self) -> bool {
        self.meta.status == Status::Accepted && self.meta.ordinal.is_some() && !self.meta.expired
    }

    /// Something worked out from the event as it was sent, once for everybody; one thing per type `T`.
    pub fn kept<T: Send + Sync + 'static>(&self, work_out: impl FnOnce(&Pdu) -> T) -> Arc<T> {
        if self.erased {
            return Arc::new(work_out(&self.pdu));
        }
        match self.stored.form(|_| Ok::<T, std::convert::Infallible>(work_out(&self.pdu))) {
            Ok(kept) => kept,
            Err(never) => match never {},
        }
    }

    /// Bytes that it takes in memory at most, about.
    pub fn size(&self) -> u64 {
        self.stored.size()
    }

    /// Whether it was redacted, or is for whoever reads it here.
    pub fn is_redacted(&self) -> bool {
        self.erased || self.meta.redacted_by.some().is_some()
    }
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View of {} at {}", self.room_id, self.reader.position())
    }
}
