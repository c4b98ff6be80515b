//! Removing what lies under a room's number.

use std::sync::atomic::Ordering::SeqCst;

use chappe_kv::Position;
use ruma::{EventId, OwnedEventId, RoomId, UserId};

use crate::{
    Direction, EventMeta, LogEntry, Reader, Store, StoredPdu, Tx,
    accounts_data::{AccountData, AccountDataChanges, AccountDataCounts},
    delayed::DelayedSent,
    events::{EventIdKey, EventIds, EventMetas, EventNum, EventPdus, PurgedIds},
    expiry::CameLate,
    gaps::{Gaps, Missing},
    members::{OpenRooms, RoomMembers, RoomServers, ShutRooms},
    partial::{LateEvents, PartialRooms, UnplacedDevices},
    receipts::{ReceiptOrder, Receipts},
    relations::{RelationCounts, Relations, Threads},
    rooms::{DoomedRooms, RoomIds, RoomNid},
    services::ServiceDirectory,
    state::{StateChanges, StateKeys, StateLines, StateNow, StateSince, StateVersions},
    sticky::{Sticky, StickyEnds},
    thread_subscriptions::{ThreadSubscriptionCounts, ThreadSubscriptionOrder, ThreadSubscriptions},
    timeline::{Timeline, TimelineRow},
    transactions::EventTransactions,
    tx::Error,
};

/// What a transaction removes: to be dropped from memory once it is committed, with [`Store::forget`].
#[derive(Debug, Default)]
pub struct Removed {
    /// Events, by number.
    pub events: Vec<EventNum>,
    /// Ids that stand for nothing any more.
    pub ids: Vec<OwnedEventId>,
}

impl Tx {
    /// Takes a room away from its id, its members, its timeline. While it is among the
    /// [`DoomedRooms`] it cannot come back. The caller replaces the head with an empty one.
    pub fn uproot_room(&mut self, nid: RoomNid, room: &RoomId) -> &mut Self {
        self.delete::<RoomIds>(&room.to_owned()).put::<DoomedRooms>(&room.to_owned(), &nid);
        self.delete_prefix::<RoomMembers>(&nid).delete_prefix::<RoomServers>(&nid);
        self.delete_prefix::<StateNow>(&nid).delete_prefix::<Timeline>(&nid).delete::<ShutRooms>(&nid)
    }

    /// Removes up to `limit` events of a room, ids included; gives what goes, nothing once all are gone.
    pub async fn drop_events(
        &mut self,
        reader: &Reader<'_>,
        nid: RoomNid,
        limit: usize,
    ) -> Result<Removed, Error> {
        let mut removed = Removed::default();
        for (key, pdu) in reader.scan::<EventPdus>(&nid, Direction::Forward, limit).await? {
            self.delete::<EventIds>(&EventIdKey(pdu.event_id.clone()));
            self.delete::<EventPdus>(&key).delete::<EventMetas>(&key);
            removed.events.push(key.1);
            removed.ids.push(pdu.event_id);
        }
        if !removed.events.is_empty() {
            let events = removed.events.iter().map(|num| num.0).collect();
            self.log(LogEntry::Purged { room: nid.0, events });
            return Ok(removed);
        }
        for (key, ()) in reader.scan::<PurgedIds>(&nid, Direction::Forward, limit).await? {
            self.delete::<EventIds>(&key.1).delete::<PurgedIds>(&key);
            removed.ids.push(key.1.0);
        }
        Ok(removed)
    }

    /// Takes a room out of the lists of application services.
    pub async fn unlist_from_services(&mut self, reader: &Reader<'_>, nid: RoomNid) -> Result<(), Error> {
        for (key, ()) in reader.scan_all::<ServiceDirectory>(&()).await? {
            if key.2 == nid {
                self.delete::<ServiceDirectory>(&key);
            }
        }
        Ok(())
    }

    /// Removes what a user of this server keeps of a room: account data, which threads they follow, up to `limit` of each,
    /// and what they have waiting to be sent there. Conflict if some of it was changed by then.
    pub async fn drop_own(
        &mut self,
        reader: &Reader<'_>,
        user: &UserId,
        (nid, room): (RoomNid, &RoomId),
        limit: usize,
    ) -> Result<(), Error> {
        let user = user.to_owned();
        let of_room = (user.clone(), room.to_string());
        for (key, item) in reader.scan::<AccountData>(&of_room, Direction::Forward, limit).await? {
            let change = (key.0.clone(), item.position.0, key.1.clone(), key.2.clone());
            self.expect::<AccountData>(&key, Some(&item)).delete::<AccountData>(&key);
            self.delete::<AccountDataChanges>(&change).add::<AccountDataCounts>(&user, -1);
        }
        let followed = (user.clone(), nid);
        for (key, at) in reader.scan::<ThreadSubscriptions>(&followed, Direction::Forward, limit).await? {
            let change = (user.clone(), at.position.0, (nid, key.2.clone()));
            self.expect::<ThreadSubscriptions>(&key, Some(&at)).delete::<ThreadSubscriptions>(&key);
            self.delete::<ThreadSubscriptionOrder>(&change).add::<ThreadSubscriptionCounts>(&user, -1);
        }
        for (id, delayed) in reader.delayed_of(&user).await? {
            if delayed.room == *room {
                self.drop_delayed(&id, &delayed);
            }
        }
        Ok(())
    }

    /// Removes up to `limit` notes of a room's events that are sticky; gives how many.
    pub async fn drop_sticky(
        &mut self,
        reader: &Reader<'_>,
        nid: RoomNid,
        limit: usize,
    ) -> Result<usize, Error> {
        let rows = reader.scan::<Sticky>(&nid, Direction::Forward, limit).await?;
        for (key, until) in &rows {
            self.delete::<Sticky>(key).delete::<StickyEnds>(&(*until, key.1, (nid, key.2)));
        }
        Ok(rows.len())
    }

    /// Removes what is left of a room that has no events any more.
    pub fn sweep_room(&mut self, nid: RoomNid) -> &mut Self {
        self.delete_prefix::<EventMetas>(&nid).delete_prefix::<EventTransactions>(&nid);
        self.delete_prefix::<StateKeys>(&nid).delete_prefix::<StateVersions>(&nid);
        self.delete_prefix::<StateChanges>(&nid).delete_prefix::<StateLines>(&nid);
        self.delete_prefix::<StateSince>(&nid).delete_prefix::<Missing>(&nid);
        self.delete_prefix::<Receipts>(&nid).delete_prefix::<ReceiptOrder>(&nid);
        self.delete_prefix::<Relations>(&nid).delete_prefix::<RelationCounts>(&nid);
        self.delete_prefix::<Threads>(&nid).delete_prefix::<Gaps>(&nid);
        self.delete::<OpenRooms>(&nid).delete::<PartialRooms>(&nid);
        self.delete_prefix::<LateEvents>(&nid).delete_prefix::<UnplacedDevices>(&nid);
        self.delete_prefix::<DelayedSent>(&nid).delete_prefix::<CameLate>(&nid)
    }
}

impl Tx {
    /// Removes an event, its place in the timeline and what is indexed under it; that there was one stays known. The
    /// caller closes the gap before it, expects the room's head, and drops the event from memory with [`Store::forget`].
    pub fn purge_event(&mut self, nid: RoomNid, row: &TimelineRow, event: &EventId) -> &mut Self {
        self.put::<PurgedIds>(&(nid, event.into()), &()).delete::<EventPdus>(&(nid, row.num));
        self.unlist_event(nid, row, event)
    }

    /// Replaces an event by what redaction leaves of it, and says so in its record, which keeps its position. The caller
    /// takes its place away, if it has one, with [`Tx::unlist_event`], expects the room's head, and drops the event from
    /// memory with [`Store::forget`].
    pub fn strip_event(
        &mut self,
        nid: RoomNid,
        num: EventNum,
        meta: &EventMeta,
        left: &StoredPdu,
    ) -> &mut Self {
        self.put::<EventPdus>(&(nid, num), left);
        self.put::<EventMetas>(&(nid, num), &EventMeta { expired: true, ..meta.clone() })
    }

    /// Removes an event's place in the timeline and what is indexed under it. What is missing before that place stays
    /// known.
    pub fn unlist_event(&mut self, nid: RoomNid, row: &TimelineRow, event: &EventId) -> &mut Self {
        let (key, parent) = ((nid, row.num), EventIdKey::from(event));
        self.delete::<Sticky>(&(nid, row.position.0, row.num)).delete::<Timeline>(&(nid, row.ordinal));
        self.delete::<EventTransactions>(&key).delete_prefix::<Relations>(&(nid, parent.clone()));
        self.delete_prefix::<RelationCounts>(&(nid, parent.clone())).delete::<Threads>(&(nid, parent))
    }
}

impl Store {
    /// Drops from memory what the commit `at` removed. What is read from older snapshots is not kept from then on.
    pub fn forget(&self, at: Position, nid: RoomNid, removed: &Removed) {
        let cache = self.cache();
        cache.removed.fetch_max(at.0, SeqCst);
        for num in &removed.events {
            cache.pdus.remove(&(nid, *num));
        }
        for id in &removed.ids {
            cache.event_nums.remove(id);
        }
    }

    /// Forgets, in memory, which number a room had: the commit `at` uprooted it.
    pub fn forget_room(&self, at: Position, room: &RoomId) {
        let cache = self.cache();
        cache.removed.fetch_max(at.0, SeqCst);
        cache.room_nids.remove(room);
    }
}
