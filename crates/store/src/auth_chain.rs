//! Auth chains as bitmaps of event numbers. No event is stored before its auth events, so these always have smaller
//! numbers than itself, which makes the numbers a topological order.

use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::{
    Reader,
    events::{EventMetas, EventNum},
    rooms::RoomNid,
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
    pub(crate) async fn chain_above(
        &self,
        nid: RoomNid,
        nums: &RoaringBitmap,
        floor: u32,
    ) -> Result<RoaringBitmap, Error> {
        let mut chain = RoaringBitmap::new();
        for some in above(nums, floor).chunks(PAGE) {
            self.walk_above(nid, some, floor, &mut chain).await?;
        }
        Ok(chain)
    }

    /// Those of `wanted` that `nums` rest on. The walk goes no further back than they do, and ends with the last of them.
    pub(crate) async fn rested_on(
        &self,
        nid: RoomNid,
        nums: &RoaringBitmap,
        wanted: &RoaringBitmap,
    ) -> Result<RoaringBitmap, Error> {
        let mut chain = RoaringBitmap::new();
        let Some(floor) = wanted.min() else { return Ok(chain) };
        for some in above(nums, floor).chunks(PAGE) {
            self.walk_above(nid, some, floor, &mut chain).await?;
            if wanted.is_subset(&chain) {
                break;
            }
        }
        Ok(chain & wanted)
    }

    async fn walk_above(
        &self,
        nid: RoomNid,
        nums: &[EventNum],
        floor: u32,
        chain: &mut RoaringBitmap,
    ) -> Result<(), Error> {
        let mut frontier = nums.to_vec();
        while !frontier.is_empty() {
            let mut next = Vec::new();
            for auth in self.auth_events(nid, &frontier).await?.iter().flat_map(|auth| auth.iter()) {
                if auth.0 >= floor && chain.insert(auth.0) {
                    next.push(*auth);
                }
            }
            frontier = next;
        }
        Ok(())
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

/// Those of `nums` that may rest on something at or above `floor`.
fn above(nums: &RoaringBitmap, floor: u32) -> Vec<EventNum> {
    nums.range(floor.saturating_add(1)..).map(EventNum).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use chappe_kv::{Db, Memory};
    use proptest::prelude::*;

    use crate::{EventNum, NewEvent, RoomNid, Store, Tx, events::meta::sample};

    async fn room_of(auth: &[Vec<u32>]) -> Store {
        room_on(Db::new(Memory::default()), auth).await
    }

    /// A room whose events have these auth events; event `i` is number `i + 1`.
    pub(crate) async fn room_on(db: Db, auth: &[Vec<u32>]) -> Store {
        let store = Store::open(db).await.unwrap();
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

    /// Auth events of fewer than so many events.
    pub(crate) fn dag(events: usize) -> impl Strategy<Value = Vec<Vec<u32>>> {
        prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..events).prop_map(
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
        fn auth_chains_and_subgraphs_equal_plain_walks(auth in dag(12), chosen: Vec<prop::sample::Index>) {
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
}
