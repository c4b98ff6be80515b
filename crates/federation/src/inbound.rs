//! Transactions of other servers: every event on its own, each room at its own pace, the answer in good time.

mod edus;
mod later;
mod load;
mod room;
mod to_device;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use chappe_rooms::{Error as RoomError, Outcome};
use chappe_web::Error as WebError;
use chappe_world::World;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, join_all},
};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedEventId, OwnedServerName};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use self::{
    later::are_for_later,
    load::{Load, Loads},
    room::Turns,
};
use crate::Federation;

/// A transaction is answered after this time; what is not done by then is kept on disk and done later.
const PATIENCE: Duration = Duration::from_secs(15);
/// Answers remembered, for transactions that come again.
const REMEMBERED: usize = 10_000;
/// For how long: a server that is set up anew may begin its ids anew.
const REMEMBERED_FOR: Duration = Duration::from_hours(1);

/// What a transaction counts for at least, in bytes.
const SMALLEST: usize = 16 << 10;
/// A longer event is none, nor would its reader look at it, in bytes.
const LONGEST_EVENT: usize = 256 << 10;

/// What became of the events: event id → error, if any.
pub(crate) type Results = BTreeMap<OwnedEventId, Result<(), String>>;

type Key = (OwnedServerName, String);

/// What becomes of a transaction; none: it was not taken, and is to come again.
type Work = Shared<BoxFuture<'static, Option<Arc<Results>>>>;

/// What is known of transactions under way and done.
pub(crate) struct Inbound {
    under_way: Mutex<BTreeMap<Key, Work>>,
    /// Each until it is forgotten.
    answered: Cache<Key, (Instant, Arc<Results>)>,
    turns: Turns,
    loads: Loads,
    /// What is tried again of events that were answered for.
    kept: Loads,
    pub(crate) strangers: edus::Strangers,
    /// How often the work on events broke down.
    broken: AtomicUsize,
}

/// A transaction that is being dealt with, for as long as that lasts, however it ends.
struct UnderWay<'a>(&'a Inbound, &'a Key);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.lock().remove(self.1);
    }
}

impl Inbound {
    pub(crate) fn new(world: &World, concurrent_rooms: usize) -> Self {
        Self {
            under_way: Mutex::default(),
            answered: Cache::new(REMEMBERED),
            turns: Turns::new(world, concurrent_rooms),
            loads: Loads::default(),
            kept: Loads::default(),
            strangers: edus::Strangers::default(),
            broken: AtomicUsize::default(),
        }
    }
}

/// A transaction as received.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) origin: OwnedServerName,
    pub(crate) id: String,
    pub(crate) pdus: Vec<Box<RawValue>>,
    pub(crate) edus: Vec<Box<RawValue>>,
}

impl Received {
    /// What it takes in memory, roughly.
    fn bytes(&self) -> usize {
        let parts = self.pdus.iter().chain(&self.edus);
        parts.map(|part| part.get().len()).sum::<usize>().max(SMALLEST)
    }
}

#[derive(Deserialize)]
struct Placed {
    room_id: Option<String>,
}

/// What the sender is told of an event: what is wrong with it, never what others said of it. Nothing, which the specification has
/// for success, also where something around it could not be had: that is no fault of the event's, it may wait here for a server
/// that is away, senders do no more with an error than log it, and Complement takes one for a failure of the server
/// (`TestCorruptedAuthChain`, where the event is dropped).
fn told(result: Result<(), RoomError>) -> Result<(), String> {
    match result {
        Ok(()) | Err(RoomError::HostilePeer(_) | RoomError::Peer(_) | RoomError::Unreachable) => Ok(()),
        Err(RoomError::Store(_)) => Err("this server cannot deal with it".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn results(outcomes: Vec<Outcome>) -> Results {
    let result = |Outcome { event_id, result }: Outcome| Some((event_id?, told(result)));
    outcomes.into_iter().filter_map(result).collect()
}

impl Federation {
    /// Deals with a transaction once, however often it comes, and whether or not its sender waits for the answer; 429
    /// while the server has too much under way here, 500 if something could not be kept, or if the network closed over an
    /// event, 503 if this server stops over one: nothing is remembered then, and it is dealt with anew when it comes again.
    pub(crate) async fn receive(&self, received: Received) -> Result<Arc<Results>, WebError> {
        let inbound = &self.0.inbound;
        let key = (received.origin.clone(), received.id.clone());
        if let Some((until, answer)) = inbound.answered.get(&key)
            && until > self.network().world().instant()
        {
            return Ok(answer);
        }
        let work = self.under_way(key, received).ok_or_else(|| WebError::limit_exceeded(PATIENCE))?;
        work.await.ok_or_else(|| {
            if self.network().world().is_stopping() {
                WebError::busy()
            } else {
                WebError::internal("a received transaction was not taken")
            }
        })
    }

    /// The work on a transaction, begun now if it is not under way; none if there is no room for it.
    fn under_way(&self, key: Key, received: Received) -> Option<Work> {
        let inbound = &self.0.inbound;
        let mut under_way = inbound.under_way.lock();
        if let Some(work) = under_way.get(&key) {
            return Some(work.clone());
        }
        let load = inbound.loads.admit(&received.origin, received.bytes())?;
        let work = self.begin(key.clone(), received, load);
        under_way.insert(key, work.clone());
        Some(work)
    }

    fn begin(&self, key: Key, received: Received, load: Load) -> Work {
        let federation = self.clone();
        let work = async move {
            let inbound = &federation.0.inbound;
            let _under_way = UnderWay(inbound, &key);
            let results = federation.work(received, load).await.ok().map(Arc::new);
            if let Some(results) = &results {
                let until = federation.network().world().instant() + REMEMBERED_FOR;
                inbound.answered.insert(key.clone(), (until, Arc::clone(results)));
            }
            results
        };
        let ended = self.network().world().spawn("received transaction", work);
        ended.map(|ended| ended.ok().flatten()).boxed().shared()
    }

    async fn work(&self, received: Received, mut load: Load) -> Result<Results, chappe_accounts::Error> {
        let Received { origin, pdus, edus, .. } = received;
        let mut rooms: BTreeMap<String, Vec<Box<RawValue>>> = BTreeMap::new();
        let mut bytes = 0;
        for pdu in pdus.into_iter().filter(|pdu| pdu.get().len() <= LONGEST_EVENT) {
            let placed: Option<Placed> = serde_json::from_str(pdu.get()).ok();
            let room = placed.and_then(|placed| placed.room_id).unwrap_or_default();
            bytes += pdu.get().len();
            rooms.entry(room).or_default().push(pdu);
        }
        let of_rooms = Arc::new(load.split_off(if rooms.is_empty() { 0 } else { bytes.max(SMALLEST) }));
        let in_rooms = rooms
            .into_iter()
            .map(|(room, pdus)| self.work_in_time(&origin, room, pdus.into(), Arc::clone(&of_rooms)));
        let in_rooms: Vec<_> = in_rooms.collect();
        drop(of_rooms);
        let edus = async {
            let taken = self.take_edus(&origin, edus).await;
            drop(load);
            taken
        };
        let (results, taken) = futures_util::join!(join_all(in_rooms), edus);
        taken?;
        let results: Option<Vec<Results>> = results.into_iter().collect();
        Ok(results.ok_or(chappe_accounts::Error::Busy)?.into_iter().flatten().collect())
    }

    /// The events of one room; none if they are to come again. When that takes too long they are kept on disk, and go on being
    /// worked on; so are those for which a server is needed that is away.
    async fn work_in_time(
        &self,
        origin: &OwnedServerName,
        room: String,
        pdus: Arc<[Box<RawValue>]>,
        load: Arc<Load>,
    ) -> Option<Results> {
        let world = self.network().world();
        let (federation, sender, at, events) = (self.clone(), origin.clone(), room.clone(), pdus.clone());
        // That of the transaction's events lasts until the last of its rooms is done.
        let loads = (self.0.inbound.loads.begin_room(origin), load);
        let mut work = world.spawn("received events", async move {
            let _loads = loads;
            federation.work_in_room(&sender, &at, &events).await
        });
        if let Some(ended) = world.timeout(PATIENCE, &mut work).await {
            let outcomes = ended.ok()?;
            if self.comes_again(&outcomes) {
                return None;
            }
            if let Err(error) = self.put_off(origin, &room, &pdus, &outcomes).await {
                tracing::warn!(%error, "events cannot be kept for later");
                return None;
            }
            return Some(results(outcomes));
        }
        match self.keep(origin, &room, &pdus).await {
            Ok(kept) => {
                let federation = self.clone();
                world.spawn("received events, slow", async move {
                    // Where this server stops over them they stay until the next start.
                    let Ok(outcomes) = work.await else { return };
                    federation.go_on(kept, are_for_later(&outcomes)).await;
                });
                Some(Results::new())
            }
            // Not kept: the answer has to wait for the work.
            Err(error) => {
                tracing::warn!(%error, "events cannot be kept for later");
                let outcomes = work.await.ok()?;
                (!are_for_later(&outcomes)).then(|| results(outcomes))
            }
        }
    }

    /// As if so many rooms' worth of events of `origin` were being worked on.
    #[cfg(test)]
    pub(crate) fn load_of(&self, origin: &OwnedServerName, rooms: usize) -> impl Sized + use<> {
        (0..rooms).map(|_| self.0.inbound.loads.begin_room(origin)).collect::<Vec<_>>()
    }

    /// How often the work on events broke down.
    #[cfg(test)]
    pub(crate) fn breakdowns(&self) -> usize {
        self.0.inbound.broken.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Whether nothing is being worked on.
    #[cfg(test)]
    pub(crate) fn is_unloaded(&self) -> bool {
        self.0.inbound.loads.is_empty()
    }
}
