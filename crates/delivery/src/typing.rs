//! Who is typing, in memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use chappe_store::{Membership, RoomNid};
use chappe_world::World;
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use tokio::{
    sync::{Notify, broadcast},
    time::Instant,
};

use crate::{Error, wake::Wake};

/// The longest that anybody types without saying so again.
const LONGEST: Duration = Duration::from_mins(2);
/// Changes kept for followers who are slow to fetch them.
const QUEUE: usize = 1_024;

/// A local user began or stopped typing: what other servers have to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypingChange {
    /// Where.
    pub room: OwnedRoomId,
    /// Who.
    pub user: OwnedUserId,
    /// Whether they are typing now.
    pub typing: bool,
}

/// Who is typing where.
pub struct Typing {
    wake: Arc<Wake>,
    world: World,
    pub(crate) epoch: u64,
    rooms: Mutex<HashMap<RoomNid, Room>>,
    rescheduled: Notify,
    changes: broadcast::Sender<TypingChange>,
    news: broadcast::Sender<(RoomNid, OwnedRoomId)>,
}

struct Room {
    id: OwnedRoomId,
    users: BTreeMap<OwnedUserId, Typist>,
    changed: u64,
}

#[derive(Clone, Copy)]
struct Typist {
    until: Instant,
    local: bool,
}

impl Typing {
    pub(crate) fn new(wake: Arc<Wake>, world: World, epoch: u64) -> Self {
        let (changes, news) = (broadcast::Sender::new(QUEUE), broadcast::Sender::new(QUEUE));
        Self { wake, world, epoch, rooms: Mutex::default(), rescheduled: Notify::new(), changes, news }
    }

    /// A user of this server types for so long, or has stopped. `false` when they are not in the room.
    pub async fn set_local(
        &self,
        room: &RoomId,
        user: &UserId,
        typing: Option<Duration>,
    ) -> Result<bool, Error> {
        self.set(room, user, typing, true).await
    }

    /// A user of another server types, or has stopped. `false` when they are not in the room.
    pub async fn set_remote(&self, room: &RoomId, user: &UserId, typing: bool) -> Result<bool, Error> {
        self.set(room, user, typing.then_some(LONGEST / 2), false).await
    }

    /// What local users do from now on.
    pub fn changes(&self) -> broadcast::Receiver<TypingChange> {
        self.changes.subscribe()
    }

    /// Rooms in which others type from now on than before, whoever they are.
    pub fn news(&self) -> broadcast::Receiver<(RoomNid, OwnedRoomId)> {
        self.news.subscribe()
    }

    /// Who is typing in a room.
    pub fn in_room(&self, nid: RoomNid) -> Vec<OwnedUserId> {
        self.rooms.lock().get(&nid).map(|room| room.users.keys().cloned().collect()).unwrap_or_default()
    }

    async fn set(
        &self,
        id: &RoomId,
        user: &UserId,
        typing: Option<Duration>,
        local: bool,
    ) -> Result<bool, Error> {
        let reader = self.wake.store().read();
        let Some(nid) = reader.room_nid(id).await? else { return Ok(false) };
        let joined = if local {
            matches!(reader.membership(nid, user).await?, Some((Membership::Join, _)))
        } else {
            reader.may_be_joined(nid, user).await?
        };
        if !joined && typing.is_some() {
            return Ok(false);
        }
        let changed = {
            let mut rooms = self.rooms.lock();
            let room = rooms.entry(nid).or_insert_with(|| Room {
                id: id.to_owned(),
                users: BTreeMap::new(),
                changed: 0,
            });
            match typing {
                Some(time) => {
                    let until = self.world.instant() + time.min(LONGEST);
                    room.users.insert(user.to_owned(), Typist { until, local }).is_none()
                }
                None => room.users.remove(user).is_some(),
            }
        };
        if changed {
            self.announce(nid);
        }
        if local && (changed || typing.is_some()) {
            self.tell(id, user, typing.is_some());
        }
        self.rescheduled.notify_one();
        Ok(joined)
    }

    fn tell(&self, room: &RoomId, user: &UserId, typing: bool) {
        // Nobody listening is fine: then nobody has to be told.
        let _ = self.changes.send(TypingChange { room: room.to_owned(), user: user.to_owned(), typing });
    }

    fn announce(&self, nid: RoomNid) {
        let sequence = self.wake.next_fleeting();
        if let Some(room) = self.rooms.lock().get_mut(&nid) {
            room.changed = sequence;
            // Nobody listening is fine here as well.
            let _ = self.news.send((nid, room.id.clone()));
        }
        for signal in self.wake.in_room(nid) {
            signal.touch_fleeting(sequence);
        }
    }

    /// Who types in which room, for the rooms that changed after a sequence number; `None`: wherever anybody types.
    pub(crate) fn since(
        &self,
        after: Option<u64>,
        is_in: impl Fn(RoomNid) -> bool,
    ) -> BTreeMap<RoomNid, Vec<OwnedUserId>> {
        let rooms = self.rooms.lock();
        let fresh = rooms.iter().filter(|(nid, room)| {
            after.map_or(!room.users.is_empty(), |after| room.changed > after) && is_in(**nid)
        });
        fresh.map(|(nid, room)| (*nid, room.users.keys().cloned().collect())).collect()
    }

    /// Starts the task that ends what nobody ended; it ends with the world.
    pub(crate) fn expire(self: &Arc<Self>) {
        let typing = self.clone();
        drop(self.world.spawn("delivery-typing", async move {
            loop {
                let next = typing.next_end();
                tokio::select! {
                    () = typing.world.stopping() => return,
                    () = typing.rescheduled.notified() => {}
                    () = sleep_until(&typing.world, next) => typing.end_expired(),
                }
            }
        }));
    }

    fn next_end(&self) -> Option<Instant> {
        self.rooms.lock().values().flat_map(|room| room.users.values()).map(|typist| typist.until).min()
    }

    fn end_expired(&self) {
        let now = self.world.instant();
        let mut ended = Vec::new();
        for (nid, room) in self.rooms.lock().iter_mut() {
            let before = room.users.len();
            let id = &room.id;
            room.users.retain(|user, typist| {
                let stays = typist.until > now;
                if !stays && typist.local {
                    self.tell(id, user, false);
                }
                stays
            });
            if room.users.len() < before {
                ended.push(*nid);
            }
        }
        for nid in ended {
            self.announce(nid);
        }
    }
}

async fn sleep_until(world: &World, at: Option<Instant>) {
    match at {
        Some(at) => world.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl std::fmt::Debug for Typing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Typing in {} rooms", self.rooms.lock().len())
    }
}
