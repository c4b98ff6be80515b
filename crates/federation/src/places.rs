//! Places for what another server may make take long: so many in all, and a share for each server, so that one that takes its
//! time keeps nobody from others.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

pub(crate) struct Places {
    all: Semaphore,
    share: usize,
    each: Mutex<HashMap<OwnedServerName, Weak<Semaphore>>>,
}

/// Held while something is under way.
pub(crate) struct Place<'a> {
    _all: Option<SemaphorePermit<'a>>,
    _own: Option<OwnedSemaphorePermit>,
    // After the permit: whoever waits finds the same semaphore.
    _share: Arc<Semaphore>,
}

impl Places {
    /// `all` places, of which one server has no more than `share`.
    pub(crate) fn new(all: usize, share: usize) -> Self {
        Self { all: Semaphore::new(all.max(1)), share: share.max(1), each: Mutex::default() }
    }

    pub(crate) async fn take(&self, server: &ServerName) -> Place<'_> {
        let share = self.share_of(server);
        let own = share.clone().acquire_owned().await.ok();
        Place { _all: self.all.acquire().await.ok(), _own: own, _share: share }
    }

    fn share_of(&self, server: &ServerName) -> Arc<Semaphore> {
        let mut each = self.each.lock();
        if let Some(share) = each.get(server).and_then(Weak::upgrade) {
            return share;
        }
        each.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.share));
        each.insert(server.to_owned(), Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use ruma::server_name;

    use super::Places;

    #[test]
    fn a_slow_server_takes_its_share() {
        let places = Places::new(4, 1);
        let (slow, other) = (server_name!("slow.example"), server_name!("other.example"));
        let first = places.take(slow).now_or_never().unwrap();
        let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(places.take(slow))).collect();
        for place in &mut waiting {
            assert!(place.now_or_never().is_none(), "a second one at the same time");
        }
        let others = places.take(other).now_or_never();
        assert!(others.is_some());
        drop((first, others));
        assert!(waiting.remove(0).now_or_never().is_some());
    }
}
