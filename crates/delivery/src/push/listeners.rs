//! Who listens where: users with pushers, by numbers in the rooms, as there may be millions of pairs of user and room.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak},
};

use chappe_accounts::PusherInfo;
use chappe_rules::visibility::membership;
use chappe_store::{
    EventNum, Membership, Position, Reader, RoomNid, members::UserRooms, state::StateKey, unread::UnreadRooms,
};
use ruma::{OwnedUserId, UserId, events::room::member::MembershipState};

use super::Push;
use crate::{Error, signal::Settings};

/// A user with pushers.
#[derive(Default)]
pub(super) struct Listener {
    /// Stands for the user in rooms.
    number: u32,
    pub(super) pushers: Vec<Arc<PusherInfo>>,
    /// As long as they are good and `RecentSettings` keeps them.
    pub(super) settings: Weak<Settings>,
    /// Rooms with something unread, once they have been counted. Kept over restarts.
    pub(super) unread: Option<UnreadRooms>,
    /// Of those, where something was redacted or has gone since: to be counted again the next time.
    pub(super) doubtful: BTreeSet<RoomNid>,
    /// The number that was told last, if it was since the start.
    pub(super) told: Option<usize>,
}

impl Listener {
    /// The number that is shown.
    pub(super) fn shown(&self) -> Option<usize> {
        self.told.or_else(|| self.unread.as_ref().map(|unread| unread.rooms.len()))
    }

    /// Whether a room is known to have something unread.
    pub(super) fn is_unread(&self, nid: RoomNid) -> bool {
        self.unread.as_ref().is_some_and(|unread| unread.rooms.contains(&nid))
    }
}

/// All users with pushers, and of the rooms in which something happened those of them who are in.
#[derive(Default)]
pub(super) struct Listeners {
    users: HashMap<OwnedUserId, Listener>,
    names: HashMap<u32, OwnedUserId>,
    /// Ascending.
    rooms: HashMap<RoomNid, Vec<u32>>,
    /// The next number; none is given twice.
    next: u32,
}

impl Listeners {
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    pub(super) fn has(&self, user: &UserId) -> bool {
        self.users.contains_key(user)
    }

    pub(super) fn get(&self, user: &UserId) -> Option<&Listener> {
        self.users.get(user)
    }

    pub(super) fn get_mut(&mut self, user: &UserId) -> Option<&mut Listener> {
        self.users.get_mut(user)
    }

    /// Adds a user, who is in no room yet.
    pub(super) fn add(&mut self, user: &UserId, pushers: Vec<Arc<PusherInfo>>, unread: Option<UnreadRooms>) {
        let number = self.next;
        self.next += 1;
        let listener = Listener { number, pushers, unread, ..Listener::default() };
        if let Some(old) = self.users.insert(user.to_owned(), listener) {
            self.names.remove(&old.number);
        }
        self.names.insert(number, user.to_owned());
    }

    /// Removes a user who may be in some rooms.
    pub(super) fn remove(&mut self, user: &UserId, rooms: impl IntoIterator<Item = RoomNid>) {
        for nid in rooms {
            self.leave(nid, user);
        }
        if let Some(gone) = self.users.remove(user) {
            self.names.remove(&gone.number);
        }
    }

    /// Whether it is known who listens in a room.
    pub(super) fn knows(&self, nid: RoomNid) -> bool {
        self.rooms.contains_key(&nid)
    }

    /// Notes who is in a room.
    pub(super) fn learn<'a>(&mut self, nid: RoomNid, members: impl Iterator<Item = &'a UserId>) {
        let mut numbers: Vec<u32> =
            members.filter_map(|user| self.users.get(user)).map(|listener| listener.number).collect();
        numbers.sort_unstable();
        numbers.shrink_to_fit();
        self.rooms.insert(nid, numbers);
    }

    /// Forgets who is in a room.
    pub(super) fn forget(&mut self, nid: RoomNid) {
        self.rooms.remove(&nid);
    }

    /// Who listens in a room, as far as that is known.
    pub(super) fn in_room(&self, nid: RoomNid) -> Vec<OwnedUserId> {
        let numbers = self.rooms.get(&nid).into_iter().flatten();
        numbers.filter_map(|number| self.names.get(number)).cloned().collect()
    }

    /// For whom a room is known to have something unread.
    pub(super) fn with_unread(&self, nid: RoomNid) -> Vec<OwnedUserId> {
        let unread = self.users.iter().filter(|(_, listener)| listener.is_unread(nid));
        unread.map(|(user, _)| user.clone()).collect()
    }

    /// A user has come into a room.
    pub(super) fn enter(&mut self, nid: RoomNid, user: &UserId) {
        let (Some(listener), Some(numbers)) = (self.users.get(user), self.rooms.get_mut(&nid)) else {
            return;
        };
        if let Err(place) = numbers.binary_search(&listener.number) {
            numbers.insert(place, listener.number);
        }
    }

    /// A user is no longer in a room.
    pub(super) fn leave(&mut self, nid: RoomNid, user: &UserId) {
        let (Some(listener), Some(numbers)) = (self.users.get(user), self.rooms.get_mut(&nid)) else {
            return;
        };
        if let Ok(place) = numbers.binary_search(&listener.number) {
            numbers.remove(place);
        }
    }
}

impl Push {
    /// Who listens in a room: read when something happens there for the first time, as it was then. Of whoever comes in
    /// after that the log tells.
    pub(super) async fn listening(
        &mut self,
        reader: &Reader<'_>,
        nid: RoomNid,
        event: (EventNum, Position),
    ) -> Result<Vec<OwnedUserId>, Error> {
        if !self.listeners.is_empty() && !self.listeners.knows(nid) {
            let members = reader.members(nid, Membership::Join).await?.into_iter().map(|(user, _)| user);
            let members: Vec<OwnedUserId> = members.filter(|user| self.listeners.has(user)).collect();
            let later = match self.come_later(reader, nid, event, &members).await {
                // It was purged meanwhile, and is told to nobody.
                Err(chappe_rooms::Error::NotFound(_)) => return Ok(Vec::new()),
                later => later?,
            };
            let then = members.iter().filter(|user| !later.contains(*user));
            self.listeners.learn(nid, then.map(|user| &**user));
        }
        Ok(self.listeners.in_room(nid))
    }

    /// Who of these members was not in the room at an event: it may have happened long before the snapshot.
    async fn come_later(
        &self,
        reader: &Reader<'_>,
        nid: RoomNid,
        (num, at): (EventNum, Position),
        members: &[OwnedUserId],
    ) -> Result<BTreeSet<OwnedUserId>, chappe_rooms::Error> {
        if reader.position() <= at {
            return Ok(BTreeSet::new());
        }
        let keys: Vec<_> = members.iter().map(|user| (user.clone(), nid)).collect();
        let rooms = reader.get_many::<UserRooms>(&keys).await?;
        let changed = members.iter().zip(rooms).filter(|(_, own)| own.is_some_and(|own| own.position > at));
        let changed: Vec<&OwnedUserId> = changed.map(|(user, _)| user).collect();
        if changed.is_empty() {
            return Ok(BTreeSet::new());
        }
        // They may have been there before and only have another name since.
        let view = self.delivery.0.rooms.view_at(reader.clone(), nid).await?;
        let before = reader.event_meta(nid, num).await?.before;
        let keys: Vec<StateKey> = changed.iter().map(|user| StateKey::new("m.room.member", *user)).collect();
        let then = view.state_events_at(before, &keys).await?;
        let was_in = |event: Option<&chappe_rooms::Event>| {
            membership(event.map(|event| &event.pdu)) == MembershipState::Join
        };
        let later = changed.into_iter().zip(&then).filter(|(_, event)| !was_in(event.as_ref()));
        Ok(later.map(|(user, _)| user.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use chappe_store::RoomNid;
    use ruma::{UserId, user_id};

    use super::Listeners;

    const ROOM: RoomNid = RoomNid(7);

    #[test]
    fn a_room_is_known_once_it_was_read_and_followed_from_then_on() {
        let (alice, bob, carol) = (user_id!("@a:x.fr"), user_id!("@b:x.fr"), user_id!("@c:x.fr"));
        let mut all = Listeners::default();
        for user in [carol, bob] {
            all.add(user, Vec::new(), None);
        }
        all.enter(ROOM, carol);
        assert!(!all.knows(ROOM) && all.in_room(ROOM).is_empty());
        all.learn(ROOM, [alice, bob].into_iter());
        assert_eq!(all.in_room(ROOM), [bob]);
        all.add(alice, Vec::new(), None);
        for user in [carol, alice, alice] {
            all.enter(ROOM, user);
        }
        assert_eq!(all.in_room(ROOM), [carol, bob, alice]);
        all.leave(ROOM, bob);
        assert_eq!(all.in_room(ROOM), [carol, alice]);
        all.forget(ROOM);
        assert!(!all.knows(ROOM));
    }

    #[test]
    fn whoever_listens_again_is_not_taken_for_who_they_were() {
        let alice: &UserId = user_id!("@a:x.fr");
        let mut all = Listeners::default();
        all.add(alice, Vec::new(), None);
        all.learn(ROOM, [alice].into_iter());
        all.remove(alice, []);
        assert!(all.is_empty() && all.in_room(ROOM).is_empty());
        all.add(alice, Vec::new(), None);
        assert!(all.has(alice) && all.in_room(ROOM).is_empty());
        all.enter(ROOM, alice);
        all.remove(alice, [ROOM]);
        all.add(alice, Vec::new(), None);
        assert!(all.in_room(ROOM).is_empty());
    }
}
