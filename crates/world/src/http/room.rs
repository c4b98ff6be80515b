//! Room for answers that are read whole: so much in all, and a share for each host that gives them.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What all short answers may have together, and those of one host, in KiB.
const ALL: usize = 256 << 10;
const OF_ONE: usize = 32 << 10;

/// Room for short answers.
pub(crate) struct Room {
    all: Arc<Semaphore>,
    share: usize,
    each: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// Some of it, for one answer.
#[derive(Default)]
pub(super) struct Part {
    taken: Vec<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    // After the permits: whoever reads more from that host finds the same semaphore.
    share: Option<Arc<Semaphore>>,
}

impl Default for Room {
    fn default() -> Self {
        Self::new(ALL, OF_ONE)
    }
}

impl Room {
    /// So many KiB in all, and for one host.
    pub(super) fn new(all: usize, share: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), share, each: Mutex::default() }
    }

    /// So many KiB more for an answer of `host`; none if they are not there.
    pub(super) fn add(&self, part: &mut Part, host: &str, kib: u32) -> Option<()> {
        let share = Arc::clone(part.share.get_or_insert_with(|| self.share_of(host)));
        let own = share.try_acquire_many_owned(kib).ok()?;
        let all = Arc::clone(&self.all).try_acquire_many_owned(kib).ok()?;
        part.taken.push((own, all));
        Some(())
    }

    fn share_of(&self, host: &str) -> Arc<Semaphore> {
        let mut each = self.each.lock();
        if let Some(share) = each.get(host).and_then(Weak::upgrade) {
            return share;
        }
        each.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.share));
        each.insert(host.to_owned(), Arc::downgrade(&share));
        share
    }

    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        self.all.available_permits()
    }
}

impl Part {
    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }
}
