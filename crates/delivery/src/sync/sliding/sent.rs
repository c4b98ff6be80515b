//! What a device has been sent of a room.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use chappe_rules::push::Counts;
use chappe_store::{EventNum, Position};

/// Lazily sent members remembered of one room; they are sent again when there are more.
const MEMBERS: usize = 500;

/// What a device has been sent of a room: a few words, as there are millions of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Everything up to here.
    pub(super) up_to: Position,
    pub(super) common: Arc<Common>,
    /// Membership events sent because they were needed, ascending.
    pub(super) members: Box<[EventNum]>,
}

/// What of that is the same for most rooms of most devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Common {
    /// The marks of the state that was asked for then.
    pub(super) asked: Arc<[u64]>,
    /// Events of the timeline it has at least, if the room has so many.
    pub(super) timeline: usize,
    /// What it was told the room is.
    pub(super) is_dm: bool,
    /// The user has left, and the device has been told.
    pub(super) ended: bool,
    /// How much it was told is unread.
    pub(super) unread: Counts,
    /// The extensions from whose beginning it has been told of this room.
    pub(super) begun: Begun,
}

impl Deref for Sent {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

impl DerefMut for Sent {
    fn deref_mut(&mut self) -> &mut Common {
        Arc::make_mut(&mut self.common)
    }
}

/// Extensions that have begun to tell of a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Begun {
    pub(super) account_data: bool,
    pub(super) receipts: bool,
    pub(super) typing: bool,
}

impl Sent {
    pub(super) fn knows_member(&self, num: EventNum) -> bool {
        self.members.binary_search(&num).is_ok()
    }

    /// Notes members that were sent because they were needed.
    pub(super) fn note_members(&mut self, nums: impl IntoIterator<Item = EventNum>) {
        let mut fresh: Vec<EventNum> = nums.into_iter().filter(|num| !self.knows_member(*num)).collect();
        if fresh.is_empty() {
            return;
        }
        if self.members.len() + fresh.len() <= MEMBERS {
            fresh.extend(self.members.iter());
        }
        fresh.sort_unstable();
        fresh.dedup();
        fresh.truncate(MEMBERS);
        self.members = fresh.into();
    }

    /// Bytes that it takes beside its place in a map.
    pub(super) fn bytes(&self) -> usize {
        let is_shared = Arc::strong_count(&self.common) > 1;
        let own = if is_shared { 0 } else { size_of::<Common>() + size_of_val(&*self.asked) };
        own + size_of_val(&*self.members)
    }
}

#[cfg(test)]
mod tests {
    use chappe_store::EventNum;

    use super::{MEMBERS, Sent};

    #[test]
    fn members_that_were_sent_are_remembered_up_to_a_number() {
        let mut sent = Sent::default();
        sent.note_members([EventNum(5), EventNum(3), EventNum(5)]);
        assert!(sent.knows_member(EventNum(3)) && !sent.knows_member(EventNum(4)));
        sent.note_members((10..).take(MEMBERS).map(EventNum));
        assert!(!sent.knows_member(EventNum(3)) && sent.knows_member(EventNum(10)));
        assert_eq!(sent.members.len(), MEMBERS);
    }
}
