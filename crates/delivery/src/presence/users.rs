//! Everybody of whom something is known, and who changed last in which room.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use chappe_store::RoomNid;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId, presence::PresenceState as Is};
use tokio::time::Instant;

use super::{PresenceChange, PresenceState};

/// A user who has not synced for so long is offline.
const GONE: Duration = Duration::from_secs(45);
/// So is a user of another server that has not said for so long how they are.
const UNHEARD: Duration = Duration::from_mins(30);
/// A user of this server who is there is told again after so long: other servers, Synapse among them, wait as long as this one.
const AGAIN: Duration = Duration::from_mins(25);
/// Users who are told again at once: of 100,000 who came together the last are in time.
const AGAIN_AT_ONCE: usize = 500;
/// Users of other servers who are remembered at most: those whose presence changed last.
const MOST_REMOTE: usize = 20_000;
/// Users of a room of whom it is remembered that they changed last; who else did is found by comparing numbers.
pub(crate) const CHANGED: usize = 4_096;

pub(super) struct Known {
    pub(super) now: PresenceState,
    /// Chosen by the user; syncing does not override `unavailable`.
    pub(super) chosen: Is,
    /// When a sync of the user ended last, or another server said last how they are.
    pub(super) synced: Instant,
    /// When other servers were told last.
    pub(super) told: Instant,
    /// Syncs under way.
    pub(super) syncing: usize,
    /// Those of them that say that the user is there.
    pub(super) online: usize,
    /// The device whose sync that said so began or ended last, and when.
    pub(super) there: Option<(Option<OwnedDeviceId>, Instant)>,
    pub(super) local: bool,
    /// Whether it follows from syncing, so that the user is attached while it holds.
    pub(super) by_sync: bool,
    pub(super) changed: u64,
}

impl Known {
    /// Whether there is anything to say of the user.
    pub(super) fn is_worth_telling(&self) -> bool {
        self.now.state != Is::Offline || self.now.status_msg.is_some()
    }

    /// Whether another device of the user says, or has said a moment ago, that they are there. A request under way may be the
    /// device's own from before: then it counts the next time.
    pub(super) fn is_there_beside(&self, device: Option<&DeviceId>, now: Instant) -> bool {
        let is_lately = |at: Instant| now.saturating_duration_since(at) <= GONE;
        let was_there = self.there.as_ref().is_some_and(|(by, at)| by.as_deref() != device && is_lately(*at));
        self.now.state == Is::Online && (self.online > 0 || was_there)
    }

    /// The state that a user has come to by doing nothing, or by nothing being heard of them, if it is another one.
    pub(super) fn fades(&self, limits: Limits) -> Option<Is> {
        let longest = if self.local { GONE } else { UNHEARD };
        let gone = self.syncing == 0 && limits.now.saturating_duration_since(self.synced) > longest;
        let idle = limits.now.saturating_duration_since(self.now.last_active) > limits.idle_after;
        match self.now.state {
            Is::Online | Is::Unavailable if gone => Some(Is::Offline),
            Is::Online if idle && self.local => Some(Is::Unavailable),
            _ => None,
        }
    }
}

/// When users have gone or fallen idle.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) now: Instant,
    pub(super) idle_after: Duration,
}

/// The numbers of the last changes in a room, one of each user.
#[derive(Default)]
struct Changes {
    /// Those after this are all here.
    floor: u64,
    numbers: BTreeSet<u64>,
}

impl Changes {
    fn note(&mut self, before: Option<u64>, number: u64) {
        if let Some(before) = before {
            self.numbers.remove(&before);
        }
        self.numbers.insert(number);
        if self.numbers.len() > CHANGED
            && let Some(gone) = self.numbers.pop_first()
        {
            self.floor = gone;
        }
    }
}

/// What changed since it was last told.
#[derive(Default)]
pub(super) struct Gathered {
    /// Who, and how they are now.
    pub(super) changes: BTreeMap<OwnedUserId, PresenceChange>,
    /// Where they can be seen.
    pub(super) rooms: BTreeSet<RoomNid>,
}

/// Everybody of whom something is known.
#[derive(Default)]
pub(super) struct Users {
    pub(super) known: BTreeMap<OwnedUserId, Known>,
    /// In the order of their last change.
    pub(super) order: BTreeMap<u64, OwnedUserId>,
    /// Those worth telling who are not found among the attached users of their rooms.
    pub(super) apart: BTreeSet<OwnedUserId>,
    /// The last changes of other servers' users.
    remote: BTreeSet<u64>,
    /// The users of this server who are there, in the order in which they were told last.
    there: BTreeSet<(Instant, OwnedUserId)>,
    /// The last changes in rooms.
    rooms: HashMap<RoomNid, Changes>,
    gathered: Gathered,
}

impl Users {
    /// Notes how somebody is who is in these rooms.
    pub(super) fn put(&mut self, user: &UserId, known: Known, rooms: &[RoomNid]) {
        let before = self.forget(user);
        self.order.insert(known.changed, user.to_owned());
        if !known.local {
            self.remote.insert(known.changed);
        }
        let is_there = known.now.state != Is::Offline;
        if known.local && is_there {
            self.there.insert((known.told, user.to_owned()));
        }
        let attached = known.by_sync && is_there;
        if known.is_worth_telling() && !attached {
            self.apart.insert(user.to_owned());
        }
        for nid in rooms {
            self.rooms.entry(*nid).or_default().note(before, known.changed);
        }
        self.gathered.rooms.extend(rooms);
        self.known.insert(user.to_owned(), known);
        if self.remote.len() > MOST_REMOTE
            && let Some(oldest) = self.remote.first().and_then(|change| self.order.get(change)).cloned()
        {
            self.forget(&oldest);
        }
    }

    /// Forgets somebody; gives the number of their last change.
    fn forget(&mut self, user: &UserId) -> Option<u64> {
        self.apart.remove(user);
        let Known { changed, told, .. } = self.known.remove(user)?;
        self.order.remove(&changed);
        self.remote.remove(&changed);
        self.there.remove(&(told, user.to_owned()));
        Some(changed)
    }

    /// Notes what there is to tell. Of several changes of somebody the last one counts.
    pub(super) fn gather(&mut self, change: PresenceChange) {
        self.gathered.changes.insert(change.user.clone(), change);
    }

    /// Some of this server who are there and were not told of for long: who has waited longest first. They count as told now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<PresenceChange> {
        let mut due = Vec::new();
        while due.len() < AGAIN_AT_ONCE
            && self.there.first().is_some_and(|(told, _)| now.saturating_duration_since(*told) >= AGAIN)
            && let Some((_, user)) = self.there.pop_first()
        {
            let Some(known) = self.known.get_mut(&user) else { continue };
            known.told = now;
            due.push(PresenceChange { user: user.clone(), now: known.now.clone(), local: true, again: true });
            self.there.insert((now, user));
        }
        due
    }

    /// What there is to tell, and the number of the last change of all.
    pub(super) fn take_gathered(&mut self) -> (Gathered, u64) {
        let last = self.order.last_key_value().map_or(0, |(last, _)| *last);
        (std::mem::take(&mut self.gathered), last)
    }

    /// The changes after a number of those in some rooms, and of `user`; `None` if they are not all remembered.
    pub(super) fn changed(
        &self,
        user: &UserId,
        rooms: impl Iterator<Item = RoomNid>,
        after: u64,
    ) -> Option<BTreeSet<u64>> {
        let mut numbers = BTreeSet::new();
        if self.order.last_key_value().is_none_or(|(last, _)| *last <= after) {
            return Some(numbers);
        }
        numbers.extend(self.known.get(user).map(|known| known.changed).filter(|changed| *changed > after));
        for nid in rooms {
            let Some(changes) = self.rooms.get(&nid) else { continue };
            if after < changes.floor {
                return None;
            }
            numbers.extend(changes.numbers.range(after.saturating_add(1)..));
        }
        Some(numbers)
    }

    /// Forgets what changed in rooms where nobody is who could ask: whoever comes there later begins after it.
    pub(super) fn keep_rooms(&mut self, is_anybody_in: impl Fn(RoomNid) -> bool) {
        self.rooms.retain(|nid, _| is_anybody_in(*nid));
    }

    /// Notes that a user of another server was heard of and when they were last active, if they are otherwise as they were;
    /// whether that is so.
    pub(super) fn refresh(&mut self, user: &UserId, now: &PresenceState, heard: Instant) -> bool {
        let Some(known) = self.known.get_mut(user) else { return false };
        let same = PresenceState { last_active: now.last_active, ..known.now.clone() } == *now;
        if same {
            known.now.last_active = now.last_active;
            known.synced = heard;
        }
        same
    }

    /// The state that somebody chose, as far as it holds when they sync: until they are gone.
    pub(super) fn choice(&self, user: &UserId) -> Is {
        let known = self.known.get(user).filter(|known| known.now.state != Is::Offline);
        known.map_or(Is::Online, |known| known.chosen.clone())
    }

    pub(super) fn state(&self, user: &UserId) -> Option<PresenceState> {
        self.known.get(user).map(|known| known.now.clone())
    }
}

#[cfg(test)]
mod tests {
    use chappe_store::RoomNid;
    use ruma::user_id;

    use super::{AGAIN, AGAIN_AT_ONCE, CHANGED, Is, Known, MOST_REMOTE, PresenceState, Users};

    fn known(local: bool, changed: u64) -> Known {
        let (state, now) = (Is::Online, tokio::time::Instant::now());
        let chosen = state.clone();
        let how = PresenceState { state, status_msg: None, last_active: now, currently_active: true };
        Known {
            now: how,
            chosen,
            synced: now,
            told: now,
            syncing: 0,
            online: 0,
            there: None,
            local,
            by_sync: false,
            changed,
        }
    }

    #[tokio::test]
    async fn of_other_servers_users_those_are_remembered_who_changed_last() {
        let mut users = Users::default();
        let mut put = |user: &str, local: bool, changed: u64| {
            users.put(user.try_into().unwrap(), known(local, changed), &[]);
        };
        put("@us:here.fr", true, 1);
        put("@first:away.fr", false, 2);
        put("@second:away.fr", false, 3);
        put("@first:away.fr", false, 4);
        for number in 0..u64::try_from(MOST_REMOTE).unwrap() - 1 {
            put(&format!("@{number}:away.fr"), false, 5 + number);
        }
        assert_eq!(users.remote.len(), MOST_REMOTE);
        assert_eq!(
            (users.known.len(), users.order.len(), users.apart.len()),
            (MOST_REMOTE + 1, MOST_REMOTE + 1, MOST_REMOTE + 1)
        );
        let known = |user: &str| users.state(user.try_into().unwrap()).is_some();
        assert!(known("@us:here.fr") && known("@first:away.fr") && !known("@second:away.fr"));
    }

    #[tokio::test]
    async fn who_is_there_is_told_again_not_all_at_once() {
        let (mut users, told) = (Users::default(), tokio::time::Instant::now());
        let mut put = |user: &str, local: bool, changed: u64| {
            let known = Known { told, ..known(local, changed) };
            users.put(user.try_into().unwrap(), known, &[]);
        };
        put("@them:away.fr", false, 1);
        for number in 0..=u64::try_from(AGAIN_AT_ONCE).unwrap() {
            put(&format!("@{number}:here.fr"), true, 2 + number);
        }
        let mut count = |now| users.due(now).len();
        assert_eq!(count(told), 0);
        let later = told + AGAIN;
        assert_eq!((count(later), count(later), count(later)), (AGAIN_AT_ONCE, 1, 0));
        assert_eq!(count(later + AGAIN), AGAIN_AT_ONCE);
    }

    #[tokio::test]
    async fn of_each_room_the_last_change_of_everybody_is_remembered_up_to_a_number() {
        let (mut users, room) = (Users::default(), RoomNid(7));
        let [bob, reader] = [user_id!("@bob:here.fr"), user_id!("@reader:here.fr")];
        let heard = |users: &Users, after| {
            users.changed(reader, [room].into_iter(), after).map(|numbers| numbers.len())
        };
        for number in 1..=9 {
            users.put(bob, known(true, number), &[room]);
        }
        assert_eq!((heard(&users, 0), heard(&users, 8), heard(&users, 9)), (Some(1), Some(1), Some(0)));
        users.put(user_id!("@elsewhere:here.fr"), known(true, 10), &[RoomNid(8)]);
        assert_eq!(heard(&users, 9), Some(0));
        let most = u64::try_from(CHANGED).unwrap();
        for number in 11..11 + most {
            users.put(
                format!("@{number}:here.fr").as_str().try_into().unwrap(),
                known(true, number),
                &[room],
            );
        }
        assert_eq!((heard(&users, 8), heard(&users, 9)), (None, Some(CHANGED)));
        users.keep_rooms(|nid| nid != room);
        assert!(users.rooms.len() == 1 && users.rooms.contains_key(&RoomNid(8)));
    }
}
