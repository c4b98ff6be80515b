//! Removing what lies under a room's number.

use ruma::{EventId, RoomId};

use crate::{
    Direction, LogEntry, Reader, Store, Tx,
    delayed::DelayedSent,
    events::{EventIdKey, EventIds, EventMetas, EventNum, EventPdus},
    gaps::Gaps,
    members::{RoomMembers, RoomServers},
    partial::PartialRooms,
    receipts::{ReceiptOrder, Receipts},
    relations::{RelationCounts, Relations, Threads},
    rooms::{RoomIds, RoomNid},
    state::{StateChanges, StateKeys, StateLines, StateNow, StateVersions},
    sticky::Sticky,
    timeline::{Timeline, TimelineRow},
    transactions::EventTransactions,
    tx::Error,
};

impl Tx {
    /// Takes a room away from its id, its members, its timeline. The caller replaces the head with an empty one.
    pub fn uproot_room(&mut self, nid: RoomNid, room: &RoomId) -> &mut Self {
        self.delete::<RoomIds>(&room.to_owned());
        self.delete_prefix::<RoomMembers>(&nid).delete_prefix::<RoomServers>(&nid);
        self.delete_prefix::<StateNow>(&nid).delete_prefix::<Timeline>(&nid)
    }

    /// Removes up to `limit` events of a room, ids included; gives how many.
    pub async fn drop_events(
        &mut self,
        reader: &Reader<'_>,
        nid: RoomNid,
        limit: usize,
    ) -> Result<usize, Error> {
        let rows = reader.scan::<EventPdus>(&nid, Direction::Forward, limit).await?;
        for (key, pdu) in &rows {
            self.delete::<EventIds>(&EventIdKey(pdu.event_id.clone()));
            self.delete::<EventPdus>(key).delete::<EventMetas>(key);
            reader.cache.pdus.remove(key);
            reader.cache.event_nums.remove(&pdu.event_id);
        }
        if !rows.is_empty() {
            let events = rows.iter().map(|((_, num), _)| num.0).collect();
            self.log(LogEntry::Purged { room: nid.0, events });
        }
        Ok(rows.len())
    }

    /// Removes what is left of a room that has no events any more.
    pub fn sweep_room(&mut self, nid: RoomNid) -> &mut Self {
        self.delete_prefix::<EventMetas>(&nid).delete_prefix::<EventTransactions>(&nid);
        self.delete_prefix::<StateKeys>(&nid).delete_prefix::<StateVersions>(&nid);
        self.delete_prefix::<StateChanges>(&nid).delete_prefix::<StateLines>(&nid);
        self.delete_prefix::<Receipts>(&nid).delete_prefix::<ReceiptOrder>(&nid);
        self.delete_prefix::<Relations>(&nid).delete_prefix::<RelationCounts>(&nid);
        self.delete_prefix::<Threads>(&nid).delete_prefix::<Gaps>(&nid);
        self.delete_prefix::<Sticky>(&nid).delete::<PartialRooms>(&nid);
        self.delete_prefix::<DelayedSent>(&nid)
    }
}

impl Tx {
    /// Removes an event, its place in the timeline and what is indexed under it; that there was one stays known. The
    /// caller expects the room's head, and drops it from memory with [`Store::forget_events`].
    pub fn purge_event(&mut self, nid: RoomNid, row: &TimelineRow, event: &EventId) -> &mut Self {
        let (key, parent) = ((nid, row.num), EventIdKey::from(event));
        self.delete::<EventPdus>(&key).delete::<Timeline>(&(nid, row.ordinal));
        self.delete::<EventTransactions>(&key).delete::<Gaps>(&(nid, row.ordinal, row.num));
        self.delete_prefix::<Relations>(&(nid, parent.clone()));
        self.delete_prefix::<RelationCounts>(&(nid, parent.clone())).delete::<Threads>(&(nid, parent))
    }
}

impl Store {
    /// Forgets, in memory, events that were removed.
    pub fn forget_events(&self, nid: RoomNid, events: &[EventNum]) {
        for num in events {
            self.cache().pdus.remove(&(nid, *num));
        }
    }

    /// Forgets, in memory, which number a room had: it was uprooted.
    pub fn forget_room(&self, room: &RoomId, nid: RoomNid) {
        let cache = self.cache();
        if cache.room_nids.get(room) == Some(nid) {
            cache.room_nids.remove(room);
        }
    }
}
