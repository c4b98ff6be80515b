//! Events: numbered per room, their JSON written once, what the server thinks of them beside it.

use std::{any::Any, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chappe_kv::Position;
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId};

use crate::{
    At, Reader, Tx, Value,
    key::{Key, KeyReader, KeyWriter},
    pack::{Packer, Unpacker},
    packed_pdu,
    rooms::RoomNid,
    state::StateRef,
    table,
    timeline::Timeline,
    tx::Error,
};

/// An event's number in its room: dense, in order of storing, from 1; an event's auth events have smaller ones.
/// 0 ([`EventNum::NONE`]) stands for no event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventNum(pub u32);

impl EventNum {
    /// No event.
    pub const NONE: Self = Self(0);

    /// `None` for [`EventNum::NONE`].
    pub fn some(self) -> Option<Self> {
        (self != Self::NONE).then_some(self)
    }
}

impl Key for EventNum {
    fn write(&self, to: &mut KeyWriter) {
        self.0.write(to);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        u32::read(from).map(Self)
    }
}

impl Value for EventNum {
    fn to_bytes(&self) -> Vec<u8> {
        Packer::default().uint(self.0.into()).done()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Unpacker::new(bytes, "event number").u32().map(Self)
    }
}

impl Value for (RoomNid, EventNum) {
    fn to_bytes(&self) -> Vec<u8> {
        Packer::default().uint(self.0.0.into()).uint(self.1.0.into()).done()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Unpacker::new(bytes, "event address");
        Ok((RoomNid(from.u32()?), EventNum(from.u32()?)))
    }
}

/// An event id as a key: 33 bytes where it is a hash in URL-safe base64 (room version 4 on), text otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventIdKey(pub OwnedEventId);

impl EventIdKey {
    fn hash(&self) -> Option<[u8; 32]> {
        let text = self.0.as_str().strip_prefix('$').filter(|text| text.len() == 43)?;
        let hash: [u8; 32] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        Some(hash)
    }

    fn from_hash(hash: [u8; 32]) -> Result<Self, Error> {
        let id = format!("${}", URL_SAFE_NO_PAD.encode(hash));
        id.try_into().map(Self).map_err(|_| Error::Corrupt("event id"))
    }
}

impl From<&EventId> for EventIdKey {
    fn from(id: &EventId) -> Self {
        Self(id.to_owned())
    }
}

impl Key for EventIdKey {
    fn write(&self, to: &mut KeyWriter) {
        match self.hash() {
            Some(hash) => to.raw(&[1]).raw(&hash),
            None => to.raw(&[0]).text(self.0.as_str()),
        };
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        match from.raw()? {
            [1] => Self::from_hash(from.raw()?),
            _ => from.text()?.try_into().map(Self).map_err(|_| Error::Corrupt("event id")),
        }
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Part of the room; in the timeline if it has an ordinal.
    Accepted,
    /// Allowed where it stands, not by the current state: not shown, not followed.
    SoftFailed,
    /// Not allowed by the auth rules: only kept to know it again.
    Rejected,
    /// Known without its place in the room: as somebody's auth or state event.
    Outlier,
}

impl Status {
    fn code(self) -> u64 {
        match self {
            Self::Accepted => 0,
            Self::SoftFailed => 1,
            Self::Rejected => 2,
            Self::Outlier => 3,
        }
    }

    fn from_code(code: u64) -> Option<Self> {
        [Self::Accepted, Self::SoftFailed, Self::Rejected, Self::Outlier]
            .into_iter()
            .find(|s| s.code() == code)
    }
}

/// What the server thinks of an event; small, changes rarely (redacted, de-outliered).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventMeta {
    /// The commit that stored it, or that gave it its place in the timeline if that was later.
    pub position: Position,
    /// What became of it.
    pub status: Status,
    /// The state before it; [`StateRef::EMPTY`] for outliers.
    pub before: StateRef,
    /// The state after it.
    pub after: StateRef,
    /// Its place in the timeline. Outliers, rejected and soft-failed events have none.
    pub ordinal: Option<i64>,
    /// The redaction that applies to it.
    pub redacted_by: EventNum,
    /// Its auth events.
    pub auth: Vec<EventNum>,
    /// Its previous events, as far as this server has them.
    pub prev: Vec<EventNum>,
    /// Whether its content has expired: what is left of it is its redacted form, and no row of the timeline.
    pub expired: bool,
    /// When it came here, in milliseconds since 1970, if it claimed to be of a later time; 0 otherwise.
    pub came: u64,
}

impl EventMeta {
    fn pack(&self) -> Vec<u8> {
        let mut to = Packer::default();
        let flags = self.status.code()
            | u64::from(self.ordinal.is_some()) << 2
            | u64::from(self.expired) << 3
            | u64::from(self.came != 0) << 4;
        to.uint(flags);
        if let Some(ordinal) = self.ordinal {
            to.int(ordinal);
        }
        to.raw(&self.before.pack());
        // Mostly the same line and the same or the next version.
        if self.after.line == self.before.line && self.after.version >= self.before.version {
            to.uint(u64::from(self.after.version - self.before.version) << 1);
        } else {
            to.uint(1).raw(&self.after.pack());
        }
        to.uint(self.redacted_by.0.into());
        to.list(self.auth.iter().map(|num| num.0)).list(self.prev.iter().map(|num| num.0));
        if self.came != 0 {
            to.uint(self.came);
        }
        to.done()
    }

    fn unpack(position: Position, mut from: Unpacker<'_>) -> Result<Self, Error> {
        let flags = from.uint()?;
        let status = Status::from_code(flags & 3).ok_or(from.damaged())?;
        let ordinal = if flags & 4 == 0 { None } else { Some(from.int()?) };
        let before = StateRef::unpack(&mut from)?;
        let step = from.uint()?;
        let after = if step == 1 {
            StateRef::unpack(&mut from)?
        } else {
            let step = u32::try_from(step >> 1).map_err(|_| from.damaged())?;
            let version = before.version.checked_add(step).ok_or(from.damaged())?;
            StateRef { line: before.line, version }
        };
        let redacted_by = EventNum(from.u32()?);
        let auth = from.list()?.into_iter().map(EventNum).collect();
        let prev = from.list()?.into_iter().map(EventNum).collect();
        let (expired, came) = (flags & 8 != 0, if flags & 16 == 0 { 0 } else { from.uint()? });
        Ok(Self { position, status, before, after, ordinal, redacted_by, auth, prev, expired, came })
    }
}

impl Value for EventMeta {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.position.0.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.pack());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Unpacker::new(bytes, "event record");
        let position = Position(u64::from_be_bytes(from.fixed()?));
        Self::unpack(position, from)
    }
}

/// An event's JSON as it is signed, with its id. Never changes; shared out of the cache.
pub struct StoredPdu {
    /// Its id.
    pub event_id: OwnedEventId,
    /// The PDU as canonical JSON, without `event_id`.
    pub json: Box<str>,
    forms: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
}

impl StoredPdu {
    /// An event's JSON and id.
    pub fn new(event_id: OwnedEventId, json: impl Into<Box<str>>) -> Self {
        Self { event_id, json: json.into(), forms: Mutex::default() }
    }

    /// A form of this event worked out once and kept with it in the cache: parsed, rendered for clients, …
    /// One form per type `T`.
    pub fn form<T, E>(&self, work_out: impl FnOnce(&Self) -> Result<T, E>) -> Result<Arc<T>, E>
    where
        T: Send + Sync + 'static,
    {
        let known = self.forms.lock().iter().find_map(|form| form.clone().downcast::<T>().ok());
        if let Some(form) = known {
            return Ok(form);
        }
        let form = Arc::new(work_out(self)?);
        self.forms.lock().push(form.clone());
        Ok(form)
    }
}

impl Clone for StoredPdu {
    fn clone(&self) -> Self {
        Self::new(self.event_id.clone(), self.json.clone())
    }
}

impl PartialEq for StoredPdu {
    fn eq(&self, other: &Self) -> bool {
        self.event_id == other.event_id && self.json == other.json
    }
}

impl std::fmt::Debug for StoredPdu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoredPdu {} {}", self.event_id, self.json)
    }
}

/// In the first byte of an event: its JSON is packed. Events of format 1 are not.
const PACKED: u8 = 2;

impl Value for StoredPdu {
    fn to_bytes(&self) -> Vec<u8> {
        let hash = EventIdKey(self.event_id.clone()).hash();
        let packed = packed_pdu::pack(&self.json);
        let json = packed.as_deref().unwrap_or(self.json.as_bytes());
        let form = u8::from(hash.is_some()) | if packed.is_some() { PACKED } else { 0 };
        let mut bytes = Vec::with_capacity(1 + self.event_id.as_str().len() + json.len());
        bytes.push(form);
        match hash {
            Some(hash) => bytes.extend_from_slice(&hash),
            None => {
                let mut id = KeyWriter(bytes);
                id.text(self.event_id.as_str());
                bytes = id.0;
            }
        }
        bytes.extend_from_slice(json);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = KeyReader(bytes);
        let [form] = from.raw()?;
        let event_id = match form & !PACKED {
            0 => from.text()?.try_into().map_err(|_| Error::Corrupt("event id"))?,
            1 => EventIdKey::from_hash(from.raw()?)?.0,
            _ => return Err(Error::Corrupt("event")),
        };
        if form & PACKED != 0 {
            return Ok(Self::new(event_id, packed_pdu::unpack(from.rest())?));
        }
        let json = str::from_utf8(from.rest()).map_err(|_| Error::Corrupt("event JSON"))?;
        Ok(Self::new(event_id, json))
    }
}

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
                self.keep(&self.cache.pdus, &(nid, nums[i]), pdu.clone());
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
                self.keep(&self.cache.pdus, &key, pdu.clone());
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
    use proptest::prelude::*;
    use ruma::{RoomVersionId, event_id};

    use super::{EventMeta, EventNum, NewEvent, Status, StoredPdu};
    use crate::{
        Position, RoomHead, RoomNid, StateChange, StateRef, StateWriter, Store, Tx, Value, rooms::RoomHeads,
        state::StateKey,
    };

    fn meta(ordinal: Option<i64>, auth: Vec<EventNum>) -> EventMeta {
        let state = StateRef::EMPTY;
        let status = if ordinal.is_some() { Status::Accepted } else { Status::Outlier };
        let (position, redacted_by, prev) = (Position(0), EventNum::NONE, Vec::new());
        let (expired, came) = (false, 0);
        EventMeta {
            position,
            status,
            before: state,
            after: state,
            ordinal,
            redacted_by,
            auth,
            prev,
            expired,
            came,
        }
    }

    #[tokio::test]
    async fn an_event_of_another_room_is_not_there() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let id = event_id!("$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8");
        let (one, two) = (RoomNid(1), RoomNid(2));
        let (json, num) = ("{}".into(), EventNum(1));
        let event = NewEvent { num, event_id: id.to_owned(), json, meta: meta(Some(1), Vec::new()) };
        let mut tx = Tx::new();
        tx.first_head(one, &RoomHead::new(RoomVersionId::V11)).put_event(one, &event);
        let position = store.commit(tx).await.unwrap();

        let reader = store.read();
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
    async fn what_was_removed_does_not_come_back_out_of_an_older_snapshot() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let id = event_id!("$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8");
        let (nid, num) = (RoomNid(1), EventNum(1));
        let meta = meta(Some(1), Vec::new());
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

    #[tokio::test]
    async fn a_head_is_replaced_by_one_writer_only() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let nid = RoomNid(1);
        let mut tx = Tx::new();
        tx.first_head(nid, &RoomHead::new(RoomVersionId::V11));
        store.commit(tx).await.unwrap();
        let old = store.read().room_head(nid).await.unwrap();
        let mut new = old.clone();
        assert_eq!(new.take_event_num(), EventNum(1));
        let replace = || {
            let mut tx = Tx::new();
            tx.replace_head(nid, &old, &new);
            tx
        };
        let position = store.commit(replace()).await.unwrap();
        assert!(store.commit(replace()).await.is_err());
        let found = store.read().get::<RoomHeads>(&nid).await.unwrap().unwrap();
        assert_eq!((found.position, found.next_event), (position, 2));
    }

    /// A room whose events have these auth events; event `i` is number `i + 1`.
    async fn room_of(auth: &[Vec<u32>]) -> Store {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let mut tx = Tx::new();
        for (num, auth) in (1..).zip(auth) {
            let auth = auth.iter().copied().map(EventNum).collect();
            let event_id = format!("$e{num}:x.fr").try_into().unwrap();
            let (json, num) = ("{}".into(), EventNum(num));
            tx.put_event(RoomNid(1), &NewEvent { num, event_id, json, meta: meta(None, auth) });
        }
        store.commit(tx).await.unwrap();
        store
    }

    /// A hundred thousand events, each justified by the one before and nine further back.
    #[tokio::test]
    async fn a_long_and_wide_auth_chain_is_walked_once_and_takes_no_room() {
        const LENGTH: u32 = 100_000;
        let justify =
            |num: u32| (0..10).filter_map(move |back| num.checked_sub(1 + 7 * back).filter(|num| *num > 0));
        let auth: Vec<Vec<u32>> = (1..=LENGTH).map(|num| justify(num).collect()).collect();
        let store = room_of(&auth).await;
        let reader = store.read();
        let last = EventNum(LENGTH);
        assert_eq!(reader.auth_chain(RoomNid(1), &[last]).await.unwrap().len(), u64::from(LENGTH) - 1);
        for num in LENGTH - 100..LENGTH {
            let chain = reader.auth_chain(RoomNid(1), &[EventNum(num)]).await.unwrap();
            assert_eq!(chain.len(), u64::from(num) - 1);
        }
        let kept = reader.cache.chains.weight();
        assert!(kept < 4 << 20, "{kept} bytes for what is kept of chains");
    }

    fn naive_chain(auth: &[Vec<u32>], of: u32) -> std::collections::BTreeSet<u32> {
        let direct = &auth[of as usize - 1];
        direct.iter().copied().chain(direct.iter().flat_map(|num| naive_chain(auth, *num))).collect()
    }

    fn dag() -> impl Strategy<Value = Vec<Vec<u32>>> {
        prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..12).prop_map(
            |picks| {
                let pick = |(i, picks): (usize, Vec<prop::sample::Index>)| {
                    let smaller = |pick: prop::sample::Index| u32::try_from(pick.index(i) + 1).unwrap();
                    if i == 0 { Vec::new() } else { picks.into_iter().map(smaller).collect() }
                };
                picks.into_iter().enumerate().map(pick).collect()
            },
        )
    }

    proptest! {
        #[test]
        fn auth_chains_and_subgraphs_equal_plain_walks(auth in dag(), chosen: Vec<prop::sample::Index>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let chosen: roaring::RoaringBitmap =
                chosen.iter().map(|i| u32::try_from(i.index(auth.len()) + 1).unwrap()).collect();
            runtime.block_on(async {
                let store = room_of(&auth).await;
                let reader = store.read();
                for num in 1..=u32::try_from(auth.len()).unwrap() {
                    let chain = reader.auth_chain(RoomNid(1), &[EventNum(num)]).await.unwrap();
                    assert!(chain.iter().eq(naive_chain(&auth, num)));
                }
                let found = reader.conflicted_subgraph(RoomNid(1), &chosen).await.unwrap();
                let between = |num: &u32| {
                    let below = chosen.contains(*num) || chosen.iter().any(|c| naive_chain(&auth, c).contains(num));
                    let above = chosen.contains(*num) || naive_chain(&auth, *num).iter().any(|n| chosen.contains(*n));
                    below && above
                };
                assert!(found.iter().eq((1..=u32::try_from(auth.len()).unwrap()).filter(between)));
            });
        }
    }

    /// A state of the room for each map from key to event; all are side lines of the empty state or of each other.
    async fn with_states(store: &Store, states: &[Vec<(u8, u32)>]) -> Vec<StateRef> {
        let mut tx = Tx::new();
        tx.first_head(RoomNid(1), &RoomHead::new(RoomVersionId::V11));
        store.commit(tx).await.unwrap();
        let reader = store.read();
        let old = reader.room_head(RoomNid(1)).await.unwrap();
        let mut writer = StateWriter::new(RoomNid(1), &old);
        let mut refs = vec![StateRef::EMPTY];
        for (i, changes) in states.iter().enumerate() {
            let changes: Vec<_> = changes
                .iter()
                .map(|(key, num)| StateChange { key: StateKey::new("m.x", key), num: EventNum(*num) })
                .collect();
            let base = refs[i / 2];
            refs.push(writer.branch(&reader, base, &changes).await.unwrap());
        }
        let (mut head, mut tx) = (old.clone(), Tx::new());
        writer.write(&mut head, &mut tx);
        tx.replace_head(RoomNid(1), &old, &head);
        store.commit(tx).await.unwrap();
        refs
    }

    proptest! {
        #[test]
        fn auth_differences_equal_those_of_whole_states(
            auth in dag(),
            states in prop::collection::vec(prop::collection::vec((0u8..5, any::<prop::sample::Index>()), 0..4), 1..5),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let num = |index: &prop::sample::Index| u32::try_from(index.index(auth.len()) + 1).unwrap();
            // An event is about one key; now and then the key is removed instead.
            let entry = |gone: u8, num: u32| ((num % 5) as u8, if gone == 0 { 0 } else { num });
            let states: Vec<Vec<(u8, u32)>> =
                states.iter().map(|state| state.iter().map(|(gone, index)| entry(*gone, num(index))).collect()).collect();
            runtime.block_on(async {
                let store = room_of(&auth).await;
                let refs = with_states(&store, &states).await;
                let reader = store.read();
                let mut chains = Vec::new();
                for at in &refs[1..] {
                    let state = reader.full_state(RoomNid(1), *at).await.unwrap();
                    let chain: std::collections::BTreeSet<u32> =
                        state.iter().flat_map(|(_, num)| naive_chain(&auth, num.0)).collect();
                    chains.push(&chain | &state.iter().map(|(_, num)| num.0).collect());
                }
                let in_all = |num: &u32| chains.iter().all(|chain| chain.contains(num));
                let in_some = |num: &u32| chains.iter().any(|chain| chain.contains(num));
                let expected = (1..=u32::try_from(auth.len()).unwrap()).filter(|num| in_some(num) && !in_all(num));
                let found = reader.auth_difference(RoomNid(1), &refs[1..]).await.unwrap();
                assert!(found.iter().eq(expected), "{found:?} of {chains:?}");
            });
        }
    }

    #[test]
    fn a_form_is_worked_out_once_for_each_type() {
        let pdu = StoredPdu::new(event_id!("$a:x.fr").to_owned(), "{}");
        let mut times = 0;
        for _ in 0..2 {
            pdu.form(|pdu| {
                times += 1;
                Ok::<_, ()>(pdu.json.len())
            })
            .unwrap();
        }
        assert_eq!(times, 1);
        assert_eq!(*pdu.form(|_| Ok::<_, ()>("other".to_owned())).unwrap(), "other");
        assert!(StoredPdu::from_bytes(&[9]).is_err());
    }

    #[test]
    fn events_of_format_1_are_read() {
        let json = "{\"depth\":1}";
        let plain = [b"\0$a:x.fr\0\0", json.as_bytes()].concat();
        let hashed = [&[1], &[0; 32][..], json.as_bytes()].concat();
        let ids = ["$a:x.fr", "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"];
        for (bytes, id) in [plain, hashed].iter().zip(ids) {
            let pdu = StoredPdu::from_bytes(bytes).unwrap();
            assert_eq!((pdu.event_id.as_str(), &*pdu.json), (id, json));
        }
    }
}
