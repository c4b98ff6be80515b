//! The naive reference: every event that any server has, one state map per event copied whole, resolved by the book.

use std::collections::{BTreeMap, BTreeSet};

use chappe_kv::Db;
use chappe_rules::{
    Pdu,
    auth::{allowed_by_auth_events, allowed_by_state, events_needed},
    pdu::Judged,
    resolve::{StateMap, resolve_naively},
    version,
};
use chappe_store::{EventNum, Reader, RoomNid, StateRef, Status, Store};
use ruma::{OwnedEventId, RoomId, room_version_rules::RoomVersionRules};

/// An event as one server has it.
pub(crate) struct Had {
    pub(crate) pdu: Pdu,
    pub(crate) status: Status,
    /// The states around it; `None` where the server does not know them.
    pub(crate) states: Option<(StateMap, StateMap)>,
}

/// A room as it is on one server's disk.
pub(crate) struct Copy {
    pub(crate) rules: &'static RoomVersionRules,
    pub(crate) events: BTreeMap<OwnedEventId, Had>,
    pub(crate) heads: BTreeSet<OwnedEventId>,
    pub(crate) current: StateMap,
}

impl Copy {
    pub(crate) async fn read(disk: &Db, room: &RoomId) -> Self {
        let store = Store::open(disk.clone()).await.expect("a store");
        let reader = store.read();
        let nid = reader.room_nid(room).await.expect("a read").expect("the room");
        let head = reader.room_head(nid).await.expect("a head");
        let rules = version::rules(&head.version).expect("a known version");
        let nums: Vec<EventNum> = (1..head.next_event).map(EventNum).collect();
        let mut events = BTreeMap::new();
        let all = reader.events(nid, &nums).await.expect("all events");
        for (num, (meta, stored)) in nums.iter().zip(all) {
            assert!(meta.auth.iter().all(|auth| auth < num), "{num:?} was stored before what it rests on");
            let pdu = Pdu::restore(rules, stored.event_id.clone(), &stored.json).expect("an event");
            let is_known = meta.after != StateRef::EMPTY;
            let states = if is_known {
                Some((state(&reader, nid, meta.before).await, state(&reader, nid, meta.after).await))
            } else {
                None
            };
            events.insert(stored.event_id.clone(), Had { pdu, status: meta.status, states });
        }
        let heads = reader.pdus(nid, &head.extremities).await.expect("the heads");
        let heads = heads.iter().map(|stored| stored.event_id.clone()).collect();
        let current = state(&reader, nid, head.state).await;
        Self { rules, events, heads, current }
    }
}

async fn state(reader: &Reader<'_>, nid: RoomNid, at: StateRef) -> StateMap {
    let full = reader.full_state(nid, at).await.expect("a state");
    let nums: Vec<EventNum> = full.iter().map(|(_, num)| *num).collect();
    let pdus = reader.pdus(nid, &nums).await.expect("state events");
    let key = |key: &chappe_store::state::StateKey| (key.event_type().into(), key.state_key.clone());
    full.iter().zip(pdus).map(|((name, _), pdu)| (key(name), pdu.event_id.clone())).collect()
}

/// What the specification makes of an event.
pub(crate) struct Verdict {
    pub(crate) judged: Judged,
    pub(crate) before: StateMap,
    pub(crate) after: StateMap,
}

/// How much happened.
#[derive(Debug, Default)]
pub(crate) struct Size {
    seeds: usize,
    events: usize,
    state_events: usize,
    /// Events whose previous events had different states.
    merges: usize,
    rejected: usize,
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.state_events += other.state_events;
        self.merges += other.merges;
        self.rejected += other.rejected;
    }
}

/// The room as it is by the book.
pub(crate) struct Reference {
    rules: &'static RoomVersionRules,
    pub(crate) verdicts: BTreeMap<OwnedEventId, Verdict>,
}

impl Reference {
    pub(crate) fn of(copies: &[Copy]) -> Self {
        let rules = copies[0].rules;
        let mut left: BTreeMap<OwnedEventId, Pdu> = BTreeMap::new();
        for copy in copies {
            left.extend(copy.events.iter().map(|(id, had)| (id.clone(), had.pdu.clone())));
        }
        let mut reference = Self { rules, verdicts: BTreeMap::new() };
        while !left.is_empty() {
            let known = &reference.verdicts;
            let ready: Vec<OwnedEventId> = left
                .iter()
                .filter(|(_, pdu)| {
                    pdu.prev_events().iter().all(|id| known.contains_key(id))
                        && events_needed(rules, pdu).iter().all(|id| known.contains_key(id))
                })
                .map(|(id, _)| id.clone())
                .collect();
            assert!(!ready.is_empty(), "events that rest on nothing: {:?}", left.keys().collect::<Vec<_>>());
            for id in ready {
                let pdu = left.remove(&id).expect("one of those left");
                let verdict = reference.judge(pdu);
                reference.verdicts.insert(id, verdict);
            }
        }
        reference
    }

    fn judge(&self, pdu: Pdu) -> Verdict {
        let before = self.resolve(pdu.prev_events());
        let known: Vec<Judged> =
            events_needed(self.rules, &pdu).iter().map(|id| self.verdicts[id].judged.clone()).collect();
        let held = |kind: &ruma::events::StateEventType, key: &str| {
            let id = before.get(&(kind.clone(), key.to_owned()))?;
            Some(self.verdicts[id].judged.pdu.clone())
        };
        let rejected = allowed_by_auth_events(self.rules, &pdu, &known).is_err()
            || allowed_by_state(self.rules, &pdu, held).is_err();
        let mut after = before.clone();
        if let Some((kind, key)) = pdu.state().filter(|_| !rejected) {
            after.insert((kind, key.to_owned()), pdu.event_id().to_owned());
        }
        Verdict { judged: Judged { pdu, rejected }, before, after }
    }

    /// The state of several events together.
    fn resolve<'a>(&self, events: impl IntoIterator<Item = &'a OwnedEventId>) -> StateMap {
        let states: BTreeSet<StateMap> =
            events.into_iter().map(|id| self.verdicts[id].after.clone()).collect();
        let states: Vec<StateMap> = states.into_iter().collect();
        match states.as_slice() {
            [] => StateMap::new(),
            [one] => one.clone(),
            _ => resolve_naively(self.rules, &states, |id| Some(self.verdicts.get(id)?.judged.clone()))
                .expect("a resolution"),
        }
    }

    pub(crate) fn size(&self) -> Size {
        let mut size = Size { seeds: 1, ..Size::default() };
        for Verdict { judged, .. } in self.verdicts.values() {
            let after: BTreeSet<_> =
                judged.pdu.prev_events().iter().map(|id| &self.verdicts[id].after).collect();
            size.events += 1;
            size.state_events += usize::from(judged.pdu.state().is_some());
            size.merges += usize::from(after.len() > 1);
            size.rejected += usize::from(judged.rejected);
        }
        size
    }

    /// Where a server's copy is not what the book says, in the order of the events.
    pub(crate) fn differences(&self, name: &str, copy: &Copy) -> Vec<String> {
        let mut found = Vec::new();
        let mut order: Vec<&Had> = copy.events.values().collect();
        order.sort_by_key(|had| had.pdu.depth());
        for had in order {
            let id = had.pdu.event_id();
            let book = &self.verdicts[id];
            let what = format!(
                "{name}: {id} depth {} {} {:?} by {} ({:?}, book rejected {}) prev {:?}",
                had.pdu.depth(),
                had.pdu.kind(),
                had.pdu.state_key(),
                had.pdu.sender(),
                had.status,
                book.judged.rejected,
                had.pdu.prev_events()
            );
            if let Some((before, after)) = &had.states {
                if *before != book.before {
                    found.push(format!("{what}: before: {}", diff(before, &book.before)));
                } else if *after != book.after {
                    found.push(format!("{what}: after: {}", diff(after, &book.after)));
                }
            }
            if had.states.is_some() && (had.status == Status::Rejected) != book.judged.rejected {
                found.push(format!("{what}: verdict"));
            }
        }
        let current = self.resolve(&copy.heads);
        if current != copy.current {
            found.push(format!("{name}: current: {}", diff(&copy.current, &current)));
        }
        found
    }
}

/// What one state has and another has not.
pub(crate) fn diff(here: &StateMap, book: &StateMap) -> String {
    let keys: BTreeSet<_> = here.keys().chain(book.keys()).collect();
    let differing = keys.into_iter().filter(|key| here.get(*key) != book.get(*key));
    differing
        .map(|key| format!("{key:?}: here {:?}, book {:?}", here.get(key), book.get(key)))
        .collect::<Vec<_>>()
        .join("; ")
}
