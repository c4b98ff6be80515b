//! Events: numbered per room, their JSON, and beside it what the server thinks of them.

mod ids;
pub(crate) mod meta;
mod stored;

use std::sync::Arc;

use ruma::{EventId, OwnedEventId};

pub use self::{
    ids::{EventIdKey, EventNum},
    meta::{EventMeta, Status},
    stored::StoredPdu,
};
use crate::{At, Reader, Tx, rooms::RoomNid, table, timeline::Timeline, tx::Error};

/// Events of which the ids are read at once. What more than these are asked for together does not stay in memory: they are all
/// of a large room, and would push out what others read.
const PAGE: usize = 1_000;

/// An event about to be stored.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Its number, from [`crate::RoomHead::take_event_num`].
    pub num: EventNum,
    /// Its id.
    pub event_id: OwnedEventId,
    /// Canonical JSON.
    pub json: Box<str>,
    /// What the server thinks of it; the position is ignored, the commit's is stored.
    pub meta: EventMeta,
}

table! {
    /// Event id → room and number.
    EventIds = EVENT_IDS: EventIdKey => (RoomNid, EventNum);
    /// Room and number → id and JSON.
    EventPdus = EVENT_PDUS: (RoomNid, EventNum) => StoredPdu;
    /// Room and number → status, state references, place.
    EventMetas = EVENT_META: (RoomNid, EventNum) => EventMeta;
    /// Room and id of an event that was removed, of which only is known that it was there.
    PurgedIds = PURGED_IDS: (RoomNid, EventIdKey) => ();
}

impl Reader<'_> {
    /// The number of an event **of this room**; an event of another room is not there.
    pub async fn event_num(&self, nid: RoomNid, id: &EventId) -> Result<Option<EventNum>, Error> {
        Ok(self.event_nums(nid, &[id]).await?.into_iter().next().flatten())
    }

    /// Numbers of several events of one room, in their order: one round trip, none if all are cached.
    pub async fn event_nums(&self, nid: RoomNid, ids: &[&EventId]) -> Result<Vec<Option<EventNum>>, Error> {
        let mut found: Vec<_> = ids.iter().map(|id| self.cache.event_nums.get(*id)).collect();
        let wanted: Vec<usize> = (0..ids.len()).filter(|&i| found[i].is_none()).collect();
        if !wanted.is_empty() {
            let keys: Vec<_> = wanted.iter().map(|&i| EventIdKey::from(ids[i])).collect();
            let rows = self.get_many::<EventIds>(&keys).await?;
            for (&i, row) in wanted.iter().zip(rows) {
                if let Some(address) = row {
                    self.keep(&self.cache.event_nums, &ids[i].to_owned(), address);
                }
                found[i] = row;
            }
        }
        let of_room = |(room, num): (RoomNid, EventNum)| (room == nid).then_some(num);
        Ok(found.into_iter().map(|address| address.and_then(of_room)).collect())
    }

    /// In which room an event is and its number there. Only for work that has no room to ask in (`/event` of a
    /// peer, receipts); readers must still be judged with that room.
    pub async fn event_address(&self, id: &EventId) -> Result<Option<(RoomNid, EventNum)>, Error> {
        if let Some(address) = self.cache.event_nums.get(id) {
            return Ok(Some(address));
        }
        let found = self.get::<EventIds>(&id.into()).await?;
        if let Some(address) = found {
            self.keep(&self.cache.event_nums, &id.to_owned(), address);
        }
        Ok(found)
    }

    /// One event's JSON.
    pub async fn pdu(&self, nid: RoomNid, num: EventNum) -> Result<Arc<StoredPdu>, Error> {
        let found = self.pdus(nid, &[num]).await?;
        found.into_iter().next().ok_or(Error::Gone)
    }

    /// The JSON of several stored events, in their order: one round trip, none if all are cached.
    pub async fn pdus(&self, nid: RoomNid, nums: &[EventNum]) -> Result<Vec<Arc<StoredPdu>>, Error> {
        let mut found: Vec<_> = nums.iter().map(|num| self.cache.pdus.get(&(nid, *num))).collect();
        let wanted: Vec<usize> = (0..nums.len()).filter(|&i| found[i].is_none()).collect();
        if !wanted.is_empty() {
            let keys: Vec<_> = wanted.iter().map(|&i| (nid, nums[i])).collect();
            let rows = self.get_many::<EventPdus>(&keys).await?;
            for (&i, row) in wanted.iter().zip(rows) {
                let pdu = Arc::new(row.ok_or(Error::Gone)?);
                if nums.len() <= PAGE {
                    self.keep(&self.cache.pdus, &(nid, nums[i]), pdu.clone());
                }
                found[i] = Some(pdu);
            }
        }
        found.into_iter().map(|pdu| pdu.ok_or(Error::Gone)).collect()
    }

    /// The JSON of events of several rooms, in their order: one round trip. Meant to be looked at once, so it is not
    /// cached.
    pub async fn pdus_of(
        &self,
        addresses: &[(RoomNid, EventNum)],
    ) -> Result<Vec<Option<Arc<StoredPdu>>>, Error> {
        let mut found: Vec<_> = addresses.iter().map(|address| self.cache.pdus.get(address)).collect();
        let wanted: Vec<usize> = (0..addresses.len()).filter(|&i| found[i].is_none()).collect();
        if !wanted.is_empty() {
            let keys: Vec<_> = wanted.iter().map(|&i| addresses[i]).collect();
            for (&i, row) in wanted.iter().zip(self.get_many::<EventPdus>(&keys).await?) {
                found[i] = row.map(Arc::new);
            }
        }
        Ok(found)
    }

    /// The ids of stored events, in their order, a page at a time. They may be all of a large room: nothing is cached.
    pub async fn event_ids(&self, nid: RoomNid, nums: &[EventNum]) -> Result<Vec<OwnedEventId>, Error> {
        let mut ids = Vec::with_capacity(nums.len());
        for some in nums.chunks(PAGE) {
            let keys: Vec<_> = some.iter().map(|num| (nid, *num)).collect();
            for id in self.get_parts::<EventPdus, _>(&keys, stored::id_in).await? {
                ids.push(id.ok_or(Error::Gone)?);
            }
        }
        Ok(ids)
    }

    /// What the server thinks of an event.
    pub async fn event_meta(&self, nid: RoomNid, num: EventNum) -> Result<EventMeta, Error> {
        self.get::<EventMetas>(&(nid, num)).await?.ok_or(Error::Gone)
    }

    /// Records of several stored events, in their order: one round trip.
    pub async fn event_metas(&self, nid: RoomNid, nums: &[EventNum]) -> Result<Vec<EventMeta>, Error> {
        let keys: Vec<_> = nums.iter().map(|num| (nid, *num)).collect();
        let rows = self.get_many::<EventMetas>(&keys).await?;
        rows.into_iter().map(|row| row.ok_or(Error::Gone)).collect()
    }

    /// The records of all events from a number on, by number.
    pub async fn event_metas_from(
        &self,
        nid: RoomNid,
        from: EventNum,
    ) -> Result<Vec<(EventNum, EventMeta)>, Error> {
        let rows = self.scan_between::<EventMetas>(&(nid, from), &RoomNid(nid.0.saturating_add(1))).await?;
        Ok(rows.into_iter().map(|((_, num), meta)| (num, meta)).collect())
    }

    /// Records and JSON of several stored events, in their order: one round trip.
    pub async fn events(
        &self,
        nid: RoomNid,
        nums: &[EventNum],
    ) -> Result<Vec<(EventMeta, Arc<StoredPdu>)>, Error> {
        self.records_and_json(nid, nums, nums.len() <= PAGE).await
    }

    /// The same for events that are meant to be looked at once: what is not cached does not get there.
    pub async fn events_once(
        &self,
        nid: RoomNid,
        nums: &[EventNum],
    ) -> Result<Vec<(EventMeta, Arc<StoredPdu>)>, Error> {
        self.records_and_json(nid, nums, false).await
    }

    async fn records_and_json(
        &self,
        nid: RoomNid,
        nums: &[EventNum],
        keeps: bool,
    ) -> Result<Vec<(EventMeta, Arc<StoredPdu>)>, Error> {
        let cached: Vec<_> = nums.iter().map(|num| self.cache.pdus.get(&(nid, *num))).collect();
        let metas: Vec<_> = nums.iter().map(|num| (nid, *num)).collect();
        let missing: Vec<_> =
            metas.iter().zip(&cached).filter(|(_, pdu)| pdu.is_none()).map(|(key, _)| *key).collect();
        let (metas, rows) = self.get_both::<EventMetas, EventPdus>(&metas, &missing).await?;
        let mut rows = missing.into_iter().zip(rows);
        let mut events = Vec::with_capacity(nums.len());
        for (meta, pdu) in metas.into_iter().zip(cached) {
            let meta = meta.ok_or(Error::Gone)?;
            let pdu = if let Some(pdu) = pdu {
                pdu
            } else {
                let (key, row) = rows.next().ok_or(Error::Gone)?;
                let pdu = Arc::new(row.ok_or(Error::Gone)?);
                if keeps {
                    self.keep(&self.cache.pdus, &key, pdu.clone());
                }
                pdu
            };
            events.push((meta, pdu));
        }
        Ok(events)
    }
}

impl Tx {
    /// Stores an event: id, JSON, record, and its place in the timeline if it has one. The caller replaces the head
    /// in the same transaction.
    pub fn put_event(&mut self, nid: RoomNid, event: &NewEvent) -> &mut Self {
        self.expect_absent::<EventIds>(&EventIdKey(event.event_id.clone()));
        self.put::<EventIds>(&EventIdKey(event.event_id.clone()), &(nid, event.num));
        let pdu = StoredPdu::new(event.event_id.clone(), event.json.clone());
        self.put::<EventPdus>(&(nid, event.num), &pdu);
        self.place_event(nid, event.num, &event.meta)
    }

    /// Replaces the JSON of a stored event, of which a part was missing. The caller expects the room's head and drops the
    /// event from memory with [`crate::Store::forget`].
    pub fn complete_event(&mut self, nid: RoomNid, num: EventNum, whole: &StoredPdu) -> &mut Self {
        self.put::<EventPdus>(&(nid, num), whole)
    }

    /// Gives a stored event a (new) record stamped with this commit and its place in the timeline: for an outlier
    /// that gets its place in the room.
    pub fn place_event(&mut self, nid: RoomNid, num: EventNum, meta: &EventMeta) -> &mut Self {
        if let Some(ordinal) = meta.ordinal {
            self.put_now::<Timeline, _>(&(nid, ordinal), &num);
        }
        self.put_stamped::<EventMetas>(&(nid, num), &meta.pack())
    }

    /// As [`Tx::place_event`], but at the position that `meta` says: for history that fills a hole, which belongs to
    /// the time of the event after the hole. Positions keep growing along the live timeline.
    pub fn place_event_at(&mut self, nid: RoomNid, num: EventNum, meta: &EventMeta) -> &mut Self {
        if let Some(ordinal) = meta.ordinal {
            let at = At { position: meta.position, value: num };
            self.put::<Timeline>(&(nid, ordinal), &at);
        }
        self.put::<EventMetas>(&(nid, num), meta)
    }

    /// Takes an event out of the timeline and replaces its record, which must say so.
    pub fn unplace_event(
        &mut self,
        nid: RoomNid,
        num: EventNum,
        ordinal: i64,
        meta: &EventMeta,
    ) -> &mut Self {
        self.delete::<Timeline>(&(nid, ordinal));
        self.put::<EventMetas>(&(nid, num), meta)
    }

    /// Replaces the record of an event and keeps its position: for a redaction.
    pub fn update_event(&mut self, nid: RoomNid, num: EventNum, meta: &EventMeta) -> &mut Self {
        self.put::<EventMetas>(&(nid, num), meta)
    }
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};
    use ruma::{EventId, RoomVersionId, event_id};

    use super::{EventNum, NewEvent, meta::sample};
    use crate::{RoomHead, RoomNid, Store, Tx};

    #[tokio::test]
    async fn an_event_of_another_room_is_not_there() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let id = event_id!("$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8");
        let (one, two) = (RoomNid(1), RoomNid(2));
        let (json, num) = ("{}".into(), EventNum(1));
        let event = NewEvent { num, event_id: id.to_owned(), json, meta: sample(Some(1), Vec::new()) };
        let mut tx = Tx::new();
        tx.first_head(one, &RoomHead::new(RoomVersionId::V11)).put_event(one, &event);
        let position = store.commit(tx).await.unwrap();

        let reader = store.read();
        assert_eq!(reader.event_ids(one, &[num]).await.unwrap(), [id]);
        assert_eq!(&*reader.events_once(one, &[num]).await.unwrap()[0].1.json, "{}");
        assert!(reader.cache.pdus.is_empty(), "what is looked at once");
        for _ in 0..2 {
            assert_eq!(reader.event_num(one, id).await.unwrap(), Some(num));
            assert_eq!(reader.event_num(two, id).await.unwrap(), None);
        }
        let (found, pdu) = reader.events(one, &[num]).await.unwrap().remove(0);
        assert_eq!((found.position, &*pdu.json, &*pdu.event_id), (position, "{}", id));
        assert_eq!(reader.timeline_back(one, i64::MAX, 9).await.unwrap()[0].num, num);
        let mut again = Tx::new();
        again.put_event(one, &event);
        assert!(store.commit(again).await.is_err(), "an event is stored once");
    }

    #[tokio::test]
    async fn all_of_a_large_room_push_out_nothing() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let nid = RoomNid(1);
        let nums: Vec<EventNum> = (1..=1_001).map(EventNum).collect();
        let mut tx = Tx::new();
        tx.first_head(nid, &RoomHead::new(RoomVersionId::V11));
        for num in &nums {
            let event_id = EventId::parse(format!("${}:x.fr", num.0)).unwrap();
            let meta = sample(Some(num.0.into()), Vec::new());
            tx.put_event(nid, &NewEvent { num: *num, event_id, json: "{}".into(), meta });
        }
        store.commit(tx).await.unwrap();

        let reader = store.read();
        assert_eq!(reader.events(nid, &nums).await.unwrap().len(), nums.len());
        assert_eq!(reader.pdus(nid, &nums).await.unwrap().len(), nums.len());
        assert!(reader.cache.pdus.is_empty());
        reader.events(nid, &nums[1..]).await.unwrap();
        assert!(!reader.cache.pdus.is_empty());
    }

    #[tokio::test]
    async fn what_was_removed_does_not_come_back_out_of_an_older_snapshot() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let id = event_id!("$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8");
        let (nid, num) = (RoomNid(1), EventNum(1));
        let meta = sample(Some(1), Vec::new());
        let mut tx = Tx::new();
        tx.first_head(nid, &RoomHead::new(RoomVersionId::V11));
        tx.put_event(nid, &NewEvent { num, event_id: id.to_owned(), json: "{}".into(), meta });
        store.commit(tx).await.unwrap();

        let before = store.read();
        let mut tx = Tx::new();
        let removed = tx.drop_events(&before, nid, 9).await.unwrap();
        assert_eq!((&*removed.events, &*removed.ids), (&[num][..], &[id.to_owned()][..]));
        let at = store.commit(tx).await.unwrap();
        store.forget(at, nid, &removed);
        assert!(before.pdu(nid, num).await.is_ok(), "the snapshot still has it");
        assert_eq!(before.event_address(id).await.unwrap(), Some((nid, num)));
        assert!(matches!(store.read().pdu(nid, num).await, Err(crate::Error::Gone)));
        assert_eq!(store.read().event_address(id).await.unwrap(), None);
    }
}
