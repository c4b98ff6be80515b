//! Following the log: who has to be woken by what. Users who are not attached cost nothing.

mod crowds;
mod ends;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use chappe_store::{
    At, Entry, EventNum, LogEntry, Membership, Position, Reader, RoomNid, Store, following,
    members::{UserRoom, UserRooms},
};
use chappe_world::World;
use parking_lot::{Mutex, RwLock};
use ruma::{OwnedUserId, UserId};
use tokio::{sync::watch, time::Instant};

pub(crate) use self::crowds::Crowds;
#[cfg(test)]
pub(crate) use self::crowds::FEW;
use self::ends::Changes;
use crate::{
    peek::Peeks,
    signal::{Signal, Touch},
};

/// Wait after the log could not be read.
const AGAIN: Duration = Duration::from_millis(200);
/// A user stays attached for so long after their last sync.
const STAYS: Duration = Duration::from_mins(5);
/// How often attachments are looked through.
const SWEEP: Duration = Duration::from_mins(1);
/// Log entries taken at once.
const BATCH: usize = 1_000;
/// Rooms asked about at once.
const CHUNK: usize = 500;

type Error = chappe_store::Error;
type ByUser = HashMap<OwnedUserId, Arc<Signal>>;
type ByRoom = HashMap<RoomNid, BTreeMap<OwnedUserId, Arc<Signal>>>;

/// The numbers of typing and presence changes.
#[derive(Default)]
struct Fleeting {
    last: u64,
    /// Those of which not everybody has been told yet whom they concern.
    under_way: BTreeSet<u64>,
}

/// The number of a typing or presence change, until everybody has been told of it whom it concerns.
pub(crate) struct Numbered<'a> {
    wake: &'a Wake,
    pub(crate) sequence: u64,
}

impl Drop for Numbered<'_> {
    fn drop(&mut self) {
        self.wake.fleeting.lock().under_way.remove(&self.sequence);
    }
}

/// A user's turn to be attached.
struct Turn<'a> {
    wake: &'a Wake,
    user: &'a UserId,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut attaching = self.wake.attaching.lock();
        self.lock = Arc::default();
        // While somebody else waits for their turn they need it.
        if attaching.get(self.user).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            attaching.remove(self.user);
        }
    }
}

/// A user who is being attached: taken away if that is given up, by an error or because the client hangs up.
struct Half<'a> {
    wake: &'a Wake,
    signal: Arc<Signal>,
}

impl Drop for Half<'_> {
    fn drop(&mut self) {
        self.wake.take_away(&self.signal.user, |signal| !signal.has_begun());
    }
}

/// The attached users and the follower that wakes them.
pub(crate) struct Wake {
    store: Store,
    world: World,
    users: RwLock<ByUser>,
    rooms: RwLock<ByRoom>,
    /// What is told to many at once.
    crowds: Arc<Crowds>,
    /// What changed the end of each room since `born`.
    events: RwLock<HashMap<RoomNid, Changes>>,
    /// The last receipt of each room since `born`.
    receipts: RwLock<HashMap<RoomNid, Position>>,
    /// The last event or receipt of rooms before that, as far as somebody asked.
    before: RwLock<HashMap<RoomNid, Position>>,
    /// The last sticky event of each room that has any; none until they are loaded.
    sticky: RwLock<Option<HashMap<RoomNid, Position>>>,
    born: Position,
    reached: watch::Sender<Position>,
    /// The last entry whose handling has begun.
    begun: AtomicU64,
    /// The last commit that changed anybody's pushers.
    pushers: AtomicU64,
    fleeting: Mutex<Fleeting>,
    /// One is attached at a time of each user.
    attaching: Mutex<HashMap<OwnedUserId, Arc<tokio::sync::Mutex<()>>>>,
    /// Rooms that somebody looks into without being in them.
    pub(crate) peeks: Peeks,
}

impl Wake {
    pub(crate) fn new(store: Store, world: World, born: Position) -> Self {
        Self {
            store,
            world,
            users: RwLock::default(),
            rooms: RwLock::default(),
            crowds: Arc::default(),
            events: RwLock::default(),
            receipts: RwLock::default(),
            before: RwLock::default(),
            sticky: RwLock::default(),
            born,
            reached: watch::Sender::new(born),
            begun: AtomicU64::new(born.0),
            pushers: AtomicU64::new(0),
            fleeting: Mutex::default(),
            attaching: Mutex::default(),
            peeks: Peeks::default(),
        }
    }

    pub(crate) fn attached(&self) -> usize {
        self.users.read().len()
    }

    /// Whether anybody's pushers changed after a position, as far as the follower has come.
    pub(crate) fn pushers_changed(&self, after: Position) -> bool {
        self.pushers.load(SeqCst) > after.0
    }

    /// The last commit when this process began.
    pub(crate) fn born(&self) -> Position {
        self.born
    }

    /// How far the follower has come.
    pub(crate) fn reached(&self) -> Position {
        *self.reached.borrow()
    }

    /// Waits until the follower has come that far. Once the server stops it may have gone for good.
    pub(crate) async fn reach(&self, position: Position) -> Result<(), crate::Error> {
        if self.reached() >= position {
            return Ok(());
        }
        let mut reached = self.reached.subscribe();
        tokio::select! {
            biased;
            // The sender lives as long as `self`: the wait cannot fail.
            _ = reached.wait_for(|reached| *reached >= position) => Ok(()),
            () = self.world.stopping() => Err(crate::Error::Stopping),
        }
    }

    /// The last typing or presence change up to which everybody has been told of every one.
    pub(crate) fn fleeting(&self) -> u64 {
        let fleeting = self.fleeting.lock();
        fleeting.under_way.first().map_or(fleeting.last, |first| first - 1)
    }

    /// The number of the next typing or presence change. Note the change under it where those whom it concerns look, and let
    /// go of it without waiting for anything in between: whoever asks meanwhile is told that they have not seen it.
    pub(crate) fn next_fleeting(&self) -> Numbered<'_> {
        let mut fleeting = self.fleeting.lock();
        fleeting.last += 1;
        let sequence = fleeting.last;
        fleeting.under_way.insert(sequence);
        Numbered { wake: self, sequence }
    }

    /// The store that is followed.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Whether sticky events may have come into a room after a position.
    pub(crate) fn may_stick(&self, nid: RoomNid, after: Position) -> bool {
        let sticky = self.sticky.read();
        sticky.as_ref().is_none_or(|rooms| rooms.get(&nid).is_some_and(|last| *last > after))
    }

    /// The attached users of a room.
    pub(crate) fn in_room(&self, nid: RoomNid) -> Vec<Arc<Signal>> {
        self.rooms.read().get(&nid).map(|users| users.values().cloned().collect()).unwrap_or_default()
    }

    /// The attached users of some rooms for whom it is news that changes of presence up to a number may be told.
    pub(crate) fn hear(&self, rooms: &BTreeSet<RoomNid>, number: u64) -> Vec<Arc<Signal>> {
        let mut hearing = Vec::new();
        for nid in rooms {
            if let Some(users) = self.rooms.read().get(nid) {
                hearing.extend(users.values().filter(|signal| signal.hear(number)).cloned());
            }
        }
        hearing
    }

    /// An attached user.
    pub(crate) fn user(&self, user: &UserId) -> Option<Arc<Signal>> {
        self.users.read().get(user).cloned()
    }

    /// Attaches a user; one look-up when they already are.
    pub(crate) async fn attach(&self, user: &UserId) -> Result<Arc<Signal>, Error> {
        if let Some(signal) = self.seen(user) {
            return Ok(signal);
        }
        let lock = self.attaching.lock().entry(user.to_owned()).or_default().clone();
        let turn = Turn { wake: self, user, lock };
        let _held = turn.lock.lock().await;
        match self.seen(user) {
            Some(signal) => Ok(signal),
            None => self.attach_new(user).await,
        }
    }

    /// An attached user who stays so for a while from now on: noted before anybody can detach them.
    fn seen(&self, user: &UserId) -> Option<Arc<Signal>> {
        let users = self.users.read();
        // Whoever does not know their rooms yet is still being attached, or was given up.
        let signal = users.get(user).filter(|signal| signal.has_begun())?;
        signal.see(self.world.instant());
        Some(signal.clone())
    }

    async fn attach_new(&self, user: &UserId) -> Result<Arc<Signal>, Error> {
        let signal = Arc::new(Signal::new(user.to_owned(), self.world.instant(), self.crowds.clone()));
        self.users.write().insert(user.to_owned(), signal.clone());
        let half = Half { wake: self, signal };
        self.register(&half.signal).await?;
        Ok(half.signal.clone())
    }

    /// Registers the rooms of a user whom own membership changes reach already. What happens in the rooms from the
    /// follower's place at the end of this on is remembered.
    async fn register(&self, signal: &Arc<Signal>) -> Result<(), Error> {
        let reader = self.store.read();
        for (nid, at) in reader.user_rooms(&signal.user).await? {
            self.set_joined(signal, nid, at.value.membership == Membership::Join, reader.position());
        }
        // An entry begun after this sees the registrations; those begun before may have missed them.
        let fleeting = self.fleeting.lock().last;
        signal.begin(Position(self.begun.load(SeqCst)).max(reader.position()), fleeting);
        Ok(())
    }

    fn set_joined(&self, signal: &Arc<Signal>, nid: RoomNid, joined: bool, at: Position) {
        let mut rooms = self.rooms.write();
        let mut own = signal.rooms.lock();
        if own.get(&nid).is_some_and(|(_, known)| *known > at) {
            return;
        }
        own.insert(nid, (joined, at));
        if joined {
            rooms.entry(nid).or_default().insert(signal.user.clone(), signal.clone());
        } else if let Some(users) = rooms.get_mut(&nid) {
            users.remove(&signal.user);
            if users.is_empty() {
                rooms.remove(&nid);
            }
        }
    }

    /// Detaches a user, unless they have come back since.
    fn detach(&self, user: &UserId, since: Instant) {
        self.take_away(user, |signal| signal.is_gone(since));
    }

    fn take_away(&self, user: &UserId, is_over: impl FnOnce(&Signal) -> bool) {
        let mut rooms = self.rooms.write();
        let mut users = self.users.write();
        if !users.get(user).is_some_and(|signal| is_over(signal)) {
            return;
        }
        let Some(signal) = users.remove(user) else { return };
        drop(users);
        for nid in signal.rooms.lock().keys() {
            if let Some(users) = rooms.get_mut(nid) {
                users.remove(user);
                if users.is_empty() {
                    rooms.remove(nid);
                }
            }
        }
    }

    fn sweep(&self) {
        let Some(since) = self.world.instant().checked_sub(STAYS) else { return };
        for user in self.gone(since) {
            self.detach(&user, since);
        }
        // Whoever is attached later has no need of what was noted before.
        let rooms = self.rooms.read();
        self.crowds.keep(|nid| rooms.contains_key(&nid));
    }

    /// Who has not been heard of since.
    fn gone(&self, since: Instant) -> Vec<OwnedUserId> {
        let users = self.users.read();
        users.values().filter(|signal| signal.is_gone(since)).map(|signal| signal.user.clone()).collect()
    }

    /// Starts the follower; it ends with the world.
    pub(crate) fn follow(self: &Arc<Self>) {
        let wake = self.clone();
        drop(self.world.spawn("delivery-wake", following(async move { wake.keep_up().await })));
    }

    async fn keep_up(&self) {
        let mut visible = self.store.visible();
        let mut sweep = self.world.interval(SWEEP);
        match self.store.read().sticky_rooms().await {
            Ok(rooms) => *self.sticky.write() = Some(rooms.into_iter().collect()),
            Err(error) => {
                tracing::error!(%error, "sticky events cannot be read, looking for them everywhere");
            }
        }
        loop {
            tokio::select! {
                () = self.world.stopping() => return,
                _ = sweep.tick() => self.sweep(),
                changed = visible.changed() => if changed.is_err() { return },
            }
            while let Err(error) = self.catch_up().await {
                tracing::error!(%error, "the log cannot be read, trying again");
                tokio::select! {
                    () = self.world.stopping() => return,
                    () = self.world.sleep(AGAIN) => {}
                }
            }
        }
    }

    async fn catch_up(&self) -> Result<(), Error> {
        let reader = self.store.read();
        loop {
            let after = self.reached();
            let entries = reader.log_after(after, BATCH).await?;
            let Some(last) = entries.last().map(|entry| entry.position) else { break };
            for entry in &entries {
                self.begun.store(entry.position.0, SeqCst);
                self.handle(&reader, entry).await?;
            }
            self.reached.send_replace(last);
        }
        // Commits without log entries count too.
        self.reached.send_if_modified(|reached| {
            let behind = *reached < reader.position();
            *reached = (*reached).max(reader.position());
            behind
        });
        Ok(())
    }

    async fn handle(&self, reader: &Reader<'_>, entry: &Entry) -> Result<(), Error> {
        let at = entry.position;
        match &entry.what {
            LogEntry::Event { room, event, member, sticky, .. } => {
                let nid = RoomNid(*room);
                if *sticky && let Some(rooms) = self.sticky.write().as_mut() {
                    rooms.insert(nid, at);
                }
                self.note_event(nid, at);
                match member {
                    Some(member) => {
                        self.tell_membership(reader, (nid, EventNum(*event), member), at).await?;
                    }
                    None => self.touch_room(nid, at, &Touch::Room(nid)),
                }
                self.peeks.touch(nid);
            }
            LogEntry::Purged { room, .. } => {
                // The end of the room is loaded anew. Nothing has happened there.
                self.note_change(RoomNid(*room), at);
            }
            LogEntry::Member { room, user } => {
                let nid = RoomNid(*room);
                let now = reader.user_room(user, nid).await?;
                // Whoever only forgot the room changed nothing in it.
                if now.as_ref().is_none_or(|now| now.position >= at) {
                    self.note_event(nid, at);
                }
                if let Some(signal) = self.user(user) {
                    self.place(&signal, nid, now.as_ref(), at);
                }
            }
            LogEntry::Members { room } => {
                self.note_event(RoomNid(*room), at);
                self.recall_joined(reader, RoomNid(*room), at, false).await?;
            }
            LogEntry::Whole { room, .. } => {
                let nid = RoomNid(*room);
                self.note_event(nid, at);
                self.recall_joined(reader, nid, at, true).await?;
                self.touch_room(nid, at, &Touch::Room(nid));
            }
            LogEntry::Receipt { room, user, private, .. } => {
                let nid = RoomNid(*room);
                self.receipts.write().insert(nid, at);
                if let Some(signal) = self.user(user) {
                    signal.read(nid, at);
                }
                // The user's other devices hear of it at once, however many are in the room.
                self.touch_user(user, at, Touch::Receipts(nid));
                if !*private {
                    self.tell_receipt(nid, at);
                }
            }
            LogEntry::OutOfBandMembership { user, .. } => self.touch_user(user, at, Touch::OutOfBand),
            LogEntry::AccountData { user } => self.touch_user(user, at, Touch::AccountData),
            LogEntry::ToDevice { user, device } => self.touch_user(user, at, Touch::ToDevice(device.clone())),
            LogEntry::KeySignatures { user } => self.touch_user(user, at, Touch::OwnDevices),
            LogEntry::OneTimeKeys { user, device } => self.touch_user(user, at, Touch::Keys(device.clone())),
            LogEntry::DeviceList { user } => {
                self.touch_user(user, at, Touch::OwnDevices);
                let rooms = self.rooms_of(reader, user).await?;
                let touch = |nid| Touch::Devices(nid, user.clone());
                self.tell_recipients(reader, &rooms, at, touch).await?;
            }
            LogEntry::ThreadSubscription { user } => self.touch_user(user, at, Touch::Threads),
            LogEntry::Pushers { .. } => {
                self.pushers.fetch_max(at.0, SeqCst);
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads again whether an attached user is in a room: their membership has changed.
    async fn reread(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        nid: RoomNid,
        at: Position,
    ) -> Result<(), Error> {
        if let Some(signal) = self.user(user) {
            let now = reader.user_room(user, nid).await?;
            self.place(&signal, nid, now.as_ref(), at);
        }
        Ok(())
    }

    fn place(&self, signal: &Arc<Signal>, nid: RoomNid, now: Option<&At<UserRoom>>, at: Position) {
        let joined = now.is_some_and(|now| now.value.membership == Membership::Join);
        self.set_joined(signal, nid, joined, at);
        signal.touch(at, Touch::Membership(nid));
    }

    /// Reads again who of the attached users that have a membership of a room is in it: any may have changed. Those whose
    /// membership did are touched, or all. Whoever comes in by a resolution of states is named in the log.
    async fn recall_joined(
        &self,
        reader: &Reader<'_>,
        nid: RoomNid,
        at: Position,
        all: bool,
    ) -> Result<(), Error> {
        let has_one = |signal: &&Arc<Signal>| signal.rooms.lock().contains_key(&nid);
        let users: Vec<Arc<Signal>> = self.users.read().values().filter(has_one).cloned().collect();
        for users in users.chunks(CHUNK) {
            let keys: Vec<_> = users.iter().map(|signal| (signal.user.clone(), nid)).collect();
            let found = reader.get_many::<UserRooms>(&keys).await?;
            for (signal, now) in users.iter().zip(found) {
                let then = signal.rooms.lock().get(&nid).map(|(_, then)| *then).unwrap_or_default();
                if all || now.as_ref().is_none_or(|now| now.position > then) {
                    self.place(signal, nid, now.as_ref(), at);
                }
            }
        }
        Ok(())
    }

    fn touch_user(&self, user: &UserId, at: Position, touch: Touch) {
        if let Some(signal) = self.user(user) {
            signal.touch(at, touch);
        }
    }

    fn touch_room(&self, nid: RoomNid, at: Position, touch: &Touch) {
        if let Some(users) = self.rooms.read().get(&nid) {
            for signal in users.values() {
                signal.touch(at, touch.clone());
            }
        }
    }

    /// Whether any attached user is in some rooms.
    pub(crate) fn is_anybody_in(&self, some: &[RoomNid]) -> bool {
        let rooms = self.rooms.read();
        some.iter().any(|nid| rooms.contains_key(nid))
    }

    /// The rooms that a user is joined to.
    pub(crate) async fn rooms_of(&self, reader: &Reader<'_>, user: &UserId) -> Result<Vec<RoomNid>, Error> {
        // Until a user is attached the signal does not know all of the rooms.
        if let Some(signal) = self.user(user).filter(|signal| signal.has_begun()) {
            let rooms = signal.rooms.lock();
            return Ok(rooms.iter().filter(|(_, (joined, _))| *joined).map(|(nid, _)| *nid).collect());
        }
        let rooms = reader.remote_rooms(user, usize::MAX).await?;
        if !rooms.is_empty() {
            return Ok(rooms);
        }
        let rooms = reader.user_rooms_and_forgotten(user).await?.into_iter();
        Ok(rooms.filter(|(_, at)| at.value.membership == Membership::Join).map(|(nid, _)| nid).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use chappe_kv::{Db, Memory};
    use chappe_store::{Entry, LogEntry, Position, RoomNid, Store};
    use chappe_world::{Fake, FakeNet, World};
    use ruma::user_id;

    use super::{Half, Turn, Wake};
    use crate::signal::Signal;

    #[tokio::test]
    async fn who_has_come_back_is_not_detached() {
        let world = World::fake(Fake::new("hs1", 1, &FakeNet::default()));
        let wake = Wake::new(Store::new(Db::new(Memory::default())), world.clone(), Position(0));
        let user = user_id!("@a:hs1");
        let signal = wake.attach(user).await.unwrap();
        let since = world.instant() + Duration::from_secs(1);
        assert_eq!(wake.gone(since), [user]);
        let syncing = signal.enter();
        wake.detach(user, since);
        assert_eq!(wake.attached(), 1);
        drop(syncing);
        wake.detach(user, since);
        assert_eq!(wake.attached(), 0);
    }

    #[tokio::test]
    async fn who_was_given_up_while_being_attached_is_attached_anew() {
        let world = World::fake(Fake::new("hs1", 1, &FakeNet::default()));
        let wake = Wake::new(Store::new(Db::new(Memory::default())), world.clone(), Position(0));
        let user = user_id!("@a:hs1");
        let half = Arc::new(Signal::new(user.to_owned(), world.instant(), Arc::default()));
        wake.users.write().insert(user.to_owned(), half.clone());
        let signal = wake.attach(user).await.unwrap();
        assert!(signal.has_begun() && !Arc::ptr_eq(&signal, &half));
        assert!(Arc::ptr_eq(&signal, &wake.attach(user).await.unwrap()));
    }

    #[tokio::test]
    async fn who_hangs_up_while_being_attached_leaves_nothing() {
        let world = World::fake(Fake::new("hs1", 1, &FakeNet::default()));
        let wake = Wake::new(Store::new(Db::new(Memory::default())), world.clone(), Position(0));
        let (user, nid) = (user_id!("@a:hs1"), RoomNid(7));
        let signal = Arc::new(Signal::new(user.to_owned(), world.instant(), Arc::default()));
        wake.users.write().insert(user.to_owned(), signal.clone());
        wake.set_joined(&signal, nid, true, Position(1));
        let rooms = wake.rooms_of(&wake.store.read(), user).await.unwrap();
        assert!(rooms.is_empty(), "the store is asked, which knows of none");
        drop(Half { wake: &wake, signal });
        assert!(wake.user(user).is_none() && wake.in_room(nid).is_empty());
    }

    #[tokio::test]
    async fn a_turn_is_forgotten_when_nobody_waits_for_it() {
        let world = World::fake(Fake::new("hs1", 1, &FakeNet::default()));
        let wake = Wake::new(Store::new(Db::new(Memory::default())), world, Position(0));
        let user = user_id!("@a:hs1");
        let lock = wake.attaching.lock().entry(user.to_owned()).or_default().clone();
        let (first, second) =
            (Turn { wake: &wake, user, lock: lock.clone() }, Turn { wake: &wake, user, lock });
        drop(first);
        assert_eq!(wake.attaching.lock().len(), 1);
        drop(second);
        assert!(wake.attaching.lock().is_empty());
    }

    #[tokio::test]
    async fn no_token_passes_a_change_that_is_still_being_told() {
        let world = World::fake(Fake::new("hs1", 1, &FakeNet::default()));
        let wake = Wake::new(Store::new(Db::new(Memory::default())), world, Position(0));
        let (first, second) = (wake.next_fleeting(), wake.next_fleeting());
        assert_eq!((first.sequence, second.sequence, wake.fleeting()), (1, 2, 0));
        drop(second);
        assert_eq!(wake.fleeting(), 0);
        drop(first);
        assert_eq!(wake.fleeting(), 2);
    }

    #[tokio::test]
    async fn what_was_taken_away_is_no_activity_but_the_end_is_loaded_anew() {
        let world = World::fake(Fake::new("hs1", 1, &FakeNet::default()));
        let wake = Wake::new(Store::new(Db::new(Memory::default())), world, Position(5));
        let (reader, nid) = (wake.store.read(), RoomNid(7));
        let at = |position: u64, what: LogEntry| Entry { position: Position(position), what };
        let gone = || LogEntry::Purged { room: 7, events: vec![1] };
        wake.handle(&reader, &at(6, gone())).await.unwrap();
        assert_eq!(
            (wake.last_event_known(nid), wake.last_event(nid, Position(6))),
            (None, Some(Position(6)))
        );
        let said = LogEntry::Event { room: 7, event: 2, member: None, local: true, sticky: false };
        wake.handle(&reader, &at(7, said)).await.unwrap();
        wake.handle(&reader, &at(8, gone())).await.unwrap();
        assert_eq!(wake.last_event_known(nid), Some(Position(7)));
        assert_eq!(wake.last_event(nid, Position(8)), Some(Position(8)));
    }
}
