//! A room as it is at one moment, to be read.

use std::{collections::BTreeSet, sync::Arc};

use chappe_rules::{Pdu, redact};
use chappe_store::{
    EventMeta, EventNum, Reader, RoomHead, RoomNid, StateRef, Status, StoredPdu, rooms::RoomHeads,
    state::StateKey,
};
use parking_lot::Mutex;
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, events::StateEventType,
    room_version_rules::RoomVersionRules,
};

use crate::{
    Error, Inner, Result, Rooms,
    desk::{ServerCounts, parsed, rules_of},
    visible::Part,
};

/// An event with what this server thinks of it. A redacted event comes without what redaction takes away.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number in the room.
    pub num: EventNum,
    /// Status, state references, place.
    pub meta: EventMeta,
    /// The event; redacted if [`EventMeta::redacted_by`] says so.
    pub pdu: Pdu,
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
        })
    }
}

impl View<'_> {
    /// Events by number, in their order.
    pub async fn load(&self, nums: &[EventNum]) -> Result<Vec<Event>> {
        if nums.is_empty() {
            return Ok(Vec::new());
        }
        let events = self.reader.events(self.nid, nums).await?;
        nums.iter().zip(events).map(|(num, (meta, stored))| self.event_from(*num, meta, stored)).collect()
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
        let pdu = if meta.redacted_by.some().is_some() {
            let redacted = stored.form(|_| redact::event(self.rules, &pdu).map(Redacted));
            redacted.map_err(|_| chappe_store::Error::Corrupt("event JSON"))?.0.clone()
        } else {
            pdu
        };
        Ok(Event { num, meta, pdu, stored })
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

impl Event {
    /// Whether it is part of the room's visible history: accepted, with a place in the timeline.
    pub fn is_shown(&self) -> bool {
        self.meta.status == Status::Accepted && self.meta.ordinal.is_some() && !self.meta.expired
    }

    /// Something worked out from the event as it was sent, once for everybody; one thing per type `T`.
    pub fn kept<T: Send + Sync + 'static>(&self, work_out: impl FnOnce(&Pdu) -> T) -> Arc<T> {
        match self.stored.form(|_| Ok::<T, std::convert::Infallible>(work_out(&self.pdu))) {
            Ok(kept) => kept,
            Err(never) => match never {},
        }
    }

    /// Whether it was redacted.
    pub fn is_redacted(&self) -> bool {
        self.meta.redacted_by.some().is_some()
    }
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View of {} at {}", self.room_id, self.reader.position())
    }
}
