//! Finding what was said and who is there: a full-text index that follows the log.
//!
//! The index proposes, the domain decides: what it gives are numbers of events and names of users, and each is shown only
//! if the one door for it says so *now* ([`chappe_rooms::View::visible`] for events, shared or open rooms for people). So
//! an index that is behind, or a hit in a place that is closed to who asks, gives nothing away, not even as a count.
//!
//! One tantivy index holds both kinds of documents. Its folder may be thrown away at any time: it is built anew from the
//! store. How far it has come is written with each commit of the index itself, so that index and place cannot disagree.

mod analyze;
mod build;
mod config;
mod error;
mod events;
mod find;
mod follow;
mod index;
mod network;
mod pages;
mod people;
mod pick;
mod schema;
#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use chappe_accounts::Accounts;
use chappe_rooms::Rooms;
use chappe_store::{Position, Store, following};
use chappe_world::{Live, World};
use parking_lot::RwLock;
use tokio::sync::{Notify, Semaphore, watch};

pub use self::{
    config::Config,
    error::Error,
    events::{Field, Order},
    find::{Around, Context, Found, Group, Grouping, Match, Query},
    network::{Directories, PeerPeople},
    people::{Circle, People, Person, Scope},
};
use self::{follow::Follower, index::Index, network::Answers, pages::Seal};

/// Searches at work at the same time; more wait their turn.
const AT_ONCE: usize = 4;
/// Those of other servers, which have their own turns: nobody here waits for them.
const PEERS_AT_ONCE: usize = 1;
/// How long a search waits for the index to have what was said just before.
const PATIENCE: Duration = Duration::from_secs(5);

/// What [`Search`] is built from.
pub struct Deps {
    /// The store that is followed.
    pub store: Store,
    /// Time, randomness, tasks.
    pub world: World,
    /// Users of this server, for their profiles.
    pub accounts: Accounts,
    /// Rooms: who sees what.
    pub rooms: Rooms,
    /// The directories of other servers.
    pub others: Arc<dyn Directories>,
    /// Whom searches find; none: everybody where there is a directory of the network, else those one meets.
    pub circle: Option<Circle>,
    /// Where the index lies. Nothing else may be in this folder.
    pub folder: PathBuf,
}

/// The index of this server: a handle, clones share it.
#[derive(Clone)]
pub struct Search(Arc<Inner>);

struct Inner {
    deps: Deps,
    circle: Live<Option<Circle>>,
    config: Config,
    /// The index, once it is open.
    index: RwLock<Option<Arc<Index>>>,
    /// Everything up to there can be found.
    reached: watch::Sender<Position>,
    /// What concerns people up to there can be found.
    people_reached: watch::Sender<Position>,
    /// Somebody waits for the index to reach this.
    wanted: AtomicU64,
    /// Somebody waits for people alone.
    people_wanted: AtomicU64,
    wake: Notify,
    /// The index could not be read and has to be built anew.
    broken: AtomicBool,
    turns: Semaphore,
    peer_turns: Semaphore,
    seal: Seal,
    /// What other servers said of people a moment ago.
    answers: Answers,
}

impl Search {
    /// An index that is not opened yet.
    pub fn new(deps: Deps, config: Config) -> Self {
        let seal = Seal::new(deps.world.clone());
        Self(Arc::new(Inner {
            circle: Live::new(deps.circle),
            deps,
            config,
            index: RwLock::default(),
            reached: watch::Sender::new(Position(0)),
            people_reached: watch::Sender::new(Position(0)),
            wanted: AtomicU64::new(0),
            people_wanted: AtomicU64::new(0),
            wake: Notify::new(),
            broken: AtomicBool::new(false),
            turns: Semaphore::new(AT_ONCE),
            peer_turns: Semaphore::new(PEERS_AT_ONCE),
            seal,
            answers: Answers::default(),
        }))
    }

    /// Has searches find other people from now on: see [`Deps::circle`].
    pub fn reconfigure(&self, circle: Option<Circle>) {
        self.0.circle.set(circle);
    }

    /// Opens the index and keeps it up to date until the world stops.
    pub async fn run(&self) {
        following(Follower::run(self.clone())).await;
    }

    /// The index as it has everything that was committed before this call, where that can be had soon; otherwise as it is.
    async fn fresh(&self) -> Option<Arc<Index>> {
        self.caught_up(&self.0.reached, &self.0.wanted).await
    }

    /// The same as far as people are concerned: what is said meanwhile needs no commit, and nobody waits for one.
    async fn fresh_people(&self) -> Option<Arc<Index>> {
        self.caught_up(&self.0.people_reached, &self.0.people_wanted).await
    }

    async fn caught_up(&self, reached: &watch::Sender<Position>, wanted: &AtomicU64) -> Option<Arc<Index>> {
        let visible = *self.0.deps.store.visible().borrow();
        let behind = *reached.borrow() < visible;
        if behind || self.0.index.read().is_none() {
            wanted.fetch_max(visible.0, SeqCst);
            self.0.wake.notify_one();
            let mut reached = reached.subscribe();
            let arrived = reached.wait_for(|reached| *reached >= visible);
            // Late is no error: the answer is of a moment ago, or of an index that is still being built.
            let _ = self.0.deps.world.timeout(PATIENCE, arrived).await;
        }
        self.0.index.read().clone()
    }

    /// Asks the index, outside the async threads. An index that cannot be read is built anew.
    async fn ask<T: Send + 'static>(
        &self,
        index: Arc<Index>,
        question: impl FnOnce(&Index) -> tantivy::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.ask_in(&self.0.turns, index, question).await
    }

    /// The same, waiting for one of these turns.
    async fn ask_in<T: Send + 'static>(
        &self,
        turns: &Semaphore,
        index: Arc<Index>,
        question: impl FnOnce(&Index) -> tantivy::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let _turn = turns.acquire().await.map_err(|_| Error::Stopping)?;
        let answer = self.0.deps.world.spawn_blocking(move || question(&index)).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.0.broken.store(true, SeqCst);
                self.0.wake.notify_one();
                Err(Error::Index(error))
            }
            Err(_) if self.0.deps.world.is_stopping() => Err(Error::Stopping),
            Err(_) => {
                self.0.broken.store(true, SeqCst);
                self.0.wake.notify_one();
                Err(Error::Broken)
            }
        }
    }
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Search up to {}", *self.0.reached.borrow())
    }
}
