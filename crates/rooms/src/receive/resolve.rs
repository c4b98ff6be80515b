//! One state out of several: only what conflicts is looked at.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
};

use chappe_rules::{
    pdu::Judged,
    resolve::{Conflict, StateMap, relevant_keys, resolve},
};
use chappe_store::{Conflicted, EventNum, KeyChange, KeyId, RoomNid, StateChange, StateRef, state::StateKey};
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use ruma::{EventId, OwnedEventId, events::TimelineEventType};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Payer;
use crate::{
    Error, Result,
    desk::{Desk, rule_key, store_key},
};

/// Changes of a resolution that is remembered with a thousand others, at most.
const REMEMBERED: usize = 30;
/// Bytes of those with more that are remembered, all together.
const REMEMBERED_OF_LARGE: usize = 32 << 20;
/// Bytes that a change takes beside its type and key, about.
const BESIDE: usize = 32 + size_of::<StateChange>();
/// Events in conflict from which on a resolution is a large one.
const LARGE: usize = 1_000;

/// The events that have to be looked at where states differ.
struct FullConflict {
    auth_difference: RoaringBitmap,
    subgraph: RoaringBitmap,
    /// Those, and what the states have on the keys that differ.
    all: Vec<EventNum>,
}

/// Committed versions of a room's state that are to be one.
type Asked = (RoomNid, Vec<StateRef>);

/// Large resolutions: half the cores work at them, and what the last ones came to is kept.
pub(crate) struct Resolutions {
    places: Arc<Semaphore>,
    /// The newest last.
    known: Mutex<VecDeque<Known>>,
}

/// What a large resolution came to, and the bytes of that.
struct Known {
    asked: Asked,
    changes: Arc<Vec<StateChange>>,
    size: usize,
}

impl Known {
    fn new(asked: Asked, changes: Arc<Vec<StateChange>>) -> Self {
        let texts = |key: &StateKey| key.event_type().len() + key.state_key.len();
        let size = changes.iter().map(|change| BESIDE + texts(&change.key)).sum();
        Self { asked, changes, size }
    }
}

impl Default for Resolutions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { places: Arc::new(Semaphore::new((cores / 2).max(1))), known: Mutex::default() }
    }
}

impl Resolutions {
    fn get(&self, asked: &Asked) -> Option<Arc<Vec<StateChange>>> {
        let known = self.known.lock();
        known.iter().find(|known| known.asked == *asked).map(|known| Arc::clone(&known.changes))
    }

    /// Forgets what those of a room came to.
    pub(super) fn forget(&self, nid: RoomNid) {
        self.known.lock().retain(|known| known.asked.0 != nid);
    }

    /// A place to work at one; none are taken away.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    fn keep(&self, asked: Asked, changes: Arc<Vec<StateChange>>) {
        let newest = Known::new(asked, changes);
        let mut known = self.known.lock();
        known.push_back(newest);
        let mut all: usize = known.iter().map(|known| known.size).sum();
        while all > REMEMBERED_OF_LARGE
            && let Some(oldest) = known.pop_front()
        {
            all -= oldest.size;
        }
    }
}

impl Desk<'_> {
    /// What makes the current state the resolution of committed states.
    pub(super) async fn changes_to_states(&self, refs: &[StateRef]) -> Result<Vec<StateChange>> {
        self.changes_by(None, refs).await
    }

    /// The same for an event with the state `after` it: the other states are those of heads, which came of other events.
    pub(super) async fn changes_beside_heads(
        &self,
        after: StateRef,
        refs: &[StateRef],
    ) -> Result<Vec<StateChange>> {
        self.changes_by(Some(after), refs).await
    }

    async fn changes_by(&self, own: Option<StateRef>, refs: &[StateRef]) -> Result<Vec<StateChange>> {
        let Some(first) = refs.first() else { return Ok(Vec::new()) };
        let diff = self.reader.state_diff(self.nid, self.state.current(), *first).await?;
        let ids: Vec<KeyId> = diff.iter().map(|change| change.key).collect();
        let keys = self.reader.state_keys(self.nid, &ids).await?;
        let change = |(key, KeyChange { old, new, .. })| (key, (Some(old), new));
        let mut target: BTreeMap<StateKey, (Option<EventNum>, EventNum)> =
            keys.into_iter().zip(diff).map(change).collect();
        for change in self.resolved_by(own, refs).await? {
            // Where the first state is like the current one, another value is a change.
            target.entry(change.key).or_insert((None, change.num)).1 = change.num;
        }
        let changed = target.into_iter().filter(|(_, (old, new))| *old != Some(*new));
        Ok(changed.map(|(key, (_, num))| StateChange { key, num }).collect())
    }

    /// What makes the first of several committed states their resolution. Remembered: while a room has the same heads, each
    /// message that comes on one of them asks again.
    pub(super) async fn resolved_changes(&self, refs: &[StateRef]) -> Result<Vec<StateChange>> {
        self.resolved_by(None, refs).await
    }

    /// The same, where it may be only one of the states that the event which asks has to answer for.
    async fn resolved_by(&self, own: Option<StateRef>, refs: &[StateRef]) -> Result<Vec<StateChange>> {
        // Until the members of a room are known, what was rejected may yet be allowed.
        if refs.len() < 2 || self.head.partial {
            return self.resolve_changes(own, refs).await;
        }
        let asked: Asked = (self.nid, refs.to_vec());
        let (few, many) = (&self.inner.resolved, &self.inner.resolutions);
        if let Some(known) = few.get(&asked).or_else(|| many.get(&asked)) {
            return Ok(known.to_vec());
        }
        let changes = Arc::new(self.resolve_changes(own, refs).await?);
        if changes.len() <= REMEMBERED {
            few.insert(asked, Arc::clone(&changes));
        } else {
            many.keep(asked, Arc::clone(&changes));
        }
        Ok(changes.to_vec())
    }

    async fn resolve_changes(&self, own: Option<StateRef>, refs: &[StateRef]) -> Result<Vec<StateChange>> {
        let conflicted = self.reader.conflicted(self.nid, refs).await?;
        if conflicted.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<KeyId> = conflicted.keys().copied().collect();
        let keys = self.reader.state_keys(self.nid, &ids).await?;
        let mut resolved = self.resolve(own, refs, &keys, &conflicted).await?;
        let mut changes = Vec::new();
        for (key, values) in keys.into_iter().zip(conflicted.values()) {
            let num = resolved.remove(&key).unwrap_or(EventNum::NONE);
            if values.first() != Some(&num) {
                changes.push(StateChange { key, num });
            }
        }
        changes.extend(self.brought_back(refs, resolved).await?);
        Ok(changes)
    }

    /// What of a resolution is where none of the states has anything: an event that conflicting ones rest on was allowed.
    async fn brought_back(
        &self,
        refs: &[StateRef],
        resolved: BTreeMap<StateKey, EventNum>,
    ) -> Result<Vec<StateChange>> {
        let is_unknown = |key: &StateKey| !self.knows_members && key.event_type() == "m.room.member";
        let (keys, nums): (Vec<StateKey>, Vec<EventNum>) =
            resolved.into_iter().filter(|(key, _)| !is_unknown(key)).unzip();
        // On keys that are not conflicted all states agree.
        let first = refs.first().copied().unwrap_or(StateRef::EMPTY);
        let held = self.reader.state_at(self.nid, first, &keys).await?;
        let found = keys.into_iter().zip(nums).zip(held).filter(|(_, held)| held.is_none());
        Ok(found.map(|((key, num), _)| StateChange { key, num }).collect())
    }

    async fn resolve(
        &self,
        own: Option<StateRef>,
        refs: &[StateRef],
        keys: &[StateKey],
        conflicted: &Conflicted,
    ) -> Result<BTreeMap<StateKey, EventNum>> {
        let first = refs.first().copied().unwrap_or(StateRef::EMPTY);
        let FullConflict { auth_difference, subgraph, all } = self.full_conflict(first, conflicted).await?;
        let is_large = all.len() >= LARGE;
        if is_large {
            let is_own = match own {
                Some(own) if self.charged.is_some() => self.is_far(own).await?,
                _ => true,
            };
            self.charge(self.charged.as_ref().filter(|_| is_own), all.len())?;
        }
        // Before the events are read: they are many.
        let place = if is_large { self.inner.resolutions.place().await } else { None };
        let mut known = self.with_support(&all).await?;
        let pdus: Vec<_> = known.values().map(|(_, judged)| judged.pdu.clone()).collect();
        let states = self.reduced_states(refs, keys, conflicted, &pdus, &mut known).await?;
        let ids = |nums: &RoaringBitmap| {
            let wanted: BTreeSet<EventNum> = nums.iter().map(EventNum).collect();
            let named = known.iter().filter(|(_, (num, _))| wanted.contains(num));
            named.map(|(id, _)| id.clone()).collect::<BTreeSet<OwnedEventId>>()
        };
        let conflict = Conflict { states, auth_difference: ids(&auth_difference), subgraph: ids(&subgraph) };
        let rules = self.rules;
        let work_out = move || -> Result<BTreeMap<StateKey, EventNum>> {
            let fetch = |id: &EventId| known.get(id).map(|(_, judged)| judged.clone());
            let resolved =
                resolve(rules, &conflict, fetch).map_err(|error| Error::HostilePeer(error.to_string()))?;
            let num = |(key, id): (chappe_rules::auth::StateKey, OwnedEventId)| {
                Some((store_key(&key), known.get(&id)?.0))
            };
            Ok(resolved.into_iter().filter_map(num).collect())
        };
        if !is_large {
            return work_out();
        }
        // Whoever waits for it may be gone before it is done.
        let work_out = move || {
            let resolved = catch_unwind(AssertUnwindSafe(work_out));
            drop(place);
            resolved
        };
        match self.inner.world.spawn_blocking(work_out).await {
            Ok(Ok(resolved)) => resolved,
            // It would break down each time: whoever waits for it is not to try again.
            Ok(Err(defect)) => resume_unwind(defect),
            Err(_) => Err(Error::Retry),
        }
    }

    /// The events that resolving `first` and other states looks at, which differ in `conflicted`.
    async fn full_conflict(&self, first: StateRef, conflicted: &Conflicted) -> Result<FullConflict> {
        let auth_difference = self.reader.auth_difference(self.nid, first, conflicted).await?;
        let in_conflict =
            conflicted.values().flatten().filter_map(|num| num.some()).map(|num| num.0).collect();
        let wants_subgraph =
            self.rules.state_res.v2_rules().is_some_and(|rules| rules.consider_conflicted_state_subgraph);
        let subgraph = if wants_subgraph {
            self.reader.conflicted_subgraph(self.nid, &in_conflict).await?
        } else {
            RoaringBitmap::new()
        };
        let all = (&(&in_conflict | &auth_difference) | &subgraph).iter().map(EventNum).collect();
        Ok(FullConflict { auth_difference, subgraph, all })
    }

    /// Whether a state is that of an old fork: to bring it and the current one together would be a large resolution by itself.
    /// When the event came that has it, whether it was wanted, and what it rests on itself does not matter.
    pub(super) async fn is_far(&self, state: StateRef) -> Result<bool> {
        let now = self.state.current();
        let conflicted = self.reader.conflicted(self.nid, &[now, state]).await?;
        Ok(self.full_conflict(now, &conflicted).await?.all.len() >= LARGE)
    }

    /// Counts the events of a large resolution against whose event asks for it, as what states that are told change: whoever has
    /// used that up has its event wait. If it is nobody's fault, as where an old fork is one of the heads, each further state event
    /// asks for one as well: the heads are brought together.
    fn charge(&self, by: Option<&Payer>, events: usize) -> Result<()> {
        let now = self.inner.world.instant();
        let Some(by) = by else {
            let heads = self.head.extremities.len();
            if heads > 1 {
                self.inner.crowded.add(&self.room_id, (heads, 1), (now, self.inner.world.random()));
            }
            return Ok(());
        };
        if self.inner.tellers.is_spent(by, now) {
            return Err(Error::Unreachable);
        }
        self.inner.tellers.spend(by, events, (self.inner.config().told_changes_per_hour, now));
        Ok(())
    }

    /// Events with what resolving reads of their past, by id: what they name, and the power levels before those, back to the
    /// first. Not all of their auth chains, which a member makes as long as it likes.
    async fn with_support(&self, nums: &[EventNum]) -> Result<HashMap<OwnedEventId, (EventNum, Judged)>> {
        let mut known = HashMap::new();
        let mut seen: RoaringBitmap = nums.iter().map(|num| num.0).collect();
        let (mut now, mut first) = (nums.to_vec(), true);
        while !now.is_empty() {
            let auth = self.reader.auth_events(self.nid, &now).await?;
            let judged = self.judged(&now).await?;
            let mut next = Vec::new();
            for ((num, judged), auth) in now.into_iter().zip(judged).zip(auth) {
                if first || *judged.pdu.kind() == TimelineEventType::RoomPowerLevels {
                    next.extend(auth.iter().copied().filter(|auth| seen.insert(auth.0)));
                }
                known.insert(judged.pdu.event_id().to_owned(), (num, judged));
            }
            (now, first) = (next, false);
        }
        Ok(known)
    }

    /// The states reduced to the conflicted keys and those that authorization reads.
    async fn reduced_states(
        &self,
        refs: &[StateRef],
        keys: &[StateKey],
        conflicted: &Conflicted,
        pdus: &[chappe_rules::Pdu],
        known: &mut HashMap<OwnedEventId, (EventNum, Judged)>,
    ) -> Result<Vec<StateMap>> {
        let in_conflict: BTreeSet<_> = keys.iter().map(rule_key).collect();
        let relevant: Vec<_> =
            relevant_keys(self.rules, pdus).into_iter().filter(|key| !in_conflict.contains(key)).collect();
        let first = refs.first().copied().unwrap_or(StateRef::EMPTY);
        let held = self.held_at(first, &relevant).await?;
        let common: Vec<EventNum> = held.0.values().map(|(num, _)| *num).collect();
        known.extend(self.with_support(&common).await?);
        let names: HashMap<EventNum, OwnedEventId> =
            known.iter().map(|(id, (num, _))| (*num, id.clone())).collect();
        let mut states = Vec::with_capacity(refs.len());
        for i in 0..refs.len() {
            let mut state: StateMap =
                held.0.iter().map(|(key, (_, pdu))| (key.clone(), pdu.event_id().to_owned())).collect();
            for (key, values) in keys.iter().zip(conflicted.values()) {
                if let Some(id) = values.get(i).and_then(|num| names.get(num)) {
                    state.insert(rule_key(key), id.clone());
                }
            }
            states.push(state);
        }
        Ok(states)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use chappe_store::{EventNum, RoomNid, StateChange, state::StateKey};
    use ruma::{events::StateEventType, owned_server_name};
    use serde_json::json;

    use super::{BESIDE, Desk, LARGE, REMEMBERED_OF_LARGE, Resolutions};
    use crate::{
        Config, Error,
        receive::{Payer, Purse},
        testing::{Town, actor},
    };

    #[test]
    fn of_large_resolutions_the_last_are_kept() {
        let keys_of = |letters: usize| {
            let resolutions = Resolutions::default();
            let key = StateKey::new("x.test", "k".repeat(letters));
            let change = StateChange { key, num: EventNum(1) };
            let keep = |room: u32, count: usize| {
                resolutions.keep((RoomNid(room), Vec::new()), Arc::new(vec![change.clone(); count]));
            };
            keep(1, 31);
            keep(2, REMEMBERED_OF_LARGE / (BESIDE + 6 + letters) - 31);
            keep(3, 31);
            [1, 2, 3].map(|room| resolutions.get(&(RoomNid(room), Vec::new())).is_some())
        };
        assert_eq!(keys_of(250), [false, true, true]);
        assert_eq!(keys_of(10_000), [false, true, true], "few changes, but as many bytes");
    }

    #[tokio::test]
    async fn a_large_resolution_counts_once_against_who_asks_for_it() {
        let (town, alice) = (Town::new(), actor("alice"));
        let room = town.room(&alice, json!({ "preset": "public_chat" })).await;
        let by = Payer { server: owned_server_name!("h.example"), purse: Purse::News };
        let rooms = &town.rooms.0;
        let base = Desk::open(rooms, &room).await.unwrap().head.state;
        for n in 0..LARGE {
            town.set(&alice, &room, "x.test", &n.to_string(), json!({})).await;
        }
        let mut desk = Desk::open(rooms, &room).await.unwrap();
        let now = desk.head.state;
        desk.charged = Some(by.clone());
        assert_eq!(desk.resolved_changes(&[base, now]).await.unwrap().len(), LARGE);
        rooms.tellers.spend(&by, 3, (1, rooms.world.instant()));
        assert_eq!(desk.resolved_changes(&[base, now]).await.unwrap().len(), LARGE, "it is known");
        assert!(matches!(desk.resolved_changes(&[now, base]).await, Err(Error::Unreachable)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_is_set_back_has_nobody_wait_for_longer() {
        let (town, alice) = (Town::new(), actor("alice"));
        let room = town.room(&alice, json!({})).await;
        town.rooms.reconfigure(Config { told_changes_per_hour: 1, ..Config::default() });
        let rooms = &town.rooms.0;
        let desk = Desk::open(rooms, &room).await.unwrap();
        let by = Payer { server: owned_server_name!("h.example"), purse: Purse::News };
        rooms.world.set_clock_ahead(Duration::from_hours(24));
        desk.charge(Some(&by), 3).unwrap();
        rooms.world.set_clock_ahead(Duration::ZERO);
        assert!(matches!(desk.charge(Some(&by), 1), Err(Error::Unreachable)));
        tokio::time::advance(Duration::from_hours(3)).await;
        desk.charge(Some(&by), 1).unwrap();
    }

    #[tokio::test]
    async fn a_member_with_a_long_past_costs_no_more_than_others() {
        let (town, alice) = (Town::new(), actor("alice"));
        let room = town.room(&alice, json!({ "preset": "public_chat" })).await;
        for n in 0..300 {
            let named = json!({ "membership": "join", "displayname": n.to_string() });
            town.set(&alice, &room, "m.room.member", alice.user.as_str(), named).await;
        }
        let view = town.rooms.view(&room).await.unwrap();
        let member = view.current(StateEventType::RoomMember, alice.user.as_str()).await.unwrap().unwrap();
        let desk = Desk::open(&town.rooms.0, &room).await.unwrap();
        let nums = desk.nums(&[member.pdu.event_id().to_owned()]).await.unwrap();
        let nums: Vec<_> = nums.into_iter().flatten().collect();
        assert!(desk.reader.auth_chain(desk.nid, &nums).await.unwrap().len() >= 300);
        let known = desk.with_support(&nums).await.unwrap();
        assert!(known.len() < 10, "{} events are read", known.len());
    }
}
