//! Complete → Judged: at its auth events, at the state before it, at the current state, and by the access policy.

use std::collections::BTreeSet;

use chappe_rules::{
    Pdu,
    auth::{allowed_by_auth_events, allowed_by_state, events_needed, state_needed},
    check,
    policy_server::judges,
};
use chappe_store::{EventMeta, EventNum, StateChange, StateRef, Status, state::StateKey};
use ruma::{
    OwnedEventId,
    events::{StateEventType, TimelineEventType},
};

use super::{Before, Complete, Payer, told::Told};
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

/// What an event that is news follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// All that is here.
    All,
    /// Some of it.
    Some,
    /// Something that has no place here: more has happened in the room than is known here.
    Gap,
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
        if let Some(whole) = self.as_stored(&desk, stored).await? {
            return Box::pin(whole.judge(desk, by)).await;
        }
        let redacted_by = meta.as_ref().map_or(EventNum::NONE, |meta| meta.redacted_by);
        let mut placing = self.placing(&desk, stored).await?;
        desk.charged = self.payer(&desk, &placing.prev).await?;
        let is_whole = placing.prev.len() == self.pdu.prev_events().len();
        // What was told while previous events were missing is worth nothing once they are here.
        let still_counts = |meta: &EventMeta| !is_whole || meta.prev.len() == placing.prev.len();
        let staged = meta.filter(|meta| meta.after != StateRef::EMPTY && still_counts(meta));
        let staged = staged.map(|meta| (meta.before, meta.after));
        let mut before = match staged {
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
        if by == By::ThenAndNow {
            // What it costs to find out whether somebody wants it, and to bring its state and the current one together.
            desk.charged.clone_from(&self.charged);
        }
        let follows_all = desk.head.extremities.iter().all(|head| placing.prev.contains(head));
        let follows = if follows_all && self.before == Before::Prevs { Follows::All } else { Follows::Some };
        let mut verdict = match by {
            By::Then => self.verdict_then(&desk, before.at).await?,
            By::ThenAndNow => self.verdict(&desk, before.at, follows).await?,
        };
        // Who came meanwhile is no member yet as far as is known here.
        let is_unsure = by == By::ThenAndNow && !placing.missing.is_empty() && !desk.head.partial;
        let is_unsure = is_unsure && self.unwanted.is_none();
        if is_unsure && matches!(verdict, Verdict::SoftFailed(_)) && before.at != desk.state.current() {
            (desk, before) = desk.on_disk(before).await?;
            verdict = self.verdict(&desk, before.at, Follows::Gap).await?;
        }
        let verdict = self.unless_told(&desk, &placing, verdict).await?;
        if by == By::ThenAndNow {
            placing.missing = desk.not_missed_before(placing.missing).await?;
        }
        let (staged, followed) = (staged.map(|(_, after)| after), self.followed);
        Ok(Some(Judged { desk, placing, before, staged, redacted_by, followed, verdict }))
    }

    /// The same with what is stored of it, if it came without what it says and is stored with that, as it gets its place with that.
    async fn as_stored(&self, desk: &Desk<'_>, stored: Option<EventNum>) -> Result<Option<Self>> {
        let Some(num) = stored.filter(|_| !check::is_intact(&self.pdu)) else { return Ok(None) };
        let Some(pdu) = desk.pdus(&[num]).await?.pop().filter(check::is_intact) else { return Ok(None) };
        let by = self.policy_server.as_ref().filter(|_| judges(pdu.kind(), pdu.state_key()));
        let is_unseen = by.is_some_and(|by| !by.has_signed(desk.rules, &pdu));
        let unseen = is_unseen.then(|| "the policy server has not seen what it says".to_owned());
        Ok(Some(Self { unwanted: self.unwanted.clone().or(unseen), pdu, ..self.clone() }))
    }

    /// Against whom large resolutions count that it takes to know the state before it: whoever gives it, as nothing else asks for
    /// these. A state that was told has been counted as such: with it they count if a previous event that is here has the state
    /// of an old fork.
    async fn payer(&self, desk: &Desk<'_>, prev: &[EventNum]) -> Result<Option<Payer>> {
        let Before::Told(told) = &self.before else { return Ok(self.charged.clone()) };
        if told.by.is_some() {
            for meta in desk.reader.event_metas(desk.nid, prev).await? {
                if desk.is_far(meta.after).await? {
                    return Ok(told.by.clone());
                }
            }
        }
        Ok(None)
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

    /// By the state before the event, which is on disk if the event follows a gap, and by what the room is like now.
    pub(super) async fn verdict(
        &self,
        desk: &Desk<'_>,
        before: StateRef,
        follows: Follows,
    ) -> Result<Verdict> {
        let (rules, pdu) = (desk.rules, &self.pdu);
        let held = match self.authorized(desk, before).await? {
            Ok(held) => held,
            Err(reason) => return Ok(Verdict::Rejected(reason)),
        };
        let keys: Vec<_> = state_needed(rules, pdu).unwrap_or_default();
        let mut now = match follows {
            Follows::Gap => desk.held_beside(before, &keys).await?,
            Follows::All | Follows::Some => desk.held(&keys).await?,
        };
        if desk.head.partial {
            for (key, found) in
                held.0.into_iter().filter(|((kind, _), _)| *kind == StateEventType::RoomMember)
            {
                if follows == Follows::All {
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
        let allowed = allowed_by_auth_events(rules, pdu, &desk.judged_as_left(&nums).await?);
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

    /// Those of some missing events that nothing in the timeline is known to lack: the others come where they were missed
    /// first, as what was before a join comes before that and not before what was said beside it.
    async fn not_missed_before(&self, missing: Vec<OwnedEventId>) -> Result<Vec<OwnedEventId>> {
        let mut new = Vec::with_capacity(missing.len());
        for event in missing {
            if !self.is_followed(&event).await? {
                new.push(event);
            }
        }
        Ok(new)
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
            Before::Prevs | Before::Stored => {
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
        let (inner, room, charged) = (self.inner, self.room_id.clone(), self.charged.clone());
        inner.store.commit(self.seal()).await?;
        let mut desk = Desk::open(inner, &room).await?;
        desk.charged = charged;
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
    pub(super) async fn told(&mut self, told: &Told) -> Result<StateBefore> {
        let base = self.state.current();
        let changes = self.changes_to(&told.events).await?;
        if let Some(by) = &told.by {
            let per_hour = self.inner.config().told_changes_per_hour;
            self.inner.tellers.spend(by, changes.len(), (per_hour, self.inner.world.instant()));
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

#[cfg(test)]
mod tests {
    use ruma::owned_server_name;
    use serde_json::json;

    use super::{Before, Complete, Payer, Told};
    use crate::{
        desk::{Desk, Source},
        receive::Purse,
        testing::{Town, actor},
    };

    #[tokio::test]
    async fn who_tells_a_state_pays_for_what_it_is_told_beside_if_that_is_an_old_fork() {
        let (town, alice) = (Town::new(), actor("alice"));
        let room = town.room(&alice, json!({ "preset": "public_chat" })).await;
        let rooms = &town.rooms.0;
        let old = Desk::open(rooms, &room).await.unwrap().head.extremities.clone();
        for n in 0..1_000 {
            town.set(&alice, &room, "x.test", &n.to_string(), json!({})).await;
        }
        let desk = Desk::open(rooms, &room).await.unwrap();
        let pdu = desk.pdus(&old).await.unwrap().remove(0);
        let by = Payer { server: owned_server_name!("h.example"), purse: Purse::News };
        let told = Told { events: Vec::new(), by: Some(by.clone()) };
        let complete = Complete::alone(pdu, desk.rules, Source::Elsewhere, Before::Told(told));
        for (prev, payer) in [(&old, Some(by)), (&desk.head.extremities, None)] {
            assert_eq!(complete.payer(&desk, prev).await.unwrap(), payer);
        }
    }
}
