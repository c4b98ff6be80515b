//! What other servers may read of a room: always through the one door, [`View::told_to_server`].

use std::{
    collections::{BTreeSet, BinaryHeap},
    slice::from_ref,
    sync::Arc,
};

use chappe_rules::{acl::Acl, redact};
use chappe_store::{EventMeta, EventNum, RoomNid, StateRef, Status, StoredPdu};
use ruma::{EventId, OwnedEventId, OwnedUserId, RoomId, ServerName, events::StateEventType};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Error, Event, Gap, Result, Rooms, StateEvents, StateIds, View, visible::Witness};

/// Events given out at once at most.
const MOST: usize = 100;
/// Events read at once for an answer that may be all of a large room.
const PAGE: usize = 1_000;
/// Events looked at for one question at most.
const MOST_LOOKED_AT: usize = 2_000;

#[derive(Deserialize)]
struct Sent {
    sender: OwnedUserId,
}

impl Rooms {
    /// `backfill`: the events `from` and those before them, newest first; redacted where `origin` may not see them.
    pub async fn backfill_for(
        &self,
        origin: &ServerName,
        room: &RoomId,
        from: &[OwnedEventId],
        limit: u16,
    ) -> Result<Vec<Box<RawValue>>> {
        let view = self.view_inside(room).await?;
        let witness = view.let_ask(origin, view.known(from).await?).await?;
        let limit = usize::from(limit).min(MOST);
        let found = view.walk_back(&witness.of, |_| true, limit, &witness).await?;
        Ok(found.iter().map(|event| event.pdu.to_raw()).collect())
    }

    /// `get_missing_events`, oldest first; redacted where `origin` may not see them. Also of a room that this server has
    /// left: whoever gets the last leave may still need what is before it. So may a server whose last user was put out.
    pub async fn missing_events_for(
        &self,
        origin: &ServerName,
        room: &RoomId,
        gap: Gap,
    ) -> Result<Vec<Box<RawValue>>> {
        let view = self.view_of_any(room).await?;
        let witness = view.let_ask(origin, view.known(&gap.latest).await?).await?;
        let metas = view.reader.event_metas(view.nid, &witness.of).await?;
        let start: Vec<EventNum> = metas.into_iter().flat_map(|meta| meta.prev).collect();
        let known: BTreeSet<EventNum> = view.known(&gap.earliest).await?.into_iter().collect();
        let min_depth = u64::from(gap.min_depth);
        let goes_on = |event: &Event| !known.contains(&event.num) && event.pdu.depth() >= min_depth;
        let limit = usize::from(gap.limit).min(MOST);
        let mut found = view.walk_back(&start, goes_on, limit, &witness).await?;
        found.reverse();
        Ok(found.iter().map(|event| event.pdu.to_raw()).collect())
    }

    /// `state_ids` before `at`.
    pub async fn state_ids_for(&self, origin: &ServerName, room: &RoomId, at: &EventId) -> Result<StateIds> {
        let view = self.view_inside(room).await?;
        let (_, state, chain) = view.state_told_to(origin, at).await?;
        let auth_chain = view.reader.event_ids(view.nid, &chain).await?;
        Ok(StateIds { state: view.reader.event_ids(view.nid, &state).await?, auth_chain })
    }

    /// `state` before `at`.
    pub async fn state_for(&self, origin: &ServerName, room: &RoomId, at: &EventId) -> Result<StateEvents> {
        let view = self.view_inside(room).await?;
        let (before, state, chain) = view.state_told_to(origin, at).await?;
        let state = view.raws(origin, before, &state).await?;
        let auth_chain = view.raws(origin, before, &chain).await?;
        Ok(StateEvents { state, auth_chain, ..StateEvents::default() })
    }

    /// `event`.
    pub async fn event_for(&self, origin: &ServerName, event: &EventId) -> Result<Box<RawValue>> {
        let address = self.store().read().event_address(event).await?;
        let (nid, _) = address.ok_or(Error::NotFound("event"))?;
        let view = self.view_of(nid).await?;
        view.check_inside(self).await.map_err(|_| Error::NotFound("event"))?;
        match view.told_one(origin, event).await {
            Err(Error::Forbidden(_)) => Err(Error::NotFound("event")),
            told => Ok(told?.pdu.to_raw()),
        }
    }

    /// `event_auth`: the auth chain of `event`.
    pub async fn event_auth_for(
        &self,
        origin: &ServerName,
        room: &RoomId,
        event: &EventId,
    ) -> Result<Vec<Box<RawValue>>> {
        let view = self.view_inside(room).await?;
        let event = view.told_one(origin, event).await?;
        let chain = view.chain_of(&[event.num]).await?;
        view.raws(origin, event.meta.before, &chain).await
    }

    /// An event that waits to be sent to the servers in its room, without what it said if that was redacted or has expired.
    /// [`Error::NotFound`] where it was purged, or where what another server's user said was redacted: from here that would be
    /// an event changed on its way. Whoever misses it asks for it.
    pub async fn outgoing(&self, nid: RoomNid, num: EventNum) -> Result<Box<RawValue>> {
        let view = self.view_of(nid).await?;
        let event = view.load_one(num).await?;
        let event = view.without_expired(event)?;
        if !event.is_redacted() {
            return raw(&event.stored);
        }
        if event.pdu.sender().server_name() != self.server() {
            return Err(Error::NotFound("event"));
        }
        Ok(event.pdu.to_raw())
    }

    /// Those of a room's events that `server`, which is in it, may see.
    pub async fn shown_to(
        &self,
        server: &ServerName,
        nid: RoomNid,
        events: &[EventNum],
    ) -> Result<Vec<EventNum>> {
        let view = self.view_of(nid).await?;
        let events = view.load(events).await?;
        let sees = view.server_sees(server, &events).await?;
        Ok(events.iter().zip(sees).filter(|(_, sees)| *sees).map(|(event, _)| event.num).collect())
    }

    /// A view of a room for a server that is in it, as is this one.
    pub(crate) async fn view_for(&self, origin: &ServerName, room: &RoomId) -> Result<View<'_>> {
        let view = self.view_inside(room).await?;
        if !view.reader.server_joined(view.nid, origin).await? {
            return Err(not_there());
        }
        view.check_acl(origin).await?;
        Ok(view)
    }

    /// A view of a room that this server is in.
    async fn view_inside(&self, room: &RoomId) -> Result<View<'_>> {
        let view = self.view_of_any(room).await?;
        view.check_inside(self).await?;
        Ok(view)
    }

    /// A view of a room. That there is none, a server that is not in it is not told apart.
    async fn view_of_any(&self, room: &RoomId) -> Result<View<'_>> {
        self.view(room).await.map_err(|error| match error {
            Error::NotFound("room") => not_there(),
            error => error,
        })
    }
}

/// An event as it is stored.
fn raw(stored: &StoredPdu) -> Result<Box<RawValue>> {
    let raw = RawValue::from_string(stored.json.to_string());
    raw.map_err(|_| chappe_store::Error::Corrupt("event JSON").into())
}

fn not_there() -> Error {
    Error::Forbidden("your server is not in this room".to_owned())
}

impl View<'_> {
    /// Refuses where this server is not in the room.
    async fn check_inside(&self, rooms: &Rooms) -> Result<()> {
        if self.reader.server_joined(self.nid, rooms.server()).await? { Ok(()) } else { Err(not_there()) }
    }

    /// Refuses a server that is not in the room, as far as is known here, and was not when any of `about` happened, or that
    /// may not be heard there.
    async fn let_ask<'o>(&self, origin: &'o ServerName, about: Vec<EventNum>) -> Result<Witness<'o>> {
        let witness = self.witness(origin, about).await?.ok_or_else(not_there)?;
        self.check_acl(origin).await?;
        Ok(witness)
    }

    /// Refuses a server that the room does not let in.
    async fn check_acl(&self, origin: &ServerName) -> Result<()> {
        match self.current(StateEventType::RoomServerAcl, "").await? {
            Some(acl) if !Acl::new(acl.pdu.content()).allows(origin) => {
                Err(Error::Forbidden("this room does not let your server in".to_owned()))
            }
            _ => Ok(()),
        }
    }

    async fn known(&self, ids: &[OwnedEventId]) -> Result<Vec<EventNum>> {
        let ids: Vec<&EventId> = ids.iter().take(MOST).map(|id| &**id).collect();
        Ok(self.reader.event_nums(self.nid, &ids).await?.into_iter().flatten().collect())
    }

    async fn told_one(&self, origin: &ServerName, event: &EventId) -> Result<Event> {
        let num = self.reader.event_num(self.nid, event).await?;
        let witness = self.let_ask(origin, num.into_iter().collect()).await?;
        let mut event = self.load_one(num.ok_or(Error::NotFound("event"))?).await?;
        // As state, and as what that rests on, it is told to everybody in the room.
        if event.meta.status == Status::Outlier && event.pdu.state().is_some() && witness.is_in() {
            if !redact::takes_what_is_read(self.rules, &event.pdu)
                && self.veiled_from(origin, None, from_ref(&event)).await?.contains(&event.num)
            {
                event.erase(self.rules)?;
            }
            return Ok(event);
        }
        self.told_to_server(&witness, vec![event]).await?.pop().ok_or(Error::NotFound("event"))
    }

    /// Walks from `start` along previous events, deepest first, as far as `goes_on`; gives what the witness is told.
    async fn walk_back(
        &self,
        start: &[EventNum],
        goes_on: impl Fn(&Event) -> bool,
        limit: usize,
        witness: &Witness<'_>,
    ) -> Result<Vec<Event>> {
        let mut found = Vec::new();
        let mut seen: BTreeSet<EventNum> = start.iter().copied().collect();
        let mut heap: BinaryHeap<(u64, EventNum)> = BinaryHeap::new();
        for event in self.load_kept(start).await? {
            heap.push((event.pdu.depth(), event.num));
        }
        while let Some((_, num)) = heap.pop() {
            if found.len() >= limit || seen.len() > MOST_LOOKED_AT {
                break;
            }
            let event = self.load_one(num).await?;
            if !goes_on(&event) {
                continue;
            }
            let prev: Vec<EventNum> =
                event.meta.prev.iter().copied().filter(|num| seen.insert(*num)).collect();
            heap.extend(self.load_kept(&prev).await?.iter().map(|event| (event.pdu.depth(), event.num)));
            // A soft-failed event is given out where something rests on it, which here something does.
            let stands = event.is_shown() || (event.meta.expired && event.meta.status == Status::Accepted);
            let is_part = stands || event.meta.status == Status::SoftFailed;
            if is_part {
                found.push(event);
            }
        }
        self.told_to_server(witness, found).await
    }

    /// The state before an event, its events and everything that they rest on.
    async fn state_told_to(
        &self,
        origin: &ServerName,
        at: &EventId,
    ) -> Result<(StateRef, Vec<EventNum>, Vec<EventNum>)> {
        let event = self.told_one(origin, at).await?;
        if event.meta.status == Status::Outlier {
            return Err(Error::NotFound("state before the event"));
        }
        if self.head.partial {
            return Err(Error::Forbidden(
                "this server does not know the whole state of the room yet".to_owned(),
            ));
        }
        let state = self.reader.full_state(self.nid, event.meta.before).await?;
        let state: Vec<EventNum> = state.into_iter().map(|(_, num)| num).collect();
        let chain = self.chain_of(&state).await?;
        Ok((event.meta.before, state, chain))
    }

    /// Everything that events rest on.
    pub(crate) async fn chain_of(&self, nums: &[EventNum]) -> Result<Vec<EventNum>> {
        Ok(self.reader.auth_chain(self.nid, nums).await?.iter().map(EventNum).collect())
    }

    /// Events of the state `at`, and what they rest on, as `server` gets them: as they are stored, but for what redaction takes
    /// away where they are redacted, or where it shall not see what erased users sent, unless that takes away what authorization reads.
    pub(crate) async fn raws(
        &self,
        server: &ServerName,
        at: StateRef,
        nums: &[EventNum],
    ) -> Result<Vec<Box<RawValue>>> {
        let mut raws = Vec::with_capacity(nums.len());
        for some in nums.chunks(PAGE) {
            let events = self.reader.events_once(self.nid, some).await?;
            let veiled = self.veiled_at((server, at), some, &events).await?;
            for (num, (meta, stored)) in some.iter().zip(events) {
                let is_veiled = veiled.contains(num);
                raws.push(if is_veiled || meta.redacted_by.some().is_some() {
                    let mut event = self.event_from(*num, meta, stored)?;
                    if is_veiled {
                        event.erase(self.rules)?;
                    }
                    event.pdu.to_raw()
                } else {
                    raw(&stored)?
                });
            }
        }
        Ok(raws)
    }

    /// Those of the events that erased users sent while a server was not there; none if it was at the state `at`, as for users.
    async fn veiled_at(
        &self,
        (server, at): (&ServerName, StateRef),
        nums: &[EventNum],
        events: &[(EventMeta, Arc<StoredPdu>)],
    ) -> Result<BTreeSet<EventNum>> {
        if !self.inner.accounts.has_erased() {
            return Ok(BTreeSet::new());
        }
        let mut told = Vec::new();
        for (num, (meta, stored)) in nums.iter().zip(events) {
            let sent = serde_json::from_str::<Sent>(&stored.json);
            if sent.is_ok_and(|sent| self.inner.accounts.is_erased(&sent.sender)) {
                let event = self.event_from(*num, meta.clone(), stored.clone())?;
                told.extend((!redact::takes_what_is_read(self.rules, &event.pdu)).then_some(event));
            }
        }
        if told.is_empty() || self.server_was_in(server, at).await? {
            return Ok(BTreeSet::new());
        }
        self.veiled_from(server, None, &told).await
    }
}
