//! Auth chains as bitmaps of event numbers. An event's auth events always have smaller numbers than itself, which
//! makes the numbers a topological order.

use std::{collections::BTreeMap, sync::Arc};

use roaring::RoaringBitmap;

use crate::{
    Reader,
    events::{EventMetas, EventNum},
    rooms::RoomNid,
    state::StateRef,
    tx::Error,
};

/// The chains of so many events are kept one by one, those of more walked together.
const KEPT: usize = 1_000;
/// Events whose records are read at once.
const PAGE: usize = 1_000;

impl Reader<'_> {
    /// The auth events of several events, in their order: one round trip, none if cached.
    pub async fn auth_events(&self, nid: RoomNid, nums: &[EventNum]) -> Result<Vec<Arc<[EventNum]>>, Error> {
        let mut found: Vec<_> = nums.iter().map(|num| self.cache.auth.get(&(nid, *num))).collect();
        let wanted: Vec<usize> = (0..nums.len()).filter(|&i| found[i].is_none()).collect();
        if !wanted.is_empty() {
            let keys: Vec<_> = wanted.iter().map(|&i| (nid, nums[i])).collect();
            for (&i, row) in wanted.iter().zip(self.get_many::<EventMetas>(&keys).await?) {
                let auth: Arc<[EventNum]> = row.ok_or(Error::Corrupt("event without a record"))?.auth.into();
                self.cache.auth.insert((nid, nums[i]), auth.clone());
                found[i] = Some(auth);
            }
        }
        found.into_iter().map(|auth| auth.ok_or(Error::Corrupt("event without a record"))).collect()
    }

    /// Everything that `nums` rest on, themselves left out unless one rests on another. Memoised for single events, unless they
    /// are very many: the state of a large room would drive everything else out.
    pub async fn auth_chain(&self, nid: RoomNid, nums: &[EventNum]) -> Result<RoaringBitmap, Error> {
        if nums.len() > KEPT {
            return self.walk(nid, nums.to_vec()).await;
        }
        let mut chain = RoaringBitmap::new();
        for num in nums {
            chain |= &*self.chain_of(nid, *num).await?;
        }
        Ok(chain)
    }

    async fn chain_of(&self, nid: RoomNid, num: EventNum) -> Result<Arc<RoaringBitmap>, Error> {
        if let Some(chain) = self.cache.chains.get(&(nid, num)) {
            return Ok(chain);
        }
        let chain = Arc::new(self.walk(nid, vec![num]).await?);
        self.cache.chains.insert((nid, num), chain.clone());
        Ok(chain)
    }

    async fn walk(&self, nid: RoomNid, mut frontier: Vec<EventNum>) -> Result<RoaringBitmap, Error> {
        let mut chain = RoaringBitmap::new();
        while !frontier.is_empty() {
            let mut next = Vec::new();
            for some in frontier.chunks(PAGE) {
                for auth in self.auth_events(nid, some).await?.iter().flat_map(|auth| auth.iter()) {
                    if !chain.insert(auth.0) {
                        continue;
                    }
                    match self.cache.chains.get(&(nid, *auth)) {
                        Some(known) => chain |= &*known,
                        None => next.push(*auth),
                    }
                }
            }
            frontier = next;
        }
        Ok(chain)
    }

    /// The events at or above `floor` that `nums` rest on: what a walk that never goes below `floor` finds.
    async fn chain_above(
        &self,
        nid: RoomNid,
        nums: impl IntoIterator<Item = u32>,
        floor: u32,
    ) -> Result<RoaringBitmap, Error> {
        let mut chain = RoaringBitmap::new();
        let mut frontier: Vec<EventNum> = nums.into_iter().filter(|num| *num > floor).map(EventNum).collect();
        while !frontier.is_empty() {
            let mut next = Vec::new();
            for auth in self.auth_events(nid, &frontier).await?.iter().flat_map(|auth| auth.iter()) {
                if auth.0 >= floor && chain.insert(auth.0) {
                    next.push(*auth);
                }
            }
            frontier = next;
        }
        Ok(chain)
    }

    /// The auth difference of several versions of a room's state: the events in the auth chain of at least one, not
    /// of all. A chain includes the events of the state itself, as other servers have it. Looks at what differs between the versions, and at the common rest only as far back as candidates go.
    pub async fn auth_difference(&self, nid: RoomNid, states: &[StateRef]) -> Result<RoaringBitmap, Error> {
        let Some((first, others)) = states.split_first() else { return Ok(RoaringBitmap::new()) };
        let mut differing = BTreeMap::new();
        let mut diffs = Vec::with_capacity(others.len());
        for other in others {
            let diff = self.state_diff(nid, *first, *other).await?;
            differing.extend(diff.iter().map(|change| (change.key, change.old)));
            diffs.push(diff);
        }
        let mut sets = vec![differing.clone()];
        for diff in diffs {
            let mut set = differing.clone();
            set.extend(diff.iter().map(|change| (change.key, change.new)));
            sets.push(set);
        }
        let chains = self.chains_of_sets(nid, &sets).await?;
        let candidates = union_without_intersection(&chains);
        let Some(floor) = candidates.min() else { return Ok(candidates) };
        let mut common: RoaringBitmap =
            self.full_state(nid, *first).await?.into_iter().map(|(_, num)| num.0).collect();
        for num in differing.values() {
            common.remove(num.0);
        }
        let below = self.chain_above(nid, &common, floor).await?;
        Ok(candidates - below - common)
    }

    async fn chains_of_sets<K>(
        &self,
        nid: RoomNid,
        sets: &[BTreeMap<K, EventNum>],
    ) -> Result<Vec<RoaringBitmap>, Error> {
        let mut chains = Vec::with_capacity(sets.len());
        for set in sets {
            let nums: Vec<EventNum> = set.values().filter_map(|num| num.some()).collect();
            let chain = self.auth_chain(nid, &nums).await?;
            chains.push(chain | nums.iter().map(|num| num.0).collect::<RoaringBitmap>());
        }
        Ok(chains)
    }

    /// The conflicted state subgraph (state resolution 2.1): every event on an auth path between two of `conflicted`,
    /// these included.
    pub async fn conflicted_subgraph(
        &self,
        nid: RoomNid,
        conflicted: &RoaringBitmap,
    ) -> Result<RoaringBitmap, Error> {
        let Some(floor) = conflicted.min() else { return Ok(RoaringBitmap::new()) };
        let above = self.chain_above(nid, conflicted, floor).await? | conflicted;
        let nums: Vec<EventNum> = above.iter().map(EventNum).collect();
        let mut subgraph = RoaringBitmap::new();
        for (num, auth) in nums.iter().zip(self.auth_events(nid, &nums).await?) {
            if conflicted.contains(num.0) || auth.iter().any(|auth| subgraph.contains(auth.0)) {
                subgraph.insert(num.0);
            }
        }
        Ok(subgraph)
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
    use chappe_kv::{Db, Memory};
    use proptest::prelude::*;
    use ruma::RoomVersionId;

    use crate::{
        EventNum, NewEvent, RoomHead, RoomNid, StateChange, StateRef, StateWriter, Store, Tx,
        events::meta::sample, state::StateKey,
    };

    /// A room whose events have these auth events; event `i` is number `i + 1`.
    async fn room_of(auth: &[Vec<u32>]) -> Store {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let mut tx = Tx::new();
        for (num, auth) in (1..).zip(auth) {
            let auth = auth.iter().copied().map(EventNum).collect();
            let event_id = format!("$e{num}:x.fr").try_into().unwrap();
            let (json, num) = ("{}".into(), EventNum(num));
            tx.put_event(RoomNid(1), &NewEvent { num, event_id, json, meta: sample(None, auth) });
        }
        store.commit(tx).await.unwrap();
        store
    }

    /// A hundred thousand events, each justified by the one before and nine further back.
    #[tokio::test]
    async fn a_long_and_wide_auth_chain_is_walked_once_and_takes_no_room() {
        const LENGTH: u32 = 100_000;
        let justify =
            |num: u32| (0..10).filter_map(move |back| num.checked_sub(1 + 7 * back).filter(|num| *num > 0));
        let auth: Vec<Vec<u32>> = (1..=LENGTH).map(|num| justify(num).collect()).collect();
        let store = room_of(&auth).await;
        let reader = store.read();
        let last = EventNum(LENGTH);
        assert_eq!(reader.auth_chain(RoomNid(1), &[last]).await.unwrap().len(), u64::from(LENGTH) - 1);
        for num in LENGTH - 100..LENGTH {
            let chain = reader.auth_chain(RoomNid(1), &[EventNum(num)]).await.unwrap();
            assert_eq!(chain.len(), u64::from(num) - 1);
        }
        let kept = reader.cache.chains.weight();
        assert!(kept < 4 << 20, "{kept} bytes for what is kept of chains");
    }

    #[tokio::test]
    async fn the_chains_of_very_many_events_are_walked_together_and_not_kept() {
        const MEMBERS: u32 = 3_000;
        let of = |num: u32| if num < 3 { (1..=num).collect() } else { vec![1, 3] };
        let auth: Vec<Vec<u32>> = (0..MEMBERS).map(of).collect();
        let store = room_of(&auth).await;
        let nums: Vec<EventNum> = (1..=MEMBERS).map(EventNum).collect();
        let reader = store.read();
        let chain = reader.auth_chain(RoomNid(1), &nums).await.unwrap();
        assert!(chain.iter().eq(1..=3), "{chain:?}");
        assert!(reader.cache.chains.is_empty());
    }

    fn naive_chain(auth: &[Vec<u32>], of: u32) -> std::collections::BTreeSet<u32> {
        let direct = &auth[of as usize - 1];
        direct.iter().copied().chain(direct.iter().flat_map(|num| naive_chain(auth, *num))).collect()
    }

    fn dag() -> impl Strategy<Value = Vec<Vec<u32>>> {
        prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..12).prop_map(
            |picks| {
                let pick = |(i, picks): (usize, Vec<prop::sample::Index>)| {
                    let smaller = |pick: prop::sample::Index| u32::try_from(pick.index(i) + 1).unwrap();
                    if i == 0 { Vec::new() } else { picks.into_iter().map(smaller).collect() }
                };
                picks.into_iter().enumerate().map(pick).collect()
            },
        )
    }

    proptest! {
        #[test]
        fn auth_chains_and_subgraphs_equal_plain_walks(auth in dag(), chosen: Vec<prop::sample::Index>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let chosen: roaring::RoaringBitmap =
                chosen.iter().map(|i| u32::try_from(i.index(auth.len()) + 1).unwrap()).collect();
            runtime.block_on(async {
                let store = room_of(&auth).await;
                let reader = store.read();
                for num in 1..=u32::try_from(auth.len()).unwrap() {
                    let chain = reader.auth_chain(RoomNid(1), &[EventNum(num)]).await.unwrap();
                    assert!(chain.iter().eq(naive_chain(&auth, num)));
                }
                let found = reader.conflicted_subgraph(RoomNid(1), &chosen).await.unwrap();
                let between = |num: &u32| {
                    let below = chosen.contains(*num) || chosen.iter().any(|c| naive_chain(&auth, c).contains(num));
                    let above = chosen.contains(*num) || naive_chain(&auth, *num).iter().any(|n| chosen.contains(*n));
                    below && above
                };
                assert!(found.iter().eq((1..=u32::try_from(auth.len()).unwrap()).filter(between)));
            });
        }
    }

    /// A state of the room for each map from key to event; all are side lines of the empty state or of each other.
    async fn with_states(store: &Store, states: &[Vec<(u8, u32)>]) -> Vec<StateRef> {
        let mut tx = Tx::new();
        tx.first_head(RoomNid(1), &RoomHead::new(RoomVersionId::V11));
        store.commit(tx).await.unwrap();
        let reader = store.read();
        let old = reader.room_head(RoomNid(1)).await.unwrap();
        let mut writer = StateWriter::new(RoomNid(1), &old);
        let mut refs = vec![StateRef::EMPTY];
        for (i, changes) in states.iter().enumerate() {
            let changes: Vec<_> = changes
                .iter()
                .map(|(key, num)| StateChange { key: StateKey::new("m.x", key), num: EventNum(*num) })
                .collect();
            let base = refs[i / 2];
            refs.push(writer.branch(&reader, base, &changes).await.unwrap());
        }
        let (mut head, mut tx) = (old.clone(), Tx::new());
        writer.write(&mut head, &mut tx);
        tx.replace_head(RoomNid(1), &old, &head);
        store.commit(tx).await.unwrap();
        refs
    }

    proptest! {
        #[test]
        fn auth_differences_equal_those_of_whole_states(
            auth in dag(),
            states in prop::collection::vec(prop::collection::vec((0u8..5, any::<prop::sample::Index>()), 0..4), 1..5),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let num = |index: &prop::sample::Index| u32::try_from(index.index(auth.len()) + 1).unwrap();
            // An event is about one key; now and then the key is removed instead.
            let entry = |gone: u8, num: u32| ((num % 5) as u8, if gone == 0 { 0 } else { num });
            let states: Vec<Vec<(u8, u32)>> =
                states.iter().map(|state| state.iter().map(|(gone, index)| entry(*gone, num(index))).collect()).collect();
            runtime.block_on(async {
                let store = room_of(&auth).await;
                let refs = with_states(&store, &states).await;
                let reader = store.read();
                let mut chains = Vec::new();
                for at in &refs[1..] {
                    let state = reader.full_state(RoomNid(1), *at).await.unwrap();
                    let chain: std::collections::BTreeSet<u32> =
                        state.iter().flat_map(|(_, num)| naive_chain(&auth, num.0)).collect();
                    chains.push(&chain | &state.iter().map(|(_, num)| num.0).collect());
                }
                let in_all = |num: &u32| chains.iter().all(|chain| chain.contains(num));
                let in_some = |num: &u32| chains.iter().any(|chain| chain.contains(num));
                let expected = (1..=u32::try_from(auth.len()).unwrap()).filter(|num| in_some(num) && !in_all(num));
                let found = reader.auth_difference(RoomNid(1), &refs[1..]).await.unwrap();
                assert!(found.iter().eq(expected), "{found:?} of {chains:?}");
            });
        }
    }
}
