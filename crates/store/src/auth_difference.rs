//! The auth difference of several states of a room, found from what differs between them.

use std::sync::Arc;

use chappe_kv::Position;
use roaring::RoaringBitmap;

use crate::{
    Reader,
    events::EventNum,
    rooms::RoomNid,
    state::{Conflicted, StateRef},
    tx::Error,
};

/// A state of a room and what it rests on, as sets of event numbers.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    /// A moment at which the state was there: an older snapshot may not have it.
    seen: Position,
    at: StateRef,
    /// The events of the state.
    events: RoaringBitmap,
    /// All events at or above `floor` that those rest on, and maybe others that the state rested on before.
    below: RoaringBitmap,
    floor: u32,
}

impl Ground {
    /// Bytes, about.
    pub(crate) fn size(&self) -> usize {
        self.events.serialized_size() + self.below.serialized_size()
    }
}

impl Reader<'_> {
    /// The auth difference of committed versions of a room's state, `first` and others, that differ in `conflicted`: the
    /// events in the auth chain of at least one, not of all. A chain includes the events of the state itself, as other
    /// servers have it.
    ///
    /// Each chain is that of the version's own events, on conflicted keys, together with that of the common ones. So only
    /// what some and not all of the own ones rest on can be in the difference, and of that nothing is which the common ones
    /// are or rest on. To know what they rest on takes a walk only for what the room's state has rested on at some time.
    ///
    /// O(chains of the own events that differ, and changes since the room was last asked about), whatever the size of the
    /// room; O(state) when it is asked about first. The walk ends soon for what much of the state names, as join rules, and
    /// is O(state) for what it names no more.
    pub async fn auth_difference(
        &self,
        nid: RoomNid,
        first: StateRef,
        conflicted: &Conflicted,
    ) -> Result<RoaringBitmap, Error> {
        let mut left = self.own_difference(nid, conflicted).await?;
        let Some(floor) = left.min() else { return Ok(left) };
        let ground = self.ground(nid, first, floor).await?;
        let own = conflicted.values().filter_map(|nums| nums.first()).map(|num| num.0);
        let common = &ground.events - own.collect::<RoaringBitmap>();
        let held = &left & &common;
        left -= self.chain_above(nid, &held, floor).await?;
        left -= held;
        let doubtful = &left & &ground.below;
        left -= self.rested_on(nid, &common, &doubtful).await?;
        Ok(left)
    }

    /// The auth difference of what the states have on conflicted keys, by itself.
    async fn own_difference(&self, nid: RoomNid, conflicted: &Conflicted) -> Result<RoaringBitmap, Error> {
        let states = conflicted.values().next().map_or(0, Vec::len);
        let mut chains = Vec::with_capacity(states);
        for state in 0..states {
            let own = conflicted.values().filter_map(|nums| nums.get(state)?.some());
            let own: Vec<EventNum> = own.collect();
            let chain = self.auth_chain(nid, &own).await?;
            chains.push(chain | own.iter().map(|num| num.0).collect::<RoaringBitmap>());
        }
        Ok(union_without_intersection(&chains))
    }

    /// The state at `at` and what it rests on from `floor` on. That of the current state is kept and taken on from there, as
    /// states that conflict are seldom far from it.
    async fn ground(&self, nid: RoomNid, at: StateRef, floor: u32) -> Result<Ground, Error> {
        let now = self.room_head(nid).await?.state;
        let kept = self.cache.grounds.get(&nid).filter(|kept| kept.seen <= self.position());
        let mut ground = match kept {
            Some(kept) => Arc::unwrap_or_clone(kept),
            None => {
                let state = self.current_state(nid).await?;
                let events = state.into_iter().map(|(_, num)| num.0).collect();
                let (seen, below) = (self.position(), RoaringBitmap::new());
                Ground { seen, at: now, events, below, floor: u32::MAX }
            }
        };
        self.move_ground(nid, &mut ground, now).await?;
        if floor < ground.floor {
            ground.below = self.chain_above(nid, &ground.events, floor).await?;
            ground.floor = floor;
        }
        ground.seen = self.position();
        self.cache.grounds.insert(nid, Arc::new(ground.clone()));
        self.move_ground(nid, &mut ground, at).await?;
        Ok(ground)
    }

    async fn move_ground(&self, nid: RoomNid, ground: &mut Ground, to: StateRef) -> Result<(), Error> {
        let changes = self.state_diff(nid, ground.at, to).await?;
        for change in &changes {
            ground.events.remove(change.old.0);
        }
        let new = changes.iter().filter_map(|change| change.new.some()).map(|num| num.0);
        let new: RoaringBitmap = new.collect();
        ground.below |= self.chain_above(nid, &new, ground.floor).await?;
        ground.events |= new;
        ground.at = to;
        Ok(())
    }
}

fn union_without_intersection(chains: &[RoaringBitmap]) -> RoaringBitmap {
    let Some((first, others)) = chains.split_first() else { return RoaringBitmap::new() };
    let (mut all, mut common) = (first.clone(), first.clone());
    for chain in others {
        all |= chain;
        common &= chain;
    }
    all - common
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use chappe_kv::{Counting, Db, Memory, RoundTrips};
    use proptest::{prelude::*, sample::Index};
    use ruma::RoomVersionId;

    use crate::{
        EventNum, Reader, RoomHead, RoomNid, StateChange, StateRef, StateWriter, Store, Tx,
        auth_chain::tests::{dag, room_on},
        state::StateKey,
    };

    const NID: RoomNid = RoomNid(1);

    /// A room whose events have these auth events, and no state yet.
    async fn bare_room(db: Db, auth: &[Vec<u32>]) -> Store {
        let store = room_on(db, auth).await;
        let mut tx = Tx::new();
        tx.first_head(NID, &RoomHead::new(RoomVersionId::V11));
        store.commit(tx).await.unwrap();
        store
    }

    fn change(kind: &str, key: impl ToString, num: u32) -> StateChange {
        StateChange { key: StateKey::new(kind, key), num: EventNum(num) }
    }

    /// Makes a state that branches off from `base`, or the next current one.
    async fn put_state(store: &Store, base: Option<StateRef>, changes: &[StateChange]) -> StateRef {
        let reader = store.read();
        let old = reader.room_head(NID).await.unwrap();
        let mut writer = StateWriter::new(NID, &old);
        let at = match base {
            Some(base) => writer.branch(&reader, base, changes).await.unwrap(),
            None => writer.advance(&reader, changes).await.unwrap(),
        };
        let (mut head, mut tx) = (old.clone(), Tx::new());
        writer.write(&mut head, &mut tx);
        tx.replace_head(NID, &old, &head);
        store.commit(tx).await.unwrap();
        at
    }

    #[derive(Clone, Debug)]
    struct Step {
        /// What the new state branches off from: the newest of all (true) or any; the current one is replaced for `None`.
        base: Option<(bool, Index)>,
        changes: Vec<(u8, Index)>,
        /// The states of which the difference is asked for then.
        asked: Vec<Index>,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let base = prop::option::of((any::<bool>(), any::<Index>()));
        let changes = prop::collection::vec((0u8..5, any::<Index>()), 0..4);
        let asked = prop::collection::vec(any::<Index>(), 0..9);
        let step = (base, changes, asked).prop_map(|(base, changes, asked)| Step { base, changes, asked });
        prop::collection::vec(step, 1..14)
    }

    /// The auth chain of each event.
    fn whole_chains(auth: &[Vec<u32>]) -> Vec<BTreeSet<u32>> {
        let mut chains: Vec<BTreeSet<u32>> = Vec::new();
        for named in auth {
            let below = named.iter().flat_map(|num| chains[*num as usize - 1].iter());
            let chain = named.iter().chain(below).copied().collect();
            chains.push(chain);
        }
        chains
    }

    /// The difference as it is defined: of whole states with whole chains.
    async fn defined(reader: &Reader<'_>, chains: &[BTreeSet<u32>], states: &[StateRef]) -> BTreeSet<u32> {
        let mut wholes: Vec<BTreeSet<u32>> = Vec::new();
        for at in states {
            let state = reader.full_state(NID, *at).await.unwrap();
            let nums: BTreeSet<u32> = state.iter().map(|(_, num)| num.0).collect();
            let below = nums.iter().flat_map(|num| chains[*num as usize - 1].iter());
            wholes.push(nums.iter().chain(below).copied().collect());
        }
        let all: BTreeSet<u32> = wholes.iter().flatten().copied().collect();
        all.into_iter().filter(|num| wholes.iter().any(|whole| !whole.contains(num))).collect()
    }

    async fn check(reader: &Reader<'_>, chains: &[BTreeSet<u32>], known: &[StateRef], asked: &[Index]) {
        let states: Vec<StateRef> = asked.iter().map(|index| known[index.index(known.len())]).collect();
        let Some(first) = states.first() else { return };
        let conflicted = reader.conflicted(NID, &states).await.unwrap();
        let found = reader.auth_difference(NID, *first, &conflicted).await.unwrap();
        let expected = defined(reader, chains, &states).await;
        assert!(found.iter().eq(expected.iter().copied()), "{found:?}, not {expected:?}, of {states:?}");
    }

    /// Asks while states come about, and in the end again by the snapshot of the step `older`.
    async fn compare(auth: &[Vec<u32>], steps: &[Step], older: usize) {
        let store = bare_room(Db::new(Memory::default()), auth).await;
        let (chains, mut known) = (whole_chains(auth), vec![StateRef::EMPTY]);
        let mut snapshots = Vec::new();
        for step in steps {
            snapshots.push((store.read(), known.clone()));
            let newest = known[known.len() - 1];
            let some = |index: &Index| known[index.index(known.len())];
            let base = step.base.as_ref().map(|(is_newest, i)| if *is_newest { newest } else { some(i) });
            // An event is about one key; now and then the key is removed instead.
            let entry = |(gone, index): &(u8, Index)| {
                let num = u32::try_from(index.index(auth.len()) + 1).unwrap();
                change("m.x", num % 7, if *gone == 0 { 0 } else { num })
            };
            let changes: Vec<StateChange> = step.changes.iter().map(entry).collect();
            known.push(put_state(&store, base, &changes).await);
            check(&store.read(), &chains, &known, &step.asked).await;
        }
        let (before, known) = &snapshots[older];
        for step in steps {
            check(before, &chains, known, &step.asked).await;
        }
    }

    proptest! {
        #[test]
        fn auth_differences_equal_those_of_whole_states(auth in dag(30), steps in steps(), older: Index) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(compare(&auth, &steps, older.index(steps.len())));
        }
    }

    /// In a room with a topic that is older than all but two of its many members, another topic is set beside a name.
    #[tokio::test]
    async fn a_fork_in_a_large_room_costs_what_differs() {
        const MEMBERS: u32 = 20_000;
        const FORKS: u32 = 5;
        let mut auth = vec![vec![], vec![1]];
        auth.resize((3 + MEMBERS + 2 * FORKS) as usize, vec![1, 2]);
        let trips = Arc::new(RoundTrips::default());
        let store = bare_room(Db::new(Counting::new(Memory::default(), trips.clone())), &auth).await;
        let kinds = ["m.room.create", "m.room.power_levels", "m.room.topic"];
        let mut state: Vec<_> = (1..).zip(kinds).map(|(num, kind)| change(kind, "", num)).collect();
        state.extend((4..4 + MEMBERS).map(|num| change("m.room.member", num, num)));
        let base = put_state(&store, None, &state).await;
        for fork in 0..FORKS {
            let topic = 4 + MEMBERS + 2 * fork;
            let states = [
                put_state(&store, Some(base), &[change("m.room.topic", "", topic)]).await,
                put_state(&store, Some(base), &[change("m.room.name", "", topic + 1)]).await,
            ];
            let reader = store.read();
            let conflicted = reader.conflicted(NID, &states).await.unwrap();
            trips.take();
            let found = reader.auth_difference(NID, states[0], &conflicted).await.unwrap();
            assert!(found.iter().eq([3, topic, topic + 1]), "{found:?}");
            let (gets, scans, _) = trips.take();
            assert!(fork == 0 || gets + scans <= 6, "{gets} look-ups and {scans} scans");
        }
    }
}
