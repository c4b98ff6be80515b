//! Places for what another server may make take long: so many in all, and a share for each server, so that one that takes its
//! time keeps nobody from others.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use chappe_world::World;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// From then on an answer is slow.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it is remembered that a server was slow, from when that is seen and from when its answer ends.
const REMEMBERED: Duration = Duration::from_mins(10);
/// Slow servers remembered.
const SLOW: usize = 10_000;

pub(crate) struct Places {
    all: Arc<Semaphore>,
    share: usize,
    each: Mutex<HashMap<OwnedServerName, Weak<Semaphore>>>,
}

/// Held while something is under way.
pub(crate) struct Place {
    _all: Option<OwnedSemaphorePermit>,
    _own: Option<OwnedSemaphorePermit>,
    // After the permit: whoever waits finds the same semaphore.
    _share: Arc<Semaphore>,
}

impl Places {
    /// `all` places, of which one server has no more than `share`.
    pub(crate) fn new(all: usize, share: usize) -> Self {
        let all = Arc::new(Semaphore::new(all.max(1)));
        Self { all, share: share.max(1), each: Mutex::default() }
    }

    pub(crate) async fn take(&self, server: &ServerName) -> Place {
        let share = self.share_of(server);
        let own = share.clone().acquire_owned().await.ok();
        let all = Arc::clone(&self.all).acquire_owned().await.ok();
        Place { _all: all, _own: own, _share: share }
    }

    /// So many places at once, if they are there now.
    pub(crate) fn try_take(&self, server: &ServerName, count: u32) -> Option<Place> {
        let share = self.share_of(server);
        let own = Arc::clone(&share).try_acquire_many_owned(count).ok()?;
        let all = Arc::clone(&self.all).try_acquire_many_owned(count).ok()?;
        Some(Place { _all: Some(all), _own: Some(own), _share: share })
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

/// Places of two kinds: servers that were slow lately share those of the slow, so that several of them keep nobody from servers
/// that are quick.
pub(crate) struct Paces {
    world: World,
    quick: Places,
    slow: Places,
    slow_until: Cache<OwnedServerName, Instant>,
}

/// A place of either kind, before anything was asked.
pub(crate) struct Begun {
    place: Place,
    is_slow: bool,
}

impl Paces {
    /// `all` places for the quick, of which one server has no more than `share`; it has as many of those for the slow, and two
    /// such servers do not have all of them.
    pub(crate) fn new(world: World, all: usize, share: usize) -> Self {
        let (quick, slow) = (Places::new(all, share), Places::new(all + share, share));
        Self { world, quick, slow, slow_until: Cache::new(SLOW) }
    }

    pub(crate) async fn take(&self, server: &ServerName) -> Begun {
        if !self.is_slow(server) {
            let place = self.quick.take(server).await;
            if !self.is_slow(server) {
                return Begun { place, is_slow: false };
            }
        }
        Begun { place: self.slow.take(server).await, is_slow: true }
    }

    fn is_slow(&self, server: &ServerName) -> bool {
        let now = self.world.instant();
        self.slow_until.get(server).is_some_and(|until| until > now)
    }

    fn note_slow(&self, server: &ServerName) {
        self.slow_until.insert(server.to_owned(), self.world.instant() + REMEMBERED);
    }

    /// Waits for an answer of `server`, and moves to a place among the slow once it is slow; none if it is not there and no
    /// such place was to be had for so long. The place is given back with the answer.
    pub(crate) async fn spend<T>(
        &self,
        Begun { place, is_slow }: Begun,
        server: &ServerName,
        longest: Duration,
        answer: impl Future<Output = T>,
    ) -> Option<(T, Place)> {
        let mut answer = std::pin::pin!(answer);
        if let Some(answer) = self.world.timeout(PATIENCE, &mut answer).await {
            return Some((answer, place));
        }
        self.note_slow(server);
        let place = if is_slow {
            place
        } else {
            let slow = tokio::select! {
                biased;
                answer = &mut answer => return Some((answer, place)),
                slow = self.world.timeout(longest, self.slow.take(server)) => slow?,
            };
            drop(place);
            slow
        };
        let answer = answer.await;
        self.note_slow(server);
        Some((answer, place))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{FutureExt, future::join_all};
    use ruma::{ServerName, server_name};

    use super::{Paces, Places};

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

    #[test]
    fn many_are_taken_together_or_none() {
        let places = Places::new(4, 3);
        let (one, other) = (server_name!("one.example"), server_name!("other.example"));
        let first = places.try_take(one, 2).unwrap();
        assert!(places.try_take(one, 2).is_none(), "it has its share");
        assert!(places.try_take(other, 3).is_none(), "all have so many");
        let second = places.try_take(other, 2);
        assert!(second.is_some(), "what was refused took some");
        drop(first);
        assert!(places.try_take(one, 2).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_slow_takes_no_places_of_the_quick() {
        let world = crate::tests::world(1);
        let paces = Paces::new(world.clone(), 4, 2);
        let slow = [server_name!("one.example"), server_name!("two.example")];
        let other = server_name!("other.example");
        let minute = Duration::from_mins(1);
        let (paces, world) = (&paces, &world);
        let ask = |server| async move {
            let place = paces.take(server).await;
            paces.spend(place, server, minute, world.sleep(minute)).await;
        };
        let questions = (0..8).map(|n| ask(slow[n % 2]));
        let others = async {
            for _ in 0..20 {
                let asked = world.instant();
                drop(paces.take(other).await);
                assert!(asked.elapsed() < Duration::from_secs(11), "{:?}", asked.elapsed());
                world.sleep(Duration::from_secs(5)).await;
            }
        };
        futures_util::join!(join_all(questions), others);
        // They were slow last time: nobody waits for them at all.
        let mut questions: Vec<_> = (0..8).map(|n| Box::pin(ask(slow[n % 2]))).collect();
        for question in &mut questions {
            assert!(question.now_or_never().is_none());
        }
        assert!(paces.take(other).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_no_place_among_the_slow_gives_up_that_of_the_quick() {
        let world = crate::tests::world(1);
        let (paces, world) = (&Paces::new(world.clone(), 2, 1), &world);
        let slow = ["a.example", "b.example", "c.example", "d.example", "e.example"];
        let slow = slow.map(|name| <&ServerName>::try_from(name).unwrap());
        let other = server_name!("other.example");
        let (minute, quarter) = (Duration::from_mins(1), Duration::from_mins(15));
        let ask = |server| async move {
            let place = paces.take(server).await;
            paces.spend(place, server, minute, world.sleep(quarter)).await.is_some()
        };
        let others = async {
            world.sleep(2 * minute).await;
            assert!(paces.take(other).now_or_never().is_some());
        };
        let (answered, ()) = futures_util::join!(join_all(slow.map(ask)), others);
        assert_eq!(answered, [true, true, true, false, false]);
        assert!(paces.is_slow(slow[0]), "it was slow until now");
    }
}
