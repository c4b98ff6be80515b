//! Transactions of other servers: every event on its own, each room at its own pace, the answer in good time.

mod edus;
mod load;
mod to_device;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chappe_rooms::{Error as RoomError, Outcome};
use chappe_rules::Pdu;
use chappe_store::{
    Error, Json, Position, Tx,
    outbox::{Later, ReceivedLater},
};
use chappe_web::Error as WebError;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, join_all},
};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedEventId, OwnedServerName, RoomId};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{sync::Notify, time::Instant};

use self::load::{Load, Loads};
use crate::{Federation, places::Places};

/// A transaction is answered after this time; what is not done by then is kept on disk and done later.
const PATIENCE: Duration = Duration::from_secs(15);
/// Answers remembered, for transactions that come again.
const REMEMBERED: usize = 10_000;
/// For how long: a server that is set up anew may begin its ids anew.
const REMEMBERED_FOR: Duration = Duration::from_hours(1);

/// Pause before what was kept is tried again; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// For how long it is tried again.
const TRIED_FOR: Duration = Duration::from_hours(1);

/// What a transaction counts for at least, in bytes.
const SMALLEST: usize = 16 << 10;
/// A longer event is none, nor would its reader look at it, in bytes.
const LONGEST_EVENT: usize = 256 << 10;

/// What became of the events: event id → error, if any.
pub(crate) type Results = BTreeMap<OwnedEventId, Result<(), String>>;

type Key = (OwnedServerName, String);
/// One of so many parts of the places is for one server.
const SHARE: usize = 4;

/// What becomes of a transaction; none: it was not taken, and is to come again.
type Work = Shared<BoxFuture<'static, Option<Arc<Results>>>>;

/// What is known of transactions under way and done.
pub(crate) struct Inbound {
    under_way: Mutex<BTreeMap<Key, Work>>,
    /// Each until it is forgotten.
    answered: Cache<Key, (Instant, Arc<Results>)>,
    /// Places for rooms being worked on.
    places: Places,
    loads: Loads,
    /// Word that events which were answered for have to wait until the network opens.
    waits: Notify,
    pub(crate) strangers: edus::Strangers,
}

/// A transaction that is being dealt with, for as long as that lasts, however it ends.
struct UnderWay<'a>(&'a Inbound, &'a Key);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.lock().remove(self.1);
    }
}

impl Inbound {
    pub(crate) fn new(concurrent_rooms: usize) -> Self {
        Self {
            under_way: Mutex::default(),
            answered: Cache::new(REMEMBERED),
            places: Places::new(concurrent_rooms, concurrent_rooms / SHARE),
            loads: Loads::default(),
            waits: Notify::new(),
            strangers: edus::Strangers::default(),
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

/// What the sender is told of an event: what is wrong with it, never what others said of it. That something around it
/// could not be had now is no fault of the event's.
fn told(result: Result<(), RoomError>) -> Result<(), String> {
    match result {
        Ok(()) | Err(RoomError::HostilePeer(_) | RoomError::Peer(_) | RoomError::Unreachable) => Ok(()),
        Err(RoomError::Store(_) | RoomError::Retry) => Err("this server is busy".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn results(outcomes: Vec<Outcome>) -> Results {
    let result = |Outcome { event_id, result }: Outcome| Some((event_id?, told(result)));
    outcomes.into_iter().filter_map(result).collect()
}

/// Whether an event could not be dealt with now, and may be at another time: that something of it is missing may be the fault
/// of a server that is away.
fn is_for_later(outcome: &Outcome) -> bool {
    use RoomError::{HostilePeer, Retry, Store, Unreachable};
    matches!(outcome.result, Err(Unreachable | HostilePeer(_) | Retry | Store(_)))
}

impl Federation {
    /// Deals with a transaction once, however often it comes, and whether or not its sender waits for the answer; 429
    /// while the server has too much under way here, 500 if something could not be kept that is said only once, or if the
    /// network closed over an event: nothing is remembered then, and it is dealt with anew when it comes again.
    pub(crate) async fn receive(&self, received: Received) -> Result<Arc<Results>, WebError> {
        let inbound = &self.0.inbound;
        let key = (received.origin.clone(), received.id.clone());
        if let Some((until, answer)) = inbound.answered.get(&key)
            && until > self.network().world().instant()
        {
            return Ok(answer);
        }
        let work = self.under_way(key, received).ok_or_else(|| WebError::limit_exceeded(PATIENCE))?;
        work.await.ok_or_else(|| WebError::internal("a received transaction was not taken"))
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
    /// worked on.
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
            return ended.map_or_else(|_| Some(Results::new()), |outcomes| self.answer(outcomes));
        }
        match self.keep_for_later(origin, &room, &pdus).await {
            Ok(keys) => {
                let federation = self.clone();
                world.spawn("received events, slow", async move {
                    let Ok(outcomes) = work.await else { return };
                    if federation.has_to_wait(&outcomes) {
                        federation.0.inbound.waits.notify_one();
                    } else if let Err(error) = federation.drop_later(&keys).await {
                        tracing::warn!(%error, "events that were dealt with are still kept for later");
                    }
                });
                Some(Results::new())
            }
            // Not kept: the answer has to wait for the work.
            Err(error) => {
                tracing::warn!(%error, "events cannot be kept for later");
                work.await.map_or_else(|_| Some(Results::new()), |outcomes| self.answer(outcomes))
            }
        }
    }

    fn answer(&self, outcomes: Vec<Outcome>) -> Option<Results> {
        (!self.has_to_wait(&outcomes)).then(|| results(outcomes))
    }

    /// Whether there is no network to talk with, and some event could not be dealt with: perhaps for that.
    fn has_to_wait(&self, outcomes: &[Outcome]) -> bool {
        self.network().allowed().is_closed() && outcomes.iter().any(is_for_later)
    }

    async fn work_in_room(
        &self,
        origin: &OwnedServerName,
        room: &str,
        pdus: &[Box<RawValue>],
    ) -> Vec<Outcome> {
        let _place = self.0.inbound.places.take(origin).await;
        let allowed = match <&RoomId>::try_from(room) {
            Ok(room) => self.acl_allows(origin, room).await.map(|allows| (!allows).then_some(room)),
            Err(_) => Ok(None),
        };
        match allowed {
            Ok(None) => self.0.rooms.receive(origin, pdus.to_vec()).await,
            Ok(Some(room)) => self.denied(room, pdus).await.unwrap_or_default(),
            Err(error) => {
                let failed = |_| Outcome { event_id: None, result: Err(error.clone().into()) };
                pdus.iter().map(failed).collect()
            }
        }
    }

    /// What a server gets that the room's list excludes.
    async fn denied(&self, room: &RoomId, pdus: &[Box<RawValue>]) -> Result<Vec<Outcome>, Error> {
        let reader = self.network().store().read();
        let Some(nid) = reader.room_nid(room).await? else { return Ok(Vec::new()) };
        let version = reader.room_head(nid).await?.version;
        let Some(rules) = chappe_rules::version::rules(&version) else { return Ok(Vec::new()) };
        let denied = |pdu: &RawValue| {
            let pdu = Pdu::parse(rules, pdu.get().as_bytes()).ok()?;
            let result = Err(RoomError::Forbidden("your server is excluded from the room".to_owned()));
            Some(Outcome { event_id: Some(pdu.event_id().to_owned()), result })
        };
        Ok(pdus.iter().filter_map(|pdu| denied(pdu)).collect())
    }

    async fn keep_for_later(
        &self,
        origin: &OwnedServerName,
        room: &str,
        pdus: &[Box<RawValue>],
    ) -> Result<Vec<(String, u64, u16)>, Error> {
        let mut tx = Tx::new();
        for (index, pdu) in (0u16..).zip(pdus) {
            let later = Later { origin: origin.clone(), pdu: pdu.get().to_owned() };
            tx.put_at_position::<ReceivedLater>(&room.to_owned(), &index, &Json(later));
        }
        let position = self.network().store().commit(tx).await?;
        Ok((0u16..).zip(pdus).map(|(index, _)| (room.to_owned(), position.0, index)).collect())
    }

    async fn drop_later(&self, keys: &[(String, u64, u16)]) -> Result<(), Error> {
        let mut tx = Tx::new();
        for key in keys {
            tx.delete::<ReceivedLater>(key);
        }
        self.network().store().commit(tx).await.map(drop)
    }

    /// As if so many rooms' worth of events of `origin` were being worked on.
    #[cfg(test)]
    pub(crate) fn load_of(&self, origin: &OwnedServerName, rooms: usize) -> impl Sized + use<> {
        (0..rooms).map(|_| self.0.inbound.loads.begin_room(origin)).collect::<Vec<_>>()
    }

    /// Whether nothing is being worked on.
    #[cfg(test)]
    pub(crate) fn is_unloaded(&self) -> bool {
        self.0.inbound.loads.is_empty()
    }

    /// Deals with the events that were kept for later when the server stopped, and when the network closed: their senders, who
    /// were told that they had arrived, do not send them again.
    pub(crate) async fn resume(self) -> Result<(), Error> {
        let world = self.network().world();
        while !world.is_stopping() {
            self.take_all_kept().await?;
            tokio::select! {
                () = self.0.inbound.waits.notified() => {}
                () = world.stopping() => {}
            }
        }
        Ok(())
    }

    /// What cannot be had now is tried again for a while, which does not pass while there is no network to talk with: whoever is
    /// of it is not known then.
    async fn take_all_kept(&self) -> Result<(), Error> {
        let world = self.network().world();
        let kept_until = self.network().store().read().position();
        let allowed = self.network().allowed();
        let (mut pause, mut end) = (FIRST_PAUSE, world.instant() + TRIED_FOR);
        loop {
            if allowed.is_closed() {
                tokio::select! {
                    () = allowed.until_open() => {}
                    () = world.stopping() => return Ok(()),
                }
                (pause, end) = (FIRST_PAUSE, world.instant() + TRIED_FOR);
            }
            let gives_up = world.instant() >= end;
            if !self.take_kept(kept_until, gives_up).await? {
                return Ok(());
            }
            tokio::select! {
                () = world.sleep(pause) => {}
                () = world.stopping() => return Ok(()),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Tries all that has been kept up to a commit; says whether some of it is kept on.
    async fn take_kept(&self, until: Position, gives_up: bool) -> Result<bool, Error> {
        const PAGE: usize = 100;
        let (mut from, mut keeps) = ((String::new(), 0_u64, 0_u16), false);
        loop {
            let reader = self.network().store().read();
            let rows = reader.scan_from::<ReceivedLater>(&(), &from, PAGE).await?;
            drop(reader);
            let Some(((room, at, index), _)) = rows.last() else { return Ok(keeps) };
            from = (room.clone(), *at, index.saturating_add(1));
            let mut done = Vec::new();
            for (key, Json(Later { origin, pdu })) in rows.into_iter().filter(|(key, _)| key.1 <= until.0) {
                let outcomes = match RawValue::from_string(pdu) {
                    Ok(pdu) => self.work_in_room(&origin, &key.0, &[pdu]).await,
                    Err(_) => Vec::new(),
                };
                // The network may have closed meanwhile.
                let keeps_on = !gives_up || self.network().allowed().is_closed();
                if keeps_on && outcomes.iter().any(is_for_later) {
                    keeps = true;
                } else {
                    done.push(key);
                }
            }
            if !done.is_empty() {
                self.drop_later(&done).await?;
            }
        }
    }
}
