//! What the tests of this crate share: stores in memory, worlds on one fake network.

use chappe_store::Store;
use chappe_world::{Fake, FakeNet, World};

/// A store in memory.
pub(crate) fn memory() -> Store {
    Store::new(chappe_kv::Db::new(chappe_kv::Memory::default()))
}

/// A world of its own, alone on its network.
pub(crate) fn world(seed: u64) -> World {
    World::fake(Fake::new("a.example", seed, &FakeNet::new()))
}
