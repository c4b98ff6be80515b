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

    /// Everything that `nums` rest on, themselves left out unless one rests on another. Memoised for single events.
    pub async fn auth_chain(&self, nid: RoomNid, nums: &[EventNum]) -> Result<RoaringBitmap, Error> {
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
        let mut chain = RoaringBitmap::new();
        let mut frontier = vec![num];
        while !frontier.is_empty() {
            let mut next = Vec::new();
            for auth in self.auth_events(nid, &frontier).await?.iter().flat_map(|auth| auth.iter()) {
                if !chain.insert(auth.0) {
                    continue;
                }
                match self.cache.chains.get(&(nid, *auth)) {
                    Some(known) => chain |= &*known,
                    None => next.push(*auth),
                }
            }
            frontier = next;
        }
        let chain = Arc::new(chain);
        self.cache.chains.insert((nid, num), chain.clone());
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
