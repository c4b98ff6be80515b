//! The multi-version state against the naive model: a full copy of the state for every version.

use std::{collections::BTreeMap, sync::Arc};

use chappe_kv::{Counting, Db, Memory, RoundTrips};
use proptest::prelude::*;
use ruma::RoomVersionId;

use super::{KeyCourse, StateChange, StateKey, StateRef, StateWriter};
use crate::{EventNum, KeyId, Reader, RoomHead, RoomNid, Store, Tx, log::Meta};

const NID: RoomNid = RoomNid(1);

type Copy = BTreeMap<StateKey, EventNum>;

fn key(number: u8) -> StateKey {
    let kind = ["m.room.member", "m.room.topic", "org.example.other"][usize::from(number % 3)];
    StateKey::new(kind, format!("@user{}:example.org", number / 3))
}

async fn empty_room(db: Db) -> Store {
    let store = Store::open(db).await.unwrap();
    let mut tx = Tx::new();
    tx.first_head(NID, &RoomHead::new(RoomVersionId::V11));
    store.commit(tx).await.unwrap();
    store
}

/// One step: which known version to build on (the newest main one for `None`), what to change.
#[derive(Clone, Debug)]
struct Step {
    base: Option<prop::sample::Index>,
    changes: Vec<(u8, u32)>,
}

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let base = prop_oneof![2 => Just(None), 3 => any::<prop::sample::Index>().prop_map(Some)];
    let change = (0u8..12, prop_oneof![1 => Just(0u32), 5 => 1u32..1000]);
    let step = (base, prop::collection::vec(change, 0..4)).prop_map(|(base, changes)| Step { base, changes });
    prop::collection::vec(prop::collection::vec(step, 1..5), 1..14)
}

/// Every version made so far with its full copy.
struct Model {
    versions: Vec<(StateRef, Copy)>,
    current: usize,
}

impl Model {
    async fn apply(&mut self, reader: &Reader<'_>, writer: &mut StateWriter, step: &Step, latest: bool) {
        let changes: Vec<StateChange> =
            step.changes.iter().map(|(k, num)| StateChange { key: key(*k), num: EventNum(*num) }).collect();
        // The tip of the newest branch is what a forked server keeps building on.
        let base = match step.base {
            None => self.current,
            Some(_) if latest => self.versions.len() - 1,
            Some(index) => index.index(self.versions.len()),
        };
        let (at, mut copy) = self.versions[base].clone();
        for change in &changes {
            match change.num.some() {
                Some(num) => copy.insert(change.key.clone(), num),
                None => copy.remove(&change.key),
            };
        }
        let made = if step.base.is_none() {
            writer.advance(reader, &changes).await.unwrap()
        } else {
            writer.branch(reader, at, &changes).await.unwrap()
        };
        self.versions.push((made, copy.clone()));
        if step.base.is_none() {
            self.current = self.versions.len() - 1;
        }
        let keys: Vec<_> = (0..12).map(key).collect();
        let expected: Vec<_> = keys.iter().map(|key| copy.get(key).copied()).collect();
        assert_eq!(writer.state_at(reader, made, &keys).await.unwrap(), expected);
    }

    async fn check(&self, reader: &Reader<'_>) {
        let keys: Vec<_> = (0..12).map(key).collect();
        for (at, copy) in &self.versions {
            let full: Copy = reader.full_state(NID, *at).await.unwrap().into_iter().collect();
            assert_eq!(full, *copy, "{at:?}");
            let some = reader.state_at(NID, *at, &keys).await.unwrap();
            assert_eq!(some, keys.iter().map(|key| copy.get(key).copied()).collect::<Vec<_>>());
            let members: Copy =
                reader.state_of_type(NID, *at, "m.room.member").await.unwrap().into_iter().collect();
            let expected = copy.iter().filter(|(key, _)| key.event_type() == "m.room.member");
            assert_eq!(members, expected.map(|(key, num)| (key.clone(), *num)).collect());
        }
        for (a, copy_a) in &self.versions {
            let (b, copy_b) = &self.versions[self.versions.len() / 2];
            self.check_diff(reader, (*a, copy_a), (*b, copy_b)).await;
        }
        let current: Copy = reader.current_state(NID).await.unwrap().into_iter().collect();
        assert_eq!(current, self.versions[self.current].1);
        self.check_courses(reader).await;
    }

    /// From each version of the main line to the newest.
    async fn check_courses(&self, reader: &Reader<'_>) {
        let on_line = self.versions.iter().filter(|(at, _)| at.line == 0);
        let line: BTreeMap<StateRef, &Copy> = on_line.map(|(at, copy)| (*at, copy)).collect();
        let end = self.versions[self.current].0;
        for start in line.keys() {
            let found = reader.state_course(NID, *start, end).await.unwrap();
            let ids: Vec<KeyId> = found.iter().map(|course| course.key).collect();
            let names = reader.state_keys(NID, &ids).await.unwrap();
            let values = |course: KeyCourse| [vec![course.old], course.between, vec![course.new]].concat();
            let found: BTreeMap<StateKey, Vec<EventNum>> =
                names.into_iter().zip(found.into_iter().map(values)).collect();
            let mut expected = BTreeMap::new();
            for key in (0..12).map(key) {
                let on_the_way = line.range(*start..=end);
                let mut values: Vec<EventNum> =
                    on_the_way.map(|(_, copy)| copy.get(&key).copied().unwrap_or_default()).collect();
                values.dedup();
                if values.len() > 1 {
                    expected.insert(key, values);
                }
            }
            assert_eq!(found, expected, "{start:?} {end:?}");
        }
    }

    async fn check_diff(
        &self,
        reader: &Reader<'_>,
        (a, copy_a): (StateRef, &Copy),
        (b, copy_b): (StateRef, &Copy),
    ) {
        let diff = reader.state_diff(NID, a, b).await.unwrap();
        let ids: Vec<KeyId> = diff.iter().map(|change| change.key).collect();
        let names = reader.state_keys(NID, &ids).await.unwrap();
        let found: BTreeMap<_, _> =
            names.into_iter().zip(&diff).map(|(key, change)| (key, (change.old, change.new))).collect();
        let value = |copy: &Copy, key: &StateKey| copy.get(key).copied().unwrap_or_default();
        let expected: BTreeMap<_, _> = (0..12)
            .map(key)
            .map(|key| (key.clone(), (value(copy_a, &key), value(copy_b, &key))))
            .filter(|(_, (old, new))| old != new)
            .collect();
        assert_eq!(found, expected, "{a:?} {b:?}");
    }
}

async fn run(batches: Vec<Vec<Step>>, abandoned: &[bool], latest: bool) {
    let store = empty_room(Db::new(Memory::default())).await;
    let mut model = Model { versions: vec![(StateRef::EMPTY, Copy::new())], current: 0 };
    let mut current_since = Vec::new();
    for (batch, abandon) in batches.into_iter().zip(abandoned.iter().chain(std::iter::repeat(&false))) {
        let reader = store.read();
        let old = reader.room_head(NID).await.unwrap();
        let mut writer = StateWriter::new(NID, &old);
        let (known, current) = (model.versions.len(), model.current);
        for step in &batch {
            model.apply(&reader, &mut writer, step, latest).await;
        }
        if *abandon {
            // As after a conflict: nothing of it may be remembered anywhere.
            model.versions.truncate(known);
            model.current = current;
            continue;
        }
        let (mut head, mut tx) = (old.clone(), Tx::new());
        writer.write(&mut head, &mut tx);
        tx.replace_head(NID, &old, &head);
        current_since.push((store.commit(tx).await.unwrap(), head.state));
        let reader = store.read();
        model.check(&reader).await;
        for (at, state) in &current_since {
            let noted = reader.state_as_of(NID, *at).await.unwrap().unwrap_or(StateRef::EMPTY);
            assert_eq!(noted, *state, "at {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn forks_and_merges_equal_full_copies(batches in steps(), abandoned: Vec<bool>, latest: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(batches, &abandoned, latest));
    }
}

#[tokio::test]
async fn a_deep_stack_of_side_lines_is_flattened() {
    let store = empty_room(Db::new(Memory::default())).await;
    let mut tip = StateRef::EMPTY;
    for number in 1..60u32 {
        let reader = store.read();
        let old = reader.room_head(NID).await.unwrap();
        let mut writer = StateWriter::new(NID, &old);
        let change = |user: u32| StateChange {
            key: StateKey::new("m.room.member", format!("@u{user}:example.org")),
            num: EventNum(number),
        };
        let base = tip;
        tip = writer.branch(&reader, base, &[change(number)]).await.unwrap();
        // Somebody else continues the same base, so that the next one cannot stay on its line.
        writer.branch(&reader, tip, &[change(1000 + number)]).await.unwrap();
        let (mut head, mut tx) = (old.clone(), Tx::new());
        writer.write(&mut head, &mut tx);
        tx.replace_head(NID, &old, &head);
        store.commit(tx).await.unwrap();
    }
    let reader = store.read();
    assert!(reader.lineage(NID, tip).await.unwrap().len() <= 10);
    assert_eq!(reader.full_state(NID, tip).await.unwrap().len(), 59);
}

/// Bytes of keys and values that a membership change adds to a room, overwritten rows not counted.
#[tokio::test]
async fn a_state_change_costs_few_bytes_whatever_the_size_of_the_room() {
    let store = empty_room(Db::new(Memory::default())).await;
    let mut sizes = Vec::new();
    for number in 1..2_000u32 {
        let reader = store.read();
        let old = reader.room_head(NID).await.unwrap();
        let mut writer = StateWriter::new(NID, &old);
        let user = format!("@agent{:05}:ministere.example.org", number % 1_000);
        let change = StateChange { key: StateKey::new("m.room.member", user), num: EventNum(number) };
        writer.advance(&reader, &[change]).await.unwrap();
        let (mut head, mut tx) = (old.clone(), Tx::new());
        writer.write(&mut head, &mut tx);
        sizes.push(tx.size());
        tx.replace_head(NID, &old, &head);
        store.commit(tx).await.unwrap();
    }
    let (new_key, known_key) = (sizes[998], sizes[1_998]);
    assert!(new_key < 180, "{new_key} bytes for a new member");
    assert!(known_key < 120, "{known_key} bytes for a further change");
}

#[tokio::test]
async fn reads_take_few_round_trips() {
    let trips = Arc::new(RoundTrips::default());
    let store = empty_room(Db::new(Counting::new(Memory::default(), trips.clone()))).await;
    let reader = store.read();
    let old = reader.room_head(NID).await.unwrap();
    let mut writer = StateWriter::new(NID, &old);
    let changes: Vec<_> = (0..6).map(|k| StateChange { key: key(k), num: EventNum(7) }).collect();
    let at = writer.advance(&reader, &changes).await.unwrap();
    let (mut head, mut tx) = (old.clone(), Tx::new());
    writer.write(&mut head, &mut tx);
    tx.replace_head(NID, &old, &head);
    store.commit(tx).await.unwrap();

    let keys: Vec<_> = (0..6).map(key).collect();
    let reader = store.read();
    trips.take();
    reader.head_and_state(NID, &keys).await.unwrap();
    assert_eq!(trips.take(), (1, 0, 0));
    reader.state_at(NID, at, &keys).await.unwrap();
    assert_eq!(trips.take(), (1, 6, 0));
    reader.state_at(NID, at, &keys).await.unwrap();
    assert_eq!(trips.take(), (0, 0, 0), "versions never change: cached");
}

#[tokio::test]
async fn rooms_from_before_it_was_noted_have_had_their_states_at_least_since_then() {
    let db = Db::new(Memory::default());
    let store = Store::new(db.clone());
    let state = StateRef { line: 0, version: 7 };
    let mut tx = Tx::new();
    tx.put::<Meta>(&"format".to_owned(), &3u32.to_be_bytes().to_vec());
    tx.first_head(NID, &RoomHead { state, ..RoomHead::new(RoomVersionId::V11) });
    let before = store.commit(tx).await.unwrap();
    let store = Store::open(db).await.unwrap();
    let reader = store.read();
    assert_eq!(reader.state_as_of(NID, before).await.unwrap(), None);
    assert_eq!(reader.state_as_of(NID, reader.position()).await.unwrap(), Some(state));
}
