//! Places for the states of rooms that other servers are asked for: few, and one for each server, so that one that takes its
//! time keeps nobody from asking others.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard, Semaphore, SemaphorePermit};

use super::LONG_AT_ONCE;

pub(super) struct StatePlaces {
    all: Semaphore,
    each: Mutex<HashMap<OwnedServerName, Weak<Turn<()>>>>,
}

impl Default for StatePlaces {
    fn default() -> Self {
        Self { all: Semaphore::new(LONG_AT_ONCE), each: Mutex::default() }
    }
}

/// Held while a server answers.
pub(super) struct Place<'a> {
    _turn: OwnedMutexGuard<()>,
    _place: Option<SemaphorePermit<'a>>,
}

impl StatePlaces {
    pub(super) async fn take(&self, server: &ServerName) -> Place<'_> {
        let turn = self.turn(server).lock_owned().await;
        Place { _turn: turn, _place: self.all.acquire().await.ok() }
    }

    fn turn(&self, server: &ServerName) -> Arc<Turn<()>> {
        let mut each = self.each.lock();
        if let Some(turn) = each.get(server).and_then(Weak::upgrade) {
            return turn;
        }
        each.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        each.insert(server.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use ruma::server_name;

    use super::{LONG_AT_ONCE, StatePlaces};

    #[test]
    fn a_slow_server_takes_one_place() {
        let places = StatePlaces::default();
        let (slow, other) = (server_name!("slow.example"), server_name!("other.example"));
        let first = places.take(slow).now_or_never().unwrap();
        let mut waiting: Vec<_> = (0..LONG_AT_ONCE).map(|_| Box::pin(places.take(slow))).collect();
        for place in &mut waiting {
            assert!(place.now_or_never().is_none(), "a second one at the same time");
        }
        let others = places.take(other).now_or_never();
        assert!(others.is_some());
        drop((first, others));
        assert!(waiting.remove(0).now_or_never().is_some());
    }
}
