//! What never changes once it is committed, kept in memory; whoever removes it for good drops it here as well.

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
};

use parking_lot::Mutex;
use quick_cache::{Weighter, sync};
use roaring::RoaringBitmap;
use ruma::{OwnedEventId, OwnedRoomId};

use crate::{
    Reader,
    auth_difference::Ground,
    events::{EventNum, StoredPdu},
    log_tail::Tail,
    rooms::RoomNid,
    state::{KeyId, LineParent, StateKey, StateRef},
};

/// An event in a room.
type EventKey = (RoomNid, EventNum);

/// The caches of one store. All entries are facts that hold at every later moment.
pub(crate) struct Cache {
    pub(crate) room_nids: sync::Cache<OwnedRoomId, RoomNid>,
    pub(crate) room_ids: sync::Cache<RoomNid, OwnedRoomId>,
    pub(crate) event_nums: sync::Cache<OwnedEventId, EventKey>,
    pub(crate) pdus: sync::Cache<EventKey, Arc<StoredPdu>, BySize>,
    pub(crate) auth: sync::Cache<EventKey, Arc<[EventNum]>>,
    pub(crate) chains: sync::Cache<EventKey, Arc<RoaringBitmap>, BySize>,
    /// Of each room one state, which says itself which one it is.
    pub(crate) grounds: sync::Cache<RoomNid, Arc<Ground>, BySize>,
    pub(crate) key_ids: sync::Cache<(RoomNid, StateKey), KeyId>,
    pub(crate) keys: sync::Cache<(RoomNid, KeyId), StateKey>,
    pub(crate) values: sync::Cache<(RoomNid, StateRef, KeyId), EventNum>,
    pub(crate) parents: sync::Cache<(RoomNid, u32), LineParent>,
    pub(crate) tail: Mutex<Tail>,
    /// The commit that removed something last.
    pub(crate) removed: AtomicU64,
    /// The highest room number that was given to somebody in this process.
    pub(crate) taken_room: AtomicU32,
}

/// Weighs entries by their bytes.
#[derive(Clone, Debug)]
pub(crate) struct BySize;

impl Weighter<EventKey, Arc<StoredPdu>> for BySize {
    fn weight(&self, _: &EventKey, pdu: &Arc<StoredPdu>) -> u64 {
        pdu.size()
    }
}

impl Weighter<EventKey, Arc<RoaringBitmap>> for BySize {
    fn weight(&self, _: &EventKey, chain: &Arc<RoaringBitmap>) -> u64 {
        100 + chain.serialized_size() as u64
    }
}

impl Weighter<RoomNid, Arc<Ground>> for BySize {
    fn weight(&self, _: &RoomNid, ground: &Arc<Ground>) -> u64 {
        200 + ground.size() as u64
    }
}

impl Cache {
    /// Empty caches. Bounds: about 128 MiB of events, 32 MiB of chains, 32 MiB of grounds, a few MiB each for the rest.
    pub(crate) fn new() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            room_nids: sync::Cache::new(20_000),
            room_ids: sync::Cache::new(20_000),
            event_nums: sync::Cache::new(50_000),
            pdus: sync::Cache::with_weighter(40_000, 128 * MIB, BySize),
            auth: sync::Cache::new(100_000),
            chains: sync::Cache::with_weighter(10_000, 32 * MIB, BySize),
            grounds: sync::Cache::with_weighter(500, 32 * MIB, BySize),
            key_ids: sync::Cache::new(50_000),
            keys: sync::Cache::new(100_000),
            values: sync::Cache::new(100_000),
            parents: sync::Cache::new(10_000),
            tail: Mutex::default(),
            removed: AtomicU64::new(0),
            taken_room: AtomicU32::new(0),
        }
    }
}

impl Reader<'_> {
    /// Keeps in memory what this snapshot says, unless something was removed after it: it may have been this.
    pub(crate) fn keep<K, V, W>(&self, cache: &sync::Cache<K, V, W>, key: &K, value: V)
    where
        K: Eq + Hash + Clone,
        V: Clone,
        W: Weighter<K, V> + Clone,
    {
        cache.insert(key.clone(), value);
        // Looked at last: whoever removes something says so first, then drops it from the cache.
        if self.position().0 < self.cache.removed.load(SeqCst) {
            cache.remove(key);
        }
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache of {} events", self.pdus.len())
    }
}
