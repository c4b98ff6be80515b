//! What happened last in each room: what the follower has seen, and what was before this process as far as somebody asked.

use std::collections::VecDeque;

use chappe_store::{Position, Reader, RoomNid, rooms::RoomHeads};

use super::{Error, Wake};

/// Events of a room whose commits are remembered: a sync looks at a moment that is a few commits ago.
const LAST_EVENTS: usize = 32;

/// What changed the end of a room.
#[derive(Default)]
pub(super) struct Changes {
    /// The last of it, what was taken away included, oldest first.
    all: VecDeque<Position>,
    /// The last event.
    event: Option<Position>,
}

impl Wake {
    /// Whether anything happened in a room after a position. Before this process's time: maybe, so yes, unless the room was
    /// [recalled](Self::recall).
    pub(crate) fn room_changed(&self, nid: RoomNid, after: Position) -> bool {
        self.has_happened(nid, after)
            || (after < self.born && self.before.read().get(&nid).is_none_or(|last| *last > after))
    }

    fn has_happened(&self, nid: RoomNid, after: Position) -> bool {
        let events = self.events.read();
        let last_event = events.get(&nid).and_then(|changes| changes.all.back()).copied();
        let last_receipt = self.receipts.read().get(&nid).copied();
        last_event.max(last_receipt).is_some_and(|last| last > after)
    }

    /// Reads when something last happened in rooms, for whoever asks next what happened there after a position before this
    /// process's time. Each is read once for everybody.
    pub(crate) async fn recall(
        &self,
        reader: &Reader<'_>,
        rooms: &[RoomNid],
        after: Position,
    ) -> Result<(), Error> {
        if after >= self.born {
            return Ok(());
        }
        let mut unknown: Vec<RoomNid> = {
            let before = self.before.read();
            rooms.iter().copied().filter(|nid| !before.contains_key(nid)).collect()
        };
        unknown.retain(|nid| !self.has_happened(*nid, after));
        let heads = reader.get_many::<RoomHeads>(&unknown).await?;
        for (nid, head) in unknown.into_iter().zip(heads) {
            // Whatever is written of a room replaces its head; receipts do not.
            let Some(head) = head else { continue };
            let receipt = reader.last_receipt(nid).await?.unwrap_or_default();
            self.before.write().insert(nid, head.position.max(receipt));
        }
        Ok(())
    }

    /// The commit that last changed the end of a room up to `at`, or the one at which this process began if there was none
    /// since; `None` if the room has gone on so much that it is forgotten.
    pub(crate) fn last_event(&self, nid: RoomNid, at: Position) -> Option<Position> {
        let events = self.events.read();
        let Some(events) = events.get(&nid).map(|changes| &changes.all) else { return Some(self.born) };
        let last = events.iter().rev().find(|position| **position <= at);
        last.copied().or((events.len() < LAST_EVENTS).then_some(self.born))
    }

    pub(super) fn note_event(&self, nid: RoomNid, at: Position) {
        self.note_change(nid, at);
        self.events.write().entry(nid).or_default().event = Some(at);
    }

    pub(super) fn note_change(&self, nid: RoomNid, at: Position) {
        let mut events = self.events.write();
        let events = &mut events.entry(nid).or_default().all;
        if events.back() == Some(&at) {
            return;
        }
        if events.len() == LAST_EVENTS {
            events.pop_front();
        }
        events.push_back(at);
    }

    /// The commit of the last event of a room, if there was one since this process began.
    pub(crate) fn last_event_known(&self, nid: RoomNid) -> Option<Position> {
        self.events.read().get(&nid).and_then(|changes| changes.event)
    }
}
