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

use crate::{
    Error,
    signal::Signal,
    wake::{Numbered, Wake},
};

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
    rooms: Mutex<Rooms>,
    rescheduled: Notify,
    changes: broadcast::Sender<TypingChange>,
    news: broadcast::Sender<(RoomNid, OwnedRoomId)>,
}

#[derive(Default)]
struct Rooms {
    /// Where somebody types.
    busy: HashMap<RoomNid, Room>,
    /// When others typed last in a room than before.
    changed: HashMap<RoomNid, u64>,
    /// The same in the order of the changes.
    order: BTreeMap<u64, RoomNid>,
}

struct Room {
    id: OwnedRoomId,
    users: BTreeMap<OwnedUserId, Typist>,
}

impl Rooms {
    /// Somebody types, or no longer does (`None`); whether that is a change.
    fn set(&mut self, nid: RoomNid, id: &RoomId, user: &UserId, typist: Option<Typist>) -> bool {
        if let Some(typist) = typist {
            let room = self.busy.entry(nid);
            let room = room.or_insert_with(|| Room { id: id.to_owned(), users: BTreeMap::new() });
            return room.users.insert(user.to_owned(), typist).is_none();
        }
        let Some(room) = self.busy.get_mut(&nid) else { return false };
        let stopped = room.users.remove(user).is_some();
        if room.users.is_empty() {
            self.busy.remove(&nid);
        }
        stopped
    }

    fn change(&mut self, nid: RoomNid, sequence: u64) {
        if let Some(before) = self.changed.insert(nid, sequence) {
            self.order.remove(&before);
        }
        self.order.insert(sequence, nid);
    }

    fn users(&self, nid: RoomNid) -> Vec<OwnedUserId> {
        self.busy.get(&nid).map(|room| room.users.keys().cloned().collect()).unwrap_or_default()
    }
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
        self.rooms.lock().users(nid)
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
        let until = |time: Duration| self.world.instant() + time.min(LONGEST);
        let typist = typing.map(|time| Typist { until: until(time), local });
        let changed = {
            let mut rooms = self.rooms.lock();
            let changed = rooms.set(nid, id, user, typist);
            // Whoever sees the number finds the change: both are there before the lock is given back.
            changed.then(|| self.number(&mut rooms, nid))
        };
        let is_news = changed.is_some() || typing.is_some();
        if let Some(numbered) = changed {
            self.announce(nid, id, numbered);
        }
        if local && is_news {
            self.tell(id, user, typing.is_some());
        }
        self.rescheduled.notify_one();
        Ok(joined)
    }

    fn tell(&self, room: &RoomId, user: &UserId, typing: bool) {
        // Nobody listening is fine: then nobody has to be told.
        let _ = self.changes.send(TypingChange { room: room.to_owned(), user: user.to_owned(), typing });
    }

    fn number(&self, rooms: &mut Rooms, nid: RoomNid) -> Numbered<'_> {
        let numbered = self.wake.next_fleeting();
        rooms.change(nid, numbered.sequence);
        numbered
    }

    fn announce(&self, nid: RoomNid, id: &RoomId, numbered: Numbered<'_>) {
        // Nobody listening is fine here as well.
        let _ = self.news.send((nid, id.to_owned()));
        self.wake.tell_typing(nid, numbered.sequence);
        drop(numbered);
    }

    /// Who types in which room, for the rooms that changed after a sequence number.
    pub(crate) fn since(
        &self,
        after: u64,
        is_in: impl Fn(RoomNid) -> bool,
    ) -> BTreeMap<RoomNid, Vec<OwnedUserId>> {
        let rooms = self.rooms.lock();
        let fresh = rooms.order.range(after.saturating_add(1)..).map(|(_, nid)| *nid);
        fresh.filter(|nid| is_in(*nid)).map(|nid| (nid, rooms.users(nid))).collect()
    }

    /// Whether others type than after a sequence number in any room of an attached user, whether it is time to tell of it or
    /// not.
    pub(crate) fn has_news(&self, signal: &Signal, after: u64) -> bool {
        let (rooms, own) = (self.rooms.lock(), signal.rooms.lock());
        let mut fresh = rooms.order.range(after.saturating_add(1)..);
        fresh.any(|(_, nid)| own.get(nid).is_some_and(|(joined, _)| *joined))
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
        let rooms = self.rooms.lock();
        rooms.busy.values().flat_map(|room| room.users.values()).map(|typist| typist.until).min()
    }

    fn end_expired(&self) {
        let now = self.world.instant();
        let ended: Vec<(RoomNid, OwnedRoomId, Numbered<'_>)> = {
            let mut rooms = self.rooms.lock();
            let mut over = Vec::new();
            for (nid, room) in &rooms.busy {
                let expired = room.users.iter().filter(|(_, typist)| typist.until <= now);
                over.extend(
                    expired.map(|(user, typist)| (*nid, room.id.clone(), user.clone(), typist.local)),
                );
            }
            let mut ended = BTreeMap::new();
            for (nid, id, user, local) in over {
                rooms.set(nid, &id, &user, None);
                if local {
                    self.tell(&id, &user, false);
                }
                ended.insert(nid, id);
            }
            ended.into_iter().map(|(nid, id)| (nid, id, self.number(&mut rooms, nid))).collect()
        };
        for (nid, id, numbered) in ended {
            self.announce(nid, &id, numbered);
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
        write!(f, "Typing in {} rooms", self.rooms.lock().busy.len())
    }
}

#[cfg(test)]
mod tests {
    use chappe_store::RoomNid;
    use ruma::{room_id, user_id};

    use super::{Rooms, Typist};

    #[test]
    fn rooms_in_which_nobody_types_are_not_kept() {
        let (id, user) = (room_id!("!r:x"), user_id!("@a:x"));
        let typist = Typist { until: tokio::time::Instant::now(), local: true };
        let mut rooms = Rooms::default();
        assert!(!rooms.set(RoomNid(1), id, user, None), "who did not type has not stopped");
        assert!(rooms.busy.is_empty());
        for nid in 1..=9 {
            assert!(rooms.set(RoomNid(nid), id, user, Some(typist)));
            assert!(!rooms.set(RoomNid(nid), id, user, Some(typist)), "typing on is no change");
            rooms.change(RoomNid(nid), u64::from(nid));
        }
        assert!(rooms.set(RoomNid(3), id, user, None));
        rooms.change(RoomNid(3), 10);
        assert_eq!((rooms.busy.len(), rooms.changed.len(), rooms.order.len()), (8, 9, 9));
        assert_eq!(rooms.order.range(9..).map(|(_, nid)| nid.0).collect::<Vec<_>>(), [9, 3]);
    }
}
