//! Turns: one writer of a room at a time in this process, and drafts that arrive meanwhile share the next commit.
//!
//! For speed alone. That nobody else wrote in between is the head's business.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Weak},
};

use chappe_rules::policy::{Bypass, Door};
use chappe_store::{EventNum, transactions::TransactionKey};
use parking_lot::Mutex;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, oneshot};

use crate::{
    Actor, Draft, Error, Inner, Result, Rooms, Standing,
    author::By,
    desk::Desk,
    send::{bypass_of, not_in_room, says_membership},
};

/// How often an operation is tried again when another writer was first.
pub(crate) const ATTEMPTS: usize = 20;
/// How often a policy server is asked without holding the room's turn: others may then write first, and it is asked anew.
pub(crate) const UNHELD: usize = 5;
/// Drafts that share a commit at most.
const TOGETHER: usize = 128;
/// Bytes of content that share a commit at most.
const TOGETHER_BYTES: usize = 1 << 20;

/// A draft that waits for its commit.
pub(crate) struct Job {
    pub(crate) sender: OwnedUserId,
    pub(crate) bypass: Bypass,
    pub(crate) draft: Draft,
    pub(crate) txn: Option<TransactionKey>,
    /// The delayed event that this was until now.
    pub(crate) delayed: Option<String>,
    /// Whether the sender is a guest.
    pub(crate) is_guest: bool,
}

impl Job {
    pub(crate) fn new(actor: &Actor, draft: Draft) -> Self {
        let (sender, is_guest) = (actor.user.clone(), actor.standing == Standing::Guest);
        Self { sender, bypass: bypass_of(actor), draft, txn: None, delayed: None, is_guest }
    }

    /// Whether the sender leaves.
    fn is_farewell(&self) -> bool {
        says_membership(&self.draft, "leave") && self.draft.state_key.as_deref() == Some(self.sender.as_str())
    }
}

struct Waiting {
    job: Job,
    bytes: usize,
    done: oneshot::Sender<Result<OwnedEventId>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Whether a task works on the queue.
    served: bool,
}

/// The turn of one room.
#[derive(Default)]
pub(crate) struct Turn {
    writing: Arc<AsyncMutex<()>>,
    queue: Mutex<Queue>,
}

/// The turns of all rooms that somebody writes to right now.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<OwnedRoomId, Weak<Turn>>>);

impl Turns {
    fn of(&self, room: &RoomId) -> Arc<Turn> {
        let mut turns = self.0.lock();
        if let Some(turn) = turns.get(room).and_then(Weak::upgrade) {
            return turn;
        }
        if turns.len() > 1_000 {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::new(Turn::default());
        turns.insert(room.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

/// Held while a room is written to.
pub(crate) struct Held {
    _turn: Arc<Turn>,
    _guard: OwnedMutexGuard<()>,
}

impl Inner {
    /// Waits for the turn to write to a room.
    pub(crate) async fn turn(&self, room: &RoomId) -> Held {
        let turn = self.turns.of(room);
        let guard = turn.writing.clone().lock_owned().await;
        Held { _turn: turn, _guard: guard }
    }
}

impl Rooms {
    /// Has a draft committed, together with whatever else waits for this room.
    pub(crate) async fn submit(&self, room: &RoomId, job: Job) -> Result<OwnedEventId> {
        let turn = self.0.turns.of(room);
        let (done, result) = oneshot::channel();
        let bytes = serde_json::to_vec(&job.draft.content).map_or(0, |bytes| bytes.len());
        let serve = {
            let mut queue = turn.queue.lock();
            if queue.waiting.len() >= self.0.config().queue_per_room {
                return Err(Error::Retry);
            }
            queue.waiting.push_back(Waiting { job, bytes, done });
            !std::mem::replace(&mut queue.served, true)
        };
        if serve {
            let (rooms, room) = (self.clone(), room.to_owned());
            // A task of its own: a client that hangs up must not take the others' events with it.
            drop(self.0.world.spawn("room writer", async move { rooms.serve_queue(&room, &turn).await }));
        }
        result.await.unwrap_or(Err(Error::Retry))
    }

    async fn serve_queue(&self, room: &RoomId, turn: &Arc<Turn>) {
        let mut serving = Serving(Some(turn));
        loop {
            let writing = turn.writing.clone().lock_owned().await;
            let Some(batch) = next_batch(turn) else {
                serving.0 = None;
                return;
            };
            let (jobs, done): (Vec<Job>, Vec<_>) =
                batch.into_iter().map(|waiting| (waiting.job, waiting.done)).unzip();
            let mut results = self.0.commit_jobs(room, &jobs).await;
            drop(writing);
            if results.iter().any(|result| matches!(result, Err(Error::Unasked(_)))) {
                results = self.0.commit_singly(room, turn, &jobs).await;
            }
            for (done, result) in done.into_iter().zip(results) {
                // Whoever hung up does not need the answer.
                let _ = done.send(result);
            }
        }
    }
}

/// A queue that is being served. If that breaks down, whoever waits is told so, and the next draft is served again.
struct Serving<'a>(Option<&'a Turn>);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let Some(turn) = self.0 else { return };
        let mut queue = turn.queue.lock();
        queue.served = false;
        queue.waiting.clear();
    }
}

/// Whoever leaves may give its power away first: that is not to be committed with what others say if the leave is refused.
fn next_batch(turn: &Turn) -> Option<Vec<Waiting>> {
    let mut queue = turn.queue.lock();
    let mut bytes = 0;
    let mut batch: Vec<Waiting> = Vec::new();
    while batch.len() < TOGETHER
        && !batch.last().is_some_and(|last| last.job.is_farewell())
        && let Some(waiting) = queue.waiting.pop_front_if(|next| {
            batch.is_empty() || (bytes + next.bytes <= TOGETHER_BYTES && !next.job.is_farewell())
        })
    {
        bytes += waiting.bytes;
        batch.push(waiting);
    }
    queue.served = !batch.is_empty();
    (!batch.is_empty()).then_some(batch)
}

/// What a commit of several drafts came to.
struct Round {
    results: Vec<Result<OwnedEventId>>,
    made: bool,
}

impl Inner {
    /// Commits drafts of a room with a policy server one after the other, each with its leave.
    async fn commit_singly(&self, room: &RoomId, turn: &Turn, jobs: &[Job]) -> Vec<Result<OwnedEventId>> {
        let mut results = Vec::with_capacity(jobs.len());
        for job in jobs {
            results.push(self.commit_asking(room, turn, job).await);
        }
        results
    }

    async fn commit_asking(&self, room: &RoomId, turn: &Turn, job: &Job) -> Result<OwnedEventId> {
        let (now, mut writing) = (self.now(), None);
        for attempt in 0..ATTEMPTS {
            if writing.is_none() {
                writing = Some(turn.writing.clone().lock_owned().await);
            }
            match self.try_jobs(room, std::slice::from_ref(job), now).await {
                Ok(mut results) => return results.pop().unwrap_or(Err(Error::Retry)),
                Err(Error::Unasked(event)) => {
                    if attempt < UNHELD {
                        writing = None;
                    }
                    self.ask_policy_server(&event).await?;
                }
                Err(Error::Retry) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Retry)
    }

    async fn commit_jobs(&self, room: &RoomId, jobs: &[Job]) -> Vec<Result<OwnedEventId>> {
        let now = self.now();
        for _ in 0..ATTEMPTS {
            match self.try_jobs(room, jobs, now).await {
                Ok(results) => return results,
                Err(Error::Retry) => {}
                Err(error) => return jobs.iter().map(|_| Err(error.clone())).collect(),
            }
        }
        jobs.iter().map(|_| Err(Error::Retry)).collect()
    }

    async fn try_jobs(
        &self,
        room: &RoomId,
        jobs: &[Job],
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<Vec<Result<OwnedEventId>>> {
        let mut desk = Desk::open(self, room).await?;
        desk.now = now;
        let is_here = desk.is_here().await?;
        let mut round = Round { results: Vec::with_capacity(jobs.len()), made: false };
        let mut sent: HashSet<&String> = HashSet::new();
        let mut before: HashMap<&TransactionKey, OwnedEventId> = HashMap::new();
        for job in jobs {
            let known = match &job.txn {
                Some(key) => match before.get(key) {
                    Some(event) => Some(event.clone()),
                    None => desk.reader.transaction(key).await?,
                },
                None => None,
            };
            let is_sent = job.delayed.as_ref().is_some_and(|id| !sent.insert(id));
            let result = match known {
                Some(event) => Ok(event),
                None if is_sent => Err(Error::Ended),
                // What is left to those whom an absent server's user has invited is to turn the invite down.
                None if !is_here && !job.is_farewell() => Err(not_in_room()),
                None => desk.author_job(job).await.map(|(event, _)| {
                    round.made = true;
                    event
                }),
            };
            if let (Some(key), Ok(event)) = (&job.txn, &result) {
                before.insert(key, event.clone());
            }
            round.results.push(not_fatal(result)?);
        }
        if round.made {
            self.store.commit(desk.seal()).await?;
        }
        Ok(round.results)
    }
}

/// A failing store fails all that is to be committed together, and so does an event that a policy server is to see first; a
/// refused draft only itself.
pub(crate) fn not_fatal<T>(result: Result<T>) -> Result<Result<T>> {
    match result {
        Err(error @ (Error::Store(_) | Error::Retry | Error::Unasked(_))) => Err(error),
        other => Ok(other),
    }
}

impl Desk<'_> {
    async fn author_job(&mut self, job: &Job) -> Result<(OwnedEventId, EventNum)> {
        let delayed = match &job.delayed {
            Some(id) => Some((id, self.check_waiting(id).await?)),
            None => None,
        };
        self.check_effects(&job.sender, &job.draft).await?;
        let by = By { sender: &job.sender, bypass: job.bypass, door: Door::Local };
        if job.is_guest && says_membership(&job.draft, "join") {
            self.admit_guest(&job.sender).await?;
        }
        if job.is_farewell() {
            self.hand_over(&job.sender).await?;
        }
        let authored = self.author(by, job.draft.clone()).await?;
        self.redact_related(by, &job.draft).await?;
        if let Some((id, delayed)) = &delayed {
            self.delayed_is_sent(id, delayed, &authored);
        }
        if let Some(key) = &job.txn {
            self.tx.put_transaction(key, self.inner.world.now(), (self.nid, authored.num));
        }
        Ok((authored.event_id, authored.num))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::resume_unwind,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::Relaxed},
        },
        time::Duration,
    };

    use chappe_kv::{Batch, Db, Fault, Faulty, Memory};
    use parking_lot::Mutex;
    use serde_json::json;

    use crate::{
        Error,
        tests::net::{ALICE, Net, actor, room, state},
    };

    #[tokio::test(start_paused = true)]
    async fn a_queue_whose_writer_breaks_down_is_served_again() {
        let breaks = Arc::new(AtomicBool::new(false));
        let broken = breaks.clone();
        let plan = move |_: &Batch| -> Option<Fault> {
            if broken.swap(false, Relaxed) {
                resume_unwind(Box::new("it breaks down"));
            }
            None
        };
        let db = Db::new(Faulty::new(Memory::default(), Arc::new(Mutex::new(plan))));
        let rooms = Net::default().server_on("a.example", 1, db);
        let id = room(&rooms, ALICE, json!({})).await;
        // Somebody waits all the while.
        let _turn = rooms.0.turns.of(&id);
        let alice = actor(ALICE);
        let named = |name: &str| state("m.room.name", "", &json!({ "name": name }));
        let send = |name: &str| rooms.send(&alice, &id, named(name), None);
        breaks.store(true, Relaxed);
        assert!(matches!(send("lost").await, Err(Error::Retry)));
        let next = rooms.0.world.timeout(Duration::from_mins(1), send("next")).await;
        assert!(matches!(next, Some(Ok(_))), "{next:?}");
    }
}
