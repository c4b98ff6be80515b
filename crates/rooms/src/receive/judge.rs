//! Complete → Judged: at its auth events, at the state before it, at the current state, and by the access policy.

use std::collections::BTreeSet;

use chappe_rules::{
    Pdu,
    auth::{allowed_by_auth_events, allowed_by_state, events_needed, state_needed},
};
use chappe_store::{EventMeta, EventNum, StateChange, StateRef, Status, state::StateKey};
use ruma::events::{StateEventType, TimelineEventType};

use super::{Before, Complete, told::Told};
use crate::{
    Error, Result,
    desk::{Desk, Held, Placing, is_placed},
};

/// What the rules say of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It takes its place.
    Accepted,
    /// Allowed where it stands, not now, or not by this network's own rules: kept, not shown, not followed.
    SoftFailed(String),
    /// Not allowed where it stands.
    Rejected(String),
    /// Not allowed by a state that was told here: nothing is kept of it, another server may tell a better one.
    Undecided(String),
}

/// By what an event is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The state before it: what the room is like by now does not matter for what was said then.
    Then,
    /// The current state as well.
    ThenAndNow,
}

/// The state before an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateBefore {
    pub(super) at: StateRef,
    /// Whether `at` is on disk already, or only in this transaction.
    pub(super) committed: bool,
}

/// A judged event, with the desk it was judged on.
pub(super) struct Judged<'s> {
    pub(super) desk: Desk<'s>,
    pub(super) placing: Placing,
    pub(super) before: StateBefore,
    /// The state after it if it was staged in an earlier commit.
    pub(super) staged: Option<StateRef>,
    /// By what it was redacted while it had no place.
    pub(super) redacted_by: EventNum,
    /// Whether an accepted event is known to rest on it.
    pub(super) followed: bool,
    pub(super) verdict: Verdict,
}

impl Complete {
    /// Judges the event; `None` if it has its place already.
    pub(super) async fn judge<'s>(&self, mut desk: Desk<'s>, by: By) -> Result<Option<Judged<'s>>> {
        let stored = desk.own_num(&self.pdu).await?;
        let meta = match stored {
            Some(num) => Some(desk.reader.event_meta(desk.nid, num).await?),
            None => None,
        };
        if meta.as_ref().is_some_and(|meta| meta.status != Status::Outlier) {
            return Ok(None);
        }
        let redacted_by = meta.as_ref().map_or(EventNum::NONE, |meta| meta.redacted_by);
        let placing = self.placing(&desk, stored).await?;
        let is_whole = placing.prev.len() == self.pdu.prev_events().len();
        // What was told while previous events were missing is worth nothing once they are here.
        let still_counts = |meta: &EventMeta| !is_whole || meta.prev.len() == placing.prev.len();
        let staged = meta.filter(|meta| meta.after != StateRef::EMPTY && still_counts(meta));
        let staged = staged.map(|meta| (meta.before, meta.after));
        let before = match staged {
            Some((at, _)) => StateBefore { at, committed: true },
            None => {
                let before = if by == By::Then && self.creates(&desk).await? {
                    StateBefore { at: StateRef::EMPTY, committed: true }
                } else {
                    let (told, before) = desk.state_before(&placing.prev, &self.before).await?;
                    desk = told;
                    before
                };
                let (settled, before) = desk.with_claimed(before, &self.pdu).await?;
                desk = settled;
                before
            }
        };
        let follows_all = desk.head.extremities.iter().all(|head| placing.prev.contains(head));
        let goes_on = follows_all && self.before == Before::Prevs;
        let verdict = match by {
            By::Then => self.verdict_then(&desk, before.at).await?,
            By::ThenAndNow => self.verdict(&desk, before.at, goes_on).await?,
        };
        let verdict = self.unless_told(&desk, (&placing, before.at), verdict).await?;
        let (staged, followed) = (staged.map(|(_, after)| after), self.followed);
        Ok(Some(Judged { desk, placing, before, staged, redacted_by, followed, verdict }))
    }

    /// Whether it is the event that created the room, which comes with the oldest history.
    async fn creates(&self, desk: &Desk<'_>) -> Result<bool> {
        if *self.pdu.kind() != TimelineEventType::RoomCreate || !self.pdu.prev_events().is_empty() {
            return Ok(false);
        }
        let create = desk.current(StateEventType::RoomCreate, "").await?;
        Ok(create.is_some_and(|create| create.event_id() == self.pdu.event_id()))
    }

    async fn placing(&self, desk: &Desk<'_>, stored: Option<EventNum>) -> Result<Placing> {
        let auth = desk.nums(self.pdu.auth_events()).await?.into_iter().flatten().collect();
        let known = desk.known(self.pdu.prev_events()).await?;
        let is_followed = |known: &Option<(EventNum, EventMeta)>| {
            known.as_ref().is_some_and(|(_, meta)| meta.status == Status::Accepted)
        };
        let missing = if known.iter().all(|(_, known)| is_followed(known)) {
            Vec::new()
        } else {
            desk.without_place(self.pdu.prev_events()).await?
        };
        let placed = known.into_iter().filter_map(|(_, known)| known.filter(|(_, meta)| is_placed(meta)));
        let prev = placed.map(|(num, _)| num).collect();
        Ok(Placing { pdu: self.pdu.clone(), auth, prev, missing, stored, source: self.source })
    }

    /// By the state before the event alone.
    async fn verdict_then(&self, desk: &Desk<'_>, before: StateRef) -> Result<Verdict> {
        match self.authorized(desk, before).await? {
            Ok(_) => self.by_access(desk, &[before]).await,
            Err(reason) => Ok(Verdict::Rejected(reason)),
        }
    }

    /// `goes_on`: the event follows all that is here.
    pub(super) async fn verdict(&self, desk: &Desk<'_>, before: StateRef, goes_on: bool) -> Result<Verdict> {
        let (rules, pdu) = (desk.rules, &self.pdu);
        let held = match self.authorized(desk, before).await? {
            Ok(held) => held,
            Err(reason) => return Ok(Verdict::Rejected(reason)),
        };
        let keys: Vec<_> = state_needed(rules, pdu).unwrap_or_default();
        let mut now = desk.held(&keys).await?;
        if desk.head.partial {
            for (key, found) in
                held.0.into_iter().filter(|((kind, _), _)| *kind == StateEventType::RoomMember)
            {
                if goes_on {
                    now.0.insert(key, found);
                } else {
                    now.0.entry(key).or_insert(found);
                }
            }
        }
        if let Err(reason) = allowed_by_state(rules, pdu, |kind, key| now.get(kind, key)) {
            return Ok(Verdict::SoftFailed(reason.to_string()));
        }
        if let Some(reason) = &self.unwanted {
            return Ok(Verdict::SoftFailed(reason.clone()));
        }
        self.by_access(desk, &[before, desk.state.current()]).await
    }

    /// What authorization reads of the state before the event, if it lets it pass there and at its auth events.
    async fn authorized(&self, desk: &Desk<'_>, before: StateRef) -> Result<Result<Held, String>> {
        let (rules, pdu) = (desk.rules, &self.pdu);
        if let Err(reason) = self.allowed_by_auth_events(desk).await? {
            return Ok(Err(reason));
        }
        let keys = match state_needed(rules, pdu) {
            Ok(keys) => keys,
            Err(reason) => return Ok(Err(reason.to_string())),
        };
        let held = desk.held_at(before, &keys).await?;
        let allowed = allowed_by_state(rules, pdu, |kind, key| held.get(kind, key));
        Ok(allowed.map(|()| held).map_err(|reason| reason.to_string()))
    }

    pub(super) async fn allowed_by_auth_events(&self, desk: &Desk<'_>) -> Result<Result<(), String>> {
        let (rules, pdu) = (desk.rules, &self.pdu);
        let Some(nums) = desk.nums(&events_needed(rules, pdu)).await?.into_iter().collect::<Option<Vec<_>>>()
        else {
            return Err(Error::HostilePeer("auth events are missing".to_owned()));
        };
        let allowed = allowed_by_auth_events(rules, pdu, &desk.judged(&nums).await?);
        Ok(allowed.map_err(|reason| reason.to_string()))
    }

    async fn by_access(&self, desk: &Desk<'_>, states: &[StateRef]) -> Result<Verdict> {
        for at in states.iter().collect::<BTreeSet<_>>() {
            match desk.ask_access_of(&self.pdu, *at, self.door).await {
                Ok(()) => {}
                Err(Error::Forbidden(reason)) => return Ok(Verdict::SoftFailed(reason)),
                Err(error) => return Err(error),
            }
        }
        Ok(Verdict::Accepted)
    }
}

impl Desk<'_> {
    /// The number under which the event is stored. An error where its id, which in room versions 1 and 2 its server is
    /// free to choose, stands for another event.
    pub(super) async fn own_num(&self, pdu: &Pdu) -> Result<Option<EventNum>> {
        let taken = || Error::HostilePeer(format!("{} is the id of another event", pdu.event_id()));
        let Some(num) = self.reader.event_num(self.nid, pdu.event_id()).await? else {
            let elsewhere = self.reader.event_address(pdu.event_id()).await?;
            return if elsewhere.is_some() { Err(taken()) } else { Ok(None) };
        };
        if pdu.has_own_id(self.rules) {
            let stored = self.pdus(&[num]).await?;
            if !stored.first().is_some_and(|stored| stored.is_same(self.rules, pdu)) {
                return Err(taken());
            }
        }
        Ok(Some(num))
    }

    /// The state before an event with these previous events.
    async fn state_before(mut self, prev: &[EventNum], before: &Before) -> Result<(Self, StateBefore)> {
        match before {
            Before::Told(told) => {
                let told = self.told(told).await?;
                self.told_beside(prev, told).await
            }
            Before::Now => {
                let at = self.state.current();
                Ok((self, StateBefore { at, committed: true }))
            }
            Before::Prevs => {
                let before = self.state_of_prevs(prev).await?;
                Ok((self, before))
            }
        }
    }

    /// While memberships of the room are still being fetched, an event is taken at its word about those that are missing:
    /// they are what it names among its auth events. Where it names another than is known, which may follow from what
    /// was wrongly believed, the two are resolved like forks. Once the room is whole it is judged again.
    async fn with_claimed(mut self, before: StateBefore, pdu: &Pdu) -> Result<(Self, StateBefore)> {
        let Ok(mut needed) = state_needed(self.rules, pdu) else { return Ok((self, before)) };
        needed.retain(|(kind, _)| *kind == StateEventType::RoomMember);
        if !self.head.partial || needed.is_empty() {
            return Ok((self, before));
        }
        let held = self.held_at(before.at, &needed).await?;
        let named: Vec<EventNum> = self.nums(pdu.auth_events()).await?.into_iter().flatten().collect();
        let (mut missing, mut disputed) = (Vec::new(), Vec::new());
        for (num, judged) in named.iter().zip(self.judged(&named).await?) {
            let state = judged.pdu.state().map(|(kind, key)| (kind, key.to_owned()));
            let Some(key) = state.filter(|key| !judged.rejected && needed.contains(key)) else { continue };
            let change = StateChange { key: StateKey::new(&key.0, &key.1), num: *num };
            match held.num(&key) {
                None => missing.push(change),
                Some(known) if known != *num => disputed.push(change),
                Some(_) => {}
            }
        }
        let at = self.state.branch(&self.reader, before.at, &missing).await?;
        if disputed.is_empty() {
            return Ok((self, StateBefore { at, committed: before.committed && at == before.at }));
        }
        let claimed = self.state.branch(&self.reader, at, &disputed).await?;
        // Only what is on disk can be resolved.
        let (inner, room) = (self.inner, self.room_id.clone());
        inner.store.commit(self.seal()).await?;
        let mut desk = Desk::open(inner, &room).await?;
        let changes = desk.resolved_changes(&[at, claimed]).await?;
        let before = desk.state.branch(&desk.reader, at, &changes).await?;
        Ok((desk, StateBefore { at: before, committed: before == at }))
    }

    async fn state_of_prevs(&mut self, prev: &[EventNum]) -> Result<StateBefore> {
        let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) =
            (self.head.extremities.iter().collect(), prev.iter().collect());
        if ours == theirs {
            return Ok(StateBefore { at: self.state.current(), committed: true });
        }
        let metas = self.reader.event_metas(self.nid, prev).await?;
        let refs: BTreeSet<StateRef> = metas.iter().map(|meta| meta.after).collect();
        self.state_of(&refs.into_iter().collect::<Vec<_>>()).await
    }

    /// What committed states come to.
    pub(super) async fn state_of(&mut self, refs: &[StateRef]) -> Result<StateBefore> {
        match refs {
            [] => Err(Error::HostilePeer("an event needs previous events".to_owned())),
            [one] => Ok(StateBefore { at: *one, committed: true }),
            [first, ..] => {
                let changes = self.resolved_changes(refs).await?;
                let at = self.state.branch(&self.reader, *first, &changes).await?;
                Ok(StateBefore { at, committed: at == *first })
            }
        }
    }

    /// A state that was told, as a branch of the current one.
    async fn told(&mut self, told: &Told) -> Result<StateBefore> {
        let base = self.state.current();
        let changes = self.changes_to(&told.events).await?;
        if let Some(by) = &told.by {
            let per_hour = self.inner.config().told_changes_per_hour;
            self.inner.tellers.spend(by, changes.len(), (per_hour, self.inner.world.now()));
        }
        if changes.iter().any(|change| change.key.event_type() == "m.room.create") {
            return Err(Error::HostilePeer("the state told is of another room".to_owned()));
        }
        let at = self.state.branch(&self.reader, base, &changes).await?;
        Ok(StateBefore { at, committed: at == base })
    }

    /// What makes the current state the one given as a list of events. O(state).
    pub(crate) async fn changes_to(&self, state: &[EventNum]) -> Result<Vec<StateChange>> {
        let mut wanted = std::collections::BTreeMap::new();
        for (num, judged) in state.iter().zip(self.judged(state).await?) {
            if let Some((kind, key)) = judged.pdu.state().filter(|_| !judged.rejected) {
                wanted.insert(StateKey::new(kind, key), *num);
            }
        }
        let mut changes = Vec::new();
        for (key, num) in self.reader.current_state(self.nid).await? {
            match wanted.remove(&key) {
                Some(new) if new == num => {}
                Some(new) => changes.push(StateChange { key, num: new }),
                None => changes.push(StateChange { key, num: EventNum::NONE }),
            }
        }
        changes.extend(wanted.into_iter().map(|(key, num)| StateChange { key, num }));
        Ok(changes)
    }
}
