//! Judging again: once the members of a room are here, everything that followed the join gets the states and the verdict
//! that it would have got at first.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chappe_rules::{
    Pdu,
    auth::{allowed_by_auth_events, allowed_by_state, events_needed, state_needed},
    policy::{Bypass, Door},
};
use chappe_store::{
    EventMeta, EventNum, LogEntry, Membership, StateChange, StateRef, Status, WholeSince,
    partial::{LateEvents, PartialRoom},
    state::StateKey,
};
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};

use super::{Budget, order::ordered, told::Told};
use crate::{
    Error, Inner, Result,
    desk::{Desk, is_placed, membership_of},
};

/// Events judged in one commit at most.
const TOGETHER: usize = 200;
/// Changes of the current state in one commit at most.
const CHANGES_AT_ONCE: usize = 4_000;

/// A room on its way to be whole, for whoever holds its turn. Nothing of it shows before the last commit, and every step
/// comes to the same when it is done twice.
struct Again<'i> {
    inner: &'i Inner,
    room: &'i RoomId,
    desk: Desk<'i>,
    /// The states after the events judged again so far.
    after: HashMap<EventNum, StateRef>,
    /// How many of them this commit has.
    here: usize,
    /// Joins of users of this server that the access rules refuse after all.
    refused: BTreeMap<EventNum, OwnedUserId>,
}

impl Inner {
    /// Whether the state before the join that a room came with was told: until then it is one of the main line, without members.
    pub(crate) async fn knows_state_before(&self, room: &RoomId, partial: &PartialRoom) -> Result<bool> {
        let desk = Desk::open(self, room).await?;
        let join = desk.reader.event_meta(desk.nid, partial.join()).await?;
        Ok(join.before.line != desk.state.current().line)
    }

    /// Has a server tell the states before the events before the join that a room came with, and keeps what these events make
    /// of them as the state before the join, which nobody else may know yet. What others told of them meanwhile has no part in
    /// it: each could say what the whole room is like.
    pub(crate) async fn fetch_state_before(
        &self,
        server: &ServerName,
        room: &RoomId,
        partial: &PartialRoom,
    ) -> Result<()> {
        let mut budget = Budget::without_gap(&self.config(), partial.prev.len());
        let mut told = Vec::with_capacity(partial.prev.len());
        for event in &partial.prev {
            told.push(self.told_of((server, room, event), &mut budget).await?);
        }
        let _turn = self.turn(room).await;
        let desk = Desk::open(self, room).await?;
        if desk.reader.partial_room(desk.nid).await?.is_none_or(|now| now.join != partial.join) {
            // It was given up, and came in anew.
            return Err(Error::Retry);
        }
        drop(desk);
        let mut after = BTreeSet::new();
        for (num, told) in &told {
            let mut desk = with_members(self, room).await?;
            after.insert(desk.after_told(*num, told).await?);
            // Only what is on disk can be resolved.
            self.store.commit(desk.seal()).await?;
        }
        let after: Vec<StateRef> = after.into_iter().collect();
        let mut desk = with_members(self, room).await?;
        let before = desk.state_of(&after).await?.at;
        let old = desk.reader.event_meta(desk.nid, partial.join()).await?;
        desk.tx.update_event(desk.nid, partial.join(), &EventMeta { before, ..old });
        self.store.commit(desk.seal()).await?;
        Ok(())
    }

    /// An event, and the state before it as a server tells it.
    async fn told_of(
        &self,
        (server, room, event): (&ServerName, &RoomId, &OwnedEventId),
        budget: &mut Budget,
    ) -> Result<(EventNum, Told)> {
        let rules = Desk::open(self, room).await?.rules;
        let told = self.state_from(server, room, event, rules, budget).await?;
        let wanted = [event.clone()];
        if self.num_of(room, &wanted).await?.is_none() {
            self.fetch_events((server, room), &wanted, &wanted, budget).await?;
        }
        let num = self.num_of(room, &wanted).await?;
        let lacking = || Error::HostilePeer("an event before the join could not be had".to_owned());
        Ok((num.ok_or_else(lacking)?, told))
    }

    async fn num_of(&self, room: &RoomId, event: &[OwnedEventId; 1]) -> Result<Option<EventNum>> {
        Ok(Desk::open(self, room).await?.nums(event).await?.into_iter().flatten().next())
    }

    /// Makes a room whole: the state before its join is known by now.
    pub(crate) async fn make_whole(&self, room: &RoomId, partial: &PartialRoom) -> Result<()> {
        let turn = self.turn(room).await;
        let desk = with_members(self, room).await?;
        // Not all who count by now: where this was begun before, some of the members do who come with it.
        let believed: BTreeSet<OwnedServerName> = partial.servers.iter().cloned().collect();
        let events = desk.since_join(partial.join()).await?;
        let mut again =
            Again { inner: self, room, desk, after: HashMap::new(), here: 0, refused: BTreeMap::new() };
        for num in &events {
            again.judge(*num, partial).await?;
        }
        again.flush().await?;
        again.let_stand(partial.join()).await?;
        let refused = std::mem::take(&mut again.refused);
        self.go_whole((room, partial), &events, &believed, &refused).await?;
        drop(turn);
        tracing::info!(%room, events = events.len(), "the room has all its members");
        Ok(())
    }

    /// Makes the current state the one that the heads come to, and the room whole with the last of it.
    async fn go_whole(
        &self,
        (room, partial): (&RoomId, &PartialRoom),
        events: &[EventNum],
        believed: &BTreeSet<OwnedServerName>,
        refused: &BTreeMap<EventNum, OwnedUserId>,
    ) -> Result<()> {
        loop {
            let mut desk = with_members(self, room).await?;
            desk.find_heads(events, refused).await?;
            let metas = desk.reader.event_metas(desk.nid, &desk.head.extremities).await?;
            let refs: BTreeSet<StateRef> = metas.iter().map(|meta| meta.after).collect();
            let changes = desk.changes_to_states(&refs.into_iter().collect::<Vec<_>>()).await?;
            let is_last = changes.len() <= CHANGES_AT_ONCE;
            let changes = &changes[..changes.len().min(CHANGES_AT_ONCE)];
            desk.tell_who_is_out(changes).await?;
            desk.change_current(changes).await?;
            if is_last {
                let mut servers = desk.servers_seen(events).await?;
                servers.retain(|server| !believed.contains(server) && *server != self.server);
                (desk.head.partial, desk.head.whole_since) = (false, WholeSince::Now);
                desk.tx.end_partial(desk.nid, partial);
                desk.turn_back(changes, refused).await?;
                desk.tx.log(LogEntry::Whole { room: desk.nid.0, servers: servers.into_iter().collect() });
            }
            self.store.commit(desk.seal()).await?;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// A desk for a room that is not called whole yet, of whose states only whole ones are looked at.
async fn with_members<'s>(inner: &'s Inner, room: &RoomId) -> Result<Desk<'s>> {
    let mut desk = Desk::open(inner, room).await?;
    desk.knows_members = true;
    Ok(desk)
}

impl Again<'_> {
    async fn flush(&mut self) -> Result<()> {
        if self.here > 0 {
            let next = with_members(self.inner, self.room).await?;
            let desk = std::mem::replace(&mut self.desk, next);
            self.inner.store.commit(desk.seal()).await?;
            self.desk = with_members(self.inner, self.room).await?;
            self.here = 0;
        }
        Ok(())
    }

    async fn judge(&mut self, num: EventNum, partial: &PartialRoom) -> Result<()> {
        if self.here >= TOGETHER {
            self.flush().await?;
        }
        let old = self.desk.reader.event_meta(self.desk.nid, num).await?;
        let pdu =
            self.desk.pdus(&[num]).await?.pop().ok_or(chappe_store::Error::Corrupt("event without JSON"))?;
        let before = self.before(&pdu, &old, num == partial.join()).await?;
        let allowed = self.desk.allows(&pdu, before).await?;
        let refused = allowed && !self.desk.lets_in(&pdu, before).await?;
        let status = match old.status {
            _ if !allowed => Status::Rejected,
            _ if refused => Status::SoftFailed,
            // Whether it is wanted now, and its place, is decided when the room is whole.
            Status::Rejected => Status::SoftFailed,
            status => status,
        };
        if refused {
            self.refused.extend(self.inner.own_user_let_in(&pdu).map(|user| (num, user)));
        } else if status == Status::SoftFailed {
            self.desk.tx.put::<LateEvents>(&(self.desk.nid, num), &());
        }
        let after = match pdu.state().filter(|_| status != Status::Rejected) {
            Some((kind, key)) => {
                let change = StateChange { key: StateKey::new(kind, key), num };
                self.desk.state.branch(&self.desk.reader, before, &[change]).await?
            }
            None => before,
        };
        self.after.insert(num, after);
        self.here += 1;
        let new = EventMeta { status, before, after, ..old.clone() };
        if new == old {
            return Ok(());
        }
        if status == old.status {
            self.desk.tx.update_event(self.desk.nid, num, &new);
            return Ok(());
        }
        // It may bear on the record of an event that this commit changes too, and later events are judged by what is
        // stored of those they name.
        self.flush().await?;
        self.desk.change_status((&pdu, num), &old, new).await?;
        self.here = 1;
        self.flush().await
    }

    /// Has events be part of states that were rejected for what they name, which is rejected no longer. They have no place, so
    /// they are not among those that are judged again.
    async fn let_stand(&mut self, join: EventNum) -> Result<()> {
        let metas = self.desk.reader.event_metas_from(self.desk.nid, join).await?;
        let is_aside = |meta: &EventMeta| meta.status == Status::Rejected && !is_placed(meta);
        for (num, meta) in metas.into_iter().filter(|(_, meta)| is_aside(meta)) {
            let Some(pdu) = self.desk.pdus(&[num]).await?.pop() else { continue };
            if self.desk.may_stand(&pdu).await? {
                let status = Status::Outlier;
                self.desk.tx.update_event(self.desk.nid, num, &EventMeta { status, ..meta });
                // Those that name it are judged by what is stored of it.
                self.here = 1;
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// The state before an event: that of the join was told; that of another is what those of its previous events that it was
    /// judged by come to by now and, where these are not all, what was told of it.
    async fn before(&mut self, pdu: &Pdu, old: &EventMeta, is_join: bool) -> Result<StateRef> {
        if is_join {
            return Ok(old.before);
        }
        let known = self.desk.known(pdu.prev_events()).await?;
        let counts = |(num, meta): &(EventNum, EventMeta)| is_placed(meta) && old.prev.contains(num);
        let prev: Vec<(EventNum, EventMeta)> =
            known.into_iter().filter_map(|(_, known)| known.filter(counts)).collect();
        let after = |(num, meta): &(EventNum, EventMeta)| self.after.get(num).copied().unwrap_or(meta.after);
        let mut refs: BTreeSet<StateRef> = prev.iter().map(after).collect();
        if prev.len() < pdu.prev_events().len() {
            refs.insert(old.before);
        }
        let refs: Vec<StateRef> = refs.into_iter().collect();
        match refs.as_slice() {
            [] => Ok(old.before),
            [one] => Ok(*one),
            [first, ..] => {
                // Only what is on disk can be resolved.
                self.flush().await?;
                let changes = self.desk.resolved_changes(&refs).await?;
                Ok(self.desk.state.branch(&self.desk.reader, *first, &changes).await?)
            }
        }
    }
}

impl Desk<'_> {
    /// The state after an event, given what was told of the state before it. One that this does not allow changes nothing.
    async fn after_told(&mut self, num: EventNum, told: &Told) -> Result<StateRef> {
        let before = self.told(told).await?.at;
        let pdu = self.pdus(&[num]).await?.pop().ok_or(chappe_store::Error::Corrupt("event without JSON"))?;
        let Some((kind, key)) = pdu.state() else { return Ok(before) };
        if !self.allows(&pdu, before).await? {
            return Ok(before);
        }
        let change = StateChange { key: StateKey::new(kind, key), num };
        Ok(self.state.branch(&self.reader, before, &[change]).await?)
    }

    /// The join and the events that rest on it, each after those it rests on.
    async fn since_join(&self, join: EventNum) -> Result<Vec<EventNum>> {
        let metas = self.reader.event_metas_from(self.nid, join).await?;
        let metas: BTreeMap<EventNum, EventMeta> =
            metas.into_iter().filter(|(_, meta)| is_placed(meta)).collect();
        let mut children: BTreeMap<EventNum, Vec<EventNum>> = BTreeMap::new();
        for (num, meta) in &metas {
            for prev in &meta.prev {
                children.entry(*prev).or_default().push(*num);
            }
        }
        let mut below = BTreeSet::new();
        let mut todo = vec![join];
        while let Some(num) = todo.pop() {
            if below.insert(num) {
                todo.extend(children.get(&num).into_iter().flatten());
            }
        }
        let rests_on = |num: &EventNum| metas.get(num).map_or_else(Vec::new, |meta| meta.prev.clone());
        Ok(ordered(below.into_iter().collect(), rests_on))
    }

    async fn allows(&self, pdu: &Pdu, before: StateRef) -> Result<bool> {
        let needed = self.nums(&events_needed(self.rules, pdu)).await?;
        let Some(nums) = needed.into_iter().collect::<Option<Vec<_>>>() else { return Ok(false) };
        if allowed_by_auth_events(self.rules, pdu, &self.judged_as_left(&nums).await?).is_err() {
            return Ok(false);
        }
        let Ok(keys) = state_needed(self.rules, pdu) else { return Ok(false) };
        let held = self.held_at(before, &keys).await?;
        Ok(allowed_by_state(self.rules, pdu, |kind, key| held.get(kind, key)).is_ok())
    }

    /// Whether the access rules let an event pass at the state before it.
    async fn lets_in(&self, pdu: &Pdu, before: StateRef) -> Result<bool> {
        match self.ask_access_of(pdu, before, (Door::Received, Bypass::None)).await {
            Ok(()) => Ok(true),
            Err(Error::Forbidden(reason)) => {
                tracing::info!(event = %pdu.event_id(), %reason, "not let in after all");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes an event out of the timeline that is not allowed after all; one that was not in it gets no place yet.
    async fn change_status(
        &mut self,
        (pdu, num): (&Pdu, EventNum),
        old: &EventMeta,
        mut new: EventMeta,
    ) -> Result<()> {
        tracing::info!(event = %pdu.event_id(), was = ?old.status, is = ?new.status, "judged otherwise");
        let Some(ordinal) = old.ordinal else {
            self.tx.update_event(self.nid, num, &new);
            return Ok(());
        };
        self.unindex(pdu, num, old).await?;
        new.ordinal = None;
        self.tx.unplace_event(self.nid, num, ordinal, &new);
        let gaps = self.reader.gaps_between(self.nid, ordinal, ordinal + 1).await?;
        for gap in gaps.into_iter().filter(|gap| gap.num == num) {
            self.tx.narrow_gap(self.nid, &gap, Vec::new());
        }
        Ok(())
    }

    /// The heads after some events were judged again: those that no accepted event rests on. A `refused` join counts as
    /// accepted here: elsewhere it is, and only a leave that rests on it is one there.
    async fn find_heads(
        &mut self,
        events: &[EventNum],
        refused: &BTreeMap<EventNum, OwnedUserId>,
    ) -> Result<()> {
        let mut candidates: BTreeSet<EventNum> = events.iter().copied().collect();
        let old: BTreeSet<EventNum> = self.head.extremities.iter().copied().collect();
        candidates.extend(&old);
        let nums: Vec<EventNum> = candidates.into_iter().collect();
        let metas = self.reader.event_metas(self.nid, &nums).await?;
        let counts = |(num, meta): &(EventNum, EventMeta)| {
            meta.status == Status::Accepted || refused.contains_key(num)
        };
        let accepted: Vec<(EventNum, EventMeta)> = nums.into_iter().zip(metas).filter(counts).collect();
        self.head.extremities = accepted.iter().map(|(num, _)| *num).collect();
        let prev: Vec<EventNum> = accepted.into_iter().flat_map(|(_, meta)| meta.prev).collect();
        self.cover_heads(&prev).await?;
        let mut heads = Vec::with_capacity(self.head.extremities.len());
        for num in std::mem::take(&mut self.head.extremities) {
            let event: Option<OwnedEventId> =
                self.pdus(&[num]).await?.pop().map(|pdu| pdu.event_id().to_owned());
            let followed = match event {
                Some(event) if !old.contains(&num) => self.is_followed(&event).await?,
                _ => false,
            };
            if !followed {
                heads.push(num);
            }
        }
        // A new event names the last of them where they are too many.
        heads.sort_by_key(|num| refused.contains_key(num));
        // Not even the join is allowed: there is nothing else to go on from.
        self.head.extremities = if heads.is_empty() { old.into_iter().collect() } else { heads };
        Ok(())
    }

    /// Tells the log of those who seemed to be in the room and are not.
    async fn tell_who_is_out(&mut self, changes: &[StateChange]) -> Result<()> {
        let members = changes.iter().filter(|change| change.key.event_type() == "m.room.member");
        let members: Vec<&StateChange> = members.collect();
        let keys: Vec<StateKey> = members.iter().map(|change| change.key.clone()).collect();
        let old = self.state.state_at(&self.reader, self.state.current(), &keys).await?;
        for (change, old) in members.into_iter().zip(old) {
            let (Some(old), Some(new)) = (old, change.num.some()) else { continue };
            let pdus = self.pdus(&[old, new]).await?;
            let is_in = |pdu: Option<&Pdu>| pdu.is_some_and(|pdu| membership_of(pdu) == Membership::Join);
            let user = OwnedUserId::try_from(&*change.key.state_key).ok();
            if is_in(pdus.first()) && !is_in(pdus.last()) && user.is_some() {
                let (room, event) = (self.nid.0, new.0);
                self.tx.log(LogEntry::Event { room, event, member: user, local: false, sticky: false });
            }
        }
        Ok(())
    }

    /// The servers in the room now, and those that were in it at some time during these events.
    async fn servers_seen(&self, events: &[EventNum]) -> Result<BTreeSet<OwnedServerName>> {
        let mut servers: BTreeSet<OwnedServerName> = self.servers().await?.into_iter().collect();
        for some in events.chunks(TOGETHER) {
            for pdu in self.pdus(some).await? {
                let member = pdu.state().filter(|(kind, _)| kind.to_string() == "m.room.member");
                let user = member.and_then(|(_, user)| UserId::parse(user).ok());
                servers.extend(user.map(|user| user.server_name().to_owned()));
            }
        }
        Ok(servers)
    }
}
