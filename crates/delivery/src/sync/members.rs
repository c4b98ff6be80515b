//! Lazy members: which of them a device has been sent.

use std::{collections::HashMap, sync::Arc};

use chappe_store::{EventNum, Position, RoomNid};
use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedDeviceId, OwnedUserId};

/// Devices and rooms remembered, as one expects them, and bytes of all together; the others are sent members again.
const REMEMBERED: usize = 100_000;
const BYTES: u64 = 128 << 20;
/// Members remembered of one device and room; they are sent again when there are more.
const MEMBERS: usize = 500;
/// Bytes that a member takes, about.
const MEMBER_BYTES: usize = 120;

type Key = (OwnedUserId, OwnedDeviceId, RoomNid);

/// The members that a device was sent of a room.
#[derive(Clone, Default)]
struct Known {
    /// Their member events, with the token of the answer that had them first.
    members: HashMap<OwnedUserId, (EventNum, Position)>,
    /// None of these tokens is newer.
    last: Position,
}

impl Known {
    /// Whether a device that has seen `seen` has this member event.
    fn has(&self, member: &OwnedUserId, num: EventNum, seen: Position) -> bool {
        self.members.get(member).is_some_and(|(known, at)| *known == num && *at <= seen)
    }
}

/// Weighs members by about the bytes that they take up.
#[derive(Clone)]
struct BySize;

impl Weighter<Key, Arc<Known>> for BySize {
    fn weight(&self, (user, device, _): &Key, known: &Arc<Known>) -> u64 {
        let texts = user.as_str().len() + device.as_str().len();
        let fixed = size_of::<Key>() + texts + size_of::<Known>();
        u64::try_from(fixed + known.members.len() * MEMBER_BYTES).unwrap_or(u64::MAX)
    }
}

/// The members that devices were sent, with the token of the answer: a device that comes back with an older token
/// never got that answer.
pub(crate) struct MembersSent {
    known: Cache<Key, Arc<Known>, BySize>,
    /// One answer is noted at a time.
    noting: Mutex<()>,
}

impl Default for MembersSent {
    fn default() -> Self {
        Self { known: Cache::with_weighter(REMEMBERED, BYTES, BySize), noting: Mutex::default() }
    }
}

impl MembersSent {
    /// Forgets what a device was sent of a room.
    pub(super) fn forget(&self, user: &OwnedUserId, device: &OwnedDeviceId, nid: RoomNid) {
        self.known.remove(&(user.clone(), device.clone(), nid));
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
        if let Some(known) = self.known.get(&(user.clone(), device.clone(), nid)) {
            members.retain(|(member, num)| !known.has(member, *num, seen));
        }
    }

    /// Notes that an answer to a device that has seen `seen` has these member events. Answers after `seen` did not arrive:
    /// what only they had is forgotten, as the token of this answer may be a later one.
    pub(super) fn note(
        &self,
        user: &OwnedUserId,
        device: &OwnedDeviceId,
        nid: RoomNid,
        (seen, next): (Position, Position),
        members: impl IntoIterator<Item = (OwnedUserId, EventNum)>,
    ) {
        let key = (user.clone(), device.clone(), nid);
        let _noting = self.noting.lock();
        let old = self.known.get(&key).unwrap_or_default();
        let fresh = members.into_iter().filter(|(member, num)| !old.has(member, *num, seen));
        let fresh: Vec<_> = fresh.take(MEMBERS).collect();
        if fresh.is_empty() && old.last <= seen {
            return;
        }
        let mut known = Known::clone(&old);
        known.last = known.last.min(seen);
        known.members.retain(|_, (_, at)| *at <= seen);
        if known.members.len() + fresh.len() > MEMBERS {
            known.members = HashMap::new();
        }
        for (member, num) in fresh {
            known.last = next;
            known.members.insert(member, (num, next));
        }
        self.known.insert(key, Arc::new(known));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chappe_store::{EventNum, Position, RoomNid};
    use ruma::{OwnedDeviceId, OwnedUserId, user_id};

    use super::{BYTES, Known, MEMBERS, MembersSent};

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
        let note = |seen, next, members: &[u32]| {
            let members = members.iter().map(|num| (user.clone(), EventNum(*num)));
            sent.note(&user, &device, RoomNid(1), (Position(seen), Position(next)), members);
        };
        note(10, 20, &[1]);
        assert_eq!(unknown(10, 1), 1, "the device still has its old token");
        assert_eq!(unknown(20, 1), 0);
        assert_eq!(unknown(20, 2), 1, "the member event has changed");
        note(10, 25, &[]);
        assert_eq!(unknown(25, 1), 1, "the answer that arrived did not have it");
        note(25, 30, &[1]);
        note(30, 35, &[1]);
        assert_eq!((unknown(30, 1), unknown(35, 1)), (0, 0));
        sent.forget(&user, &device, RoomNid(1));
        assert_eq!(unknown(35, 1), 1);
    }

    fn people(count: usize) -> Vec<(OwnedUserId, EventNum)> {
        let one = |number: u32| (OwnedUserId::try_from(format!("@m{number}:a")).unwrap(), EventNum(number));
        (0..u32::try_from(count).unwrap()).map(one).collect()
    }

    #[test]
    fn members_that_were_sent_are_remembered_up_to_a_number() {
        let (sent, user, device) =
            (MembersSent::default(), user_id!("@a:a").to_owned(), OwnedDeviceId::from("D"));
        let many = people(MEMBERS + 1);
        let unknown = |seen| {
            let mut members = many.clone();
            sent.unknown(&user, &device, RoomNid(1), Position(seen), &mut members);
            members
        };
        sent.note(&user, &device, RoomNid(1), (Position(1), Position(2)), many.clone());
        assert_eq!(unknown(2), many[MEMBERS..]);
        sent.note(&user, &device, RoomNid(1), (Position(2), Position(3)), unknown(2));
        assert_eq!(unknown(3), many[..MEMBERS], "those before are told again");
    }

    #[test]
    fn what_is_remembered_has_so_much_room() {
        let (sent, device, many) = (MembersSent::default(), OwnedDeviceId::from("D"), people(MEMBERS));
        let members = many.iter().map(|(user, num)| (user.clone(), (*num, Position(2)))).collect();
        let known = Arc::new(Known { members, last: Position(2) });
        for nid in 0..3_000 {
            sent.known.insert((many[0].0.clone(), device.clone(), RoomNid(nid)), Arc::clone(&known));
        }
        assert!(sent.known.weight() <= BYTES && sent.known.len() < 3_000);
    }
}
