//! What goes out by itself: one queue per destination on disk, one worker for each that can be reached.
//!
//! A destination that has something to get has a *lane*: a task while it is being served, an entry in a timetable while
//! it is being waited for, nothing at all when its queue is empty. Ten thousand dead servers are ten thousand entries.
//!
//! Receipts, typing and presence are kept in memory and go with the next transaction. If there is none they are gathered for a
//! while: in a room of hundreds of servers each of them would be hundreds of transactions.

mod announce;
mod catch_up;
mod fleeting;
mod follow;
mod lanes;
mod pools;
mod queue;
mod transaction;
mod untaken;

use std::{sync::Arc, time::Duration};

use chappe_accounts::Accounts;
use chappe_rooms::Rooms;
use chappe_store::{Error, following};
use ruma::{OwnedServerName, ServerName, UserId};
use tokio::{sync::Semaphore, time::Instant};

pub use self::fleeting::PresenceNews;
use self::{
    fleeting::Taken,
    follow::Arrivals,
    lanes::Lanes,
    pools::{Place, Pools},
    queue::Delivered,
    transaction::{Batch, LONG_AT_ONCE, Width},
    untaken::Untaken,
};
use crate::Network;

/// The queue of a destination that stays away is shortened at so many times the length at which it is when it is back.
const LONG_QUEUE: usize = 10;
/// A destination that has to wait for longer is looked at all the same.
const LONGEST_WAIT: Duration = Duration::from_hours(1);
/// Destinations whose waits end in one commit, where those of all do.
const RETRIED_TOGETHER: usize = 500;
/// How often the queue of a server that is not talked with is looked at.
const OFF_LIST: Duration = Duration::from_mins(10);

/// Keeps other servers up to date: a handle, clones share it.
#[derive(Clone)]
pub(crate) struct Sender(Arc<Inner>);

struct Inner {
    network: Network,
    rooms: Rooms,
    accounts: Accounts,
    lanes: Lanes,
    delivered: Delivered,
    arrivals: Arrivals,
    pools: Pools,
    /// How many long transactions may be under way.
    long: Arc<Semaphore>,
}

/// What a worker does next.
enum Step {
    /// There may be more.
    Again,
    /// Nothing waits.
    Rest,
    /// Not before this time (milliseconds since the Unix epoch).
    Wait(u64),
    /// The same, unless there was news meanwhile.
    WaitForNews(u64),
}

impl Sender {
    pub(crate) fn new(network: Network, rooms: Rooms, accounts: Accounts) -> Self {
        let pools = Pools::new(network.config().concurrent_sends.max(2));
        let long = Arc::new(Semaphore::new(LONG_AT_ONCE));
        let (lanes, delivered, arrivals) = (Lanes::default(), Delivered::default(), Arrivals::default());
        Self(Arc::new(Inner { network, rooms, accounts, lanes, delivered, arrivals, pools, long }))
    }

    /// Starts following the log and serving what waits.
    pub(crate) fn start(&self) {
        let world = self.0.network.world();
        world.spawn("federation follower", following(self.clone().follow()));
        world.spawn("federation timetable", self.clone().keep_timetable());
        world.spawn("federation revivals", self.clone().watch_revivals());
    }

    /// Whether a remote user came into a room so lately that everybody there was just told to fetch their keys.
    pub(crate) fn has_just_come(&self, user: &UserId) -> bool {
        self.0.arrivals.has(user, self.0.network.world().instant())
    }

    /// Something waits for `destination`.
    pub(crate) fn wake(&self, destination: &ServerName) {
        if self.0.lanes.wake(destination) {
            self.begin(destination.to_owned());
        }
    }

    /// `destination` is to be tried now, whatever it did before.
    pub(crate) fn wake_at_once(&self, destination: &ServerName) {
        if self.0.lanes.wake_at_once(destination) {
            self.begin(destination.to_owned());
        }
    }

    /// Tries `destination` now, and waits for it as if it had failed once.
    pub(crate) async fn retry(&self, destination: &ServerName) -> Result<(), Error> {
        self.0.network.backoff().end_wait(destination).await?;
        self.wake_at_once(destination);
        Ok(())
    }

    /// The same for every destination that something waits for, those first that failed least.
    pub(crate) async fn retry_all(&self) -> Result<(), Error> {
        let mut all = Vec::new();
        for destination in self.waited_for().await? {
            all.push((self.0.network.backoff().state(&destination).await?.failures, destination));
        }
        all.sort_unstable();
        let all: Vec<OwnedServerName> = all.into_iter().map(|(_, destination)| destination).collect();
        for some in all.chunks(RETRIED_TOGETHER) {
            self.0.network.backoff().end_waits(some).await?;
            for destination in some {
                self.wake_at_once(destination);
            }
        }
        Ok(())
    }

    /// Wakes every destination that something waits for.
    async fn wake_all(&self) -> Result<(), Error> {
        for destination in self.waited_for().await? {
            self.wake(&destination);
        }
        Ok(())
    }

    /// The same, those that are waited for included: they may have come onto the list.
    async fn wake_listed(&self) -> Result<(), Error> {
        for destination in self.waited_for().await? {
            self.wake_at_once(&destination);
        }
        Ok(())
    }

    /// Destinations that something waits for.
    async fn waited_for(&self) -> Result<Vec<OwnedServerName>, Error> {
        self.0.network.store().read().outbox_destinations().await
    }

    fn begin(&self, destination: OwnedServerName) {
        self.0.network.world().spawn("federation sender", following(self.clone().serve(destination)));
    }

    /// The life of a worker.
    async fn serve(self, destination: OwnedServerName) {
        let mut width = Width::Full;
        let world = self.0.network.world().clone();
        while !world.is_stopping() {
            let step = tokio::select! {
                step = self.step(&destination, &mut width) => step,
                () = world.stopping() => return,
            };
            match step {
                Ok(Step::Again) => {}
                // What is in memory goes with a transaction of full width alone.
                Ok(Step::Rest) if width != Width::Full => width = Width::Full,
                Ok(Step::Rest) => {
                    if self.0.lanes.rest(&destination, world.instant()) {
                        return;
                    }
                }
                Ok(Step::Wait(until)) => {
                    self.0.lanes.wait(&destination, self.steady(until));
                    // A sign of life that came meanwhile found nobody waiting.
                    if self.may_be_tried(&destination) {
                        self.wake_at_once(&destination);
                    }
                    return;
                }
                Ok(Step::WaitForNews(until)) => {
                    if self.0.lanes.wait_for_news(&destination, self.steady(until)) {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(%destination, %error, "the queue of a destination cannot be worked on");
                    return self.0.lanes.wait_for_repair(&destination, world.instant());
                }
            }
        }
    }

    /// A time of the wall clock, in milliseconds since the Unix epoch, on the steady one.
    fn steady(&self, at: u64) -> Instant {
        let world = self.0.network.world();
        let wait = Duration::from_millis(at.saturating_sub(world.now()));
        world.instant() + wait.min(LONGEST_WAIT)
    }

    /// Whether a wait that was known of is over.
    fn may_be_tried(&self, destination: &ServerName) -> bool {
        let network = &self.0.network;
        let state = network.backoff().at_hand(destination);
        state.is_some_and(|state| state.send_at() <= network.world().now())
    }

    async fn step(&self, destination: &ServerName, width: &mut Width) -> Result<Step, Error> {
        let network = &self.0.network;
        if !network.allowed().permits(destination) {
            return self.put_off(destination).await;
        }
        self.0.lanes.on_list(destination);
        match network.backoff().send_at(destination).await? {
            0 => {}
            until => return Ok(Step::Wait(until)),
        }
        let place = self.place(destination).await?;
        let state = network.backoff().state(destination).await?;
        if state.tried.is_none() && network.backoff().was_away(destination) {
            self.shorten(destination, network.config().catch_up_after).await?;
        }
        let Some(batch) = self.collect(destination, &state, *width).await? else {
            if state.tried.is_some() {
                // What was tried is no longer there: forget it and look at the whole queue.
                network.backoff().delivered(destination).await?;
                return Ok(Step::Again);
            }
            return Ok(Step::Rest);
        };
        self.attempt(destination, batch, width, place).await
    }

    /// Nothing goes to who is off the list. What waits is shortened once that has been so for a while: a list that ends for a
    /// minute, or a clock that jumps, costs nobody anything. Messages to devices go then: while there was no list they were kept
    /// for anybody.
    async fn put_off(&self, destination: &ServerName) -> Result<Step, Error> {
        let network = &self.0.network;
        if self.queued(destination, 1).await?.is_empty() {
            self.0.lanes.drop_fleeting(destination);
            return Ok(Step::Rest);
        }
        self.0.lanes.drop_momentary(destination);
        let (now, pause) = (network.world().now(), u64::try_from(OFF_LIST.as_millis()).unwrap_or(u64::MAX));
        let is_long = |since| now.saturating_sub(since) >= pause;
        let (off, out) = self.0.lanes.off_list(destination, now, !network.allowed().is_closed());
        if out.is_some_and(is_long) && self.drop_messages(destination).await? {
            return Ok(Step::Again);
        }
        if is_long(off) {
            self.shorten_waiting(destination, network.config().catch_up_after).await?;
        }
        Ok(Step::WaitForNews(now.saturating_add(pause)))
    }

    async fn attempt(
        &self,
        destination: &ServerName,
        batch: Batch,
        width: &mut Width,
        place: Place<'_>,
    ) -> Result<Step, Error> {
        let untaken = match self.transmit_in(place, destination, &batch).await {
            Ok(()) => {
                *width = width.after_success();
                return self.delivered(destination, &batch).await;
            }
            Err(untaken) => untaken,
        };
        let may_be_of_it = untaken.may_be_of(&batch);
        if may_be_of_it && !batch.rows.is_empty() {
            // Somebody's fault is in there: find it one by one, and leave it out.
            if !batch.is_smallest() {
                *width = Width::Single(batch.rows.len());
                // They go along with the next one of full width.
                self.0.lanes.give_back(destination, batch.taken);
                return Ok(Step::Again);
            }
            if matches!(untaken, Untaken::Malformed(_)) || self.takes_nothing(destination).await {
                tracing::error!(%destination, %untaken, row = ?batch.rows, "never to be delivered, given up");
                return self.delivered(destination, &batch).await;
            }
        }
        tracing::info!(%destination, %untaken, "a transaction was not taken");
        let (network, tried) = (&self.0.network, batch.tried());
        let again = if may_be_of_it { Taken::default() } else { batch.taken };
        self.0.lanes.give_back(destination, again);
        let state = match untaken {
            Untaken::Unreached => network.backoff().failed(destination, tried).await?,
            Untaken::Refused { again_in, .. } => {
                network.backoff().refused(destination, tried, again_in).await?
            }
            Untaken::Malformed(_) => network.backoff().refused(destination, tried, None).await?,
        };
        let long = network.config().catch_up_after.saturating_mul(LONG_QUEUE);
        self.shorten_waiting(destination, long).await?;
        Ok(Step::Wait(state.send_at()))
    }

    /// What was delivered, or never will be, is done with.
    async fn delivered(&self, destination: &ServerName, batch: &Batch) -> Result<Step, Error> {
        self.leave_queue(&batch.rows).await?;
        self.0.lanes.done(destination, &batch.rows);
        self.0.network.backoff().delivered(destination).await?;
        Ok(Step::Again)
    }

    /// Begins what has waited long enough.
    async fn keep_timetable(self) {
        let world = self.0.network.world().clone();
        while !world.is_stopping() {
            let changed = self.0.lanes.timetable_changed();
            for destination in self.0.lanes.due(world.instant()) {
                self.begin(destination);
            }
            let next = self.0.lanes.next_due().unwrap_or_else(|| world.instant() + LONGEST_WAIT);
            tokio::select! {
                () = world.sleep_until(next) => {}
                () = changed => {}
                () = world.stopping() => {}
            }
        }
    }

    /// Begins with destinations that were reached or heard of by other ways, or that became allowed.
    async fn watch_revivals(self) {
        use tokio::sync::broadcast::error::RecvError;
        let world = self.0.network.world().clone();
        let mut revivals = self.0.network.backoff().revivals();
        let mut lists = self.0.network.allowed().changes();
        while !world.is_stopping() {
            let revived = tokio::select! {
                revived = revivals.recv() => revived,
                Ok(()) = lists.changed() => {
                    if let Err(error) = self.wake_listed().await {
                        tracing::error!(%error, "destinations were not woken");
                    }
                    continue;
                }
                () = world.stopping() => return,
            };
            match revived {
                Ok(destination) => {
                    if self.0.lanes.revive(&destination) {
                        self.begin(destination);
                    }
                }
                // Some were missed: whoever may be tried is.
                Err(RecvError::Lagged(_)) => {
                    self.0.lanes.spread_word();
                    let waiting = self.0.lanes.waiting();
                    for destination in waiting.iter().filter(|destination| self.may_be_tried(destination)) {
                        self.wake_at_once(destination);
                    }
                }
                Err(RecvError::Closed) => return,
            }
        }
    }
}
