//! Lazy members: which of them a device has been sent.

use std::{collections::HashMap, sync::Arc};

use chappe_store::{EventNum, Position, RoomNid};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedDeviceId, OwnedUserId};

/// Devices and rooms remembered; the others are sent members again.
const REMEMBERED: usize = 50_000;

type Key = (OwnedUserId, OwnedDeviceId, RoomNid);
type Sent = Arc<Mutex<HashMap<OwnedUserId, (EventNum, Position)>>>;

/// The members that devices were sent, with the token of the answer: a device that comes back with an older token
/// never got that answer.
pub(crate) struct MembersSent(Cache<Key, Sent>);

impl Default for MembersSent {
    fn default() -> Self {
        Self(Cache::new(REMEMBERED))
    }
}

impl MembersSent {
    fn of(&self, user: &OwnedUserId, device: &OwnedDeviceId, nid: RoomNid) -> Sent {
        let key = (user.clone(), device.clone(), nid);
        self.0
            .get_or_insert_with(&key, || Ok::<_, std::convert::Infallible>(Sent::default()))
            .unwrap_or_default()
    }

    /// Forgets what a device was sent of a room.
    pub(super) fn forget(&self, user: &OwnedUserId, device: &OwnedDeviceId, nid: RoomNid) {
        self.0.remove(&(user.clone(), device.clone(), nid));
    }

    /// Of the member events of some users, those that a device that has seen `seen` does not know.
    pub(super) fn unknown(
        &self,
        user: &OwnedUserId,
        device: &OwnedDeviceId,
        nid: RoomNid,
        seen: Position,
        members: &mut Vec<(OwnedUserId, EventNum)>,
    ) {
        let sent = self.of(user, device, nid);
        let sent = sent.lock();
        members.retain(|(member, num)| sent.get(member).is_none_or(|(known, at)| known != num || *at > seen));
    }

    /// Notes that an answer with the token `next` has these member events.
    pub(super) fn note(
        &self,
        user: &OwnedUserId,
        device: &OwnedDeviceId,
        nid: RoomNid,
        next: Position,
        members: impl IntoIterator<Item = (OwnedUserId, EventNum)>,
    ) {
        let sent = self.of(user, device, nid);
        let mut sent = sent.lock();
        for (member, num) in members {
            let entry = sent.entry(member).or_insert((num, next));
            if entry.0 != num {
                *entry = (num, next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chappe_store::{EventNum, Position, RoomNid};
    use ruma::{OwnedDeviceId, user_id};

    use super::MembersSent;

    #[test]
    fn an_answer_that_never_arrived_does_not_count() {
        let (sent, user, device) =
            (MembersSent::default(), user_id!("@a:a").to_owned(), OwnedDeviceId::from("D"));
        let unknown = |seen, num| {
            let mut members = vec![(user.clone(), EventNum(num))];
            sent.unknown(&user, &device, RoomNid(1), Position(seen), &mut members);
            members.len()
        };
        assert_eq!(unknown(10, 1), 1);
        sent.note(&user, &device, RoomNid(1), Position(20), [(user.clone(), EventNum(1))]);
        assert_eq!(unknown(10, 1), 1, "the device still has its old token");
        assert_eq!(unknown(20, 1), 0);
        assert_eq!(unknown(20, 2), 1, "the member event has changed");
        sent.forget(&user, &device, RoomNid(1));
        assert_eq!(unknown(20, 1), 1);
    }
}
