//! Rooms: their numbers, and the head record that every writer of a room expects and replaces.

use std::sync::atomic::Ordering::SeqCst;

use chappe_kv::Position;
use chappe_rules::retention::Retention;
use ruma::{OwnedRoomId, RoomId, RoomVersionId};

use crate::{
    At, Direction, Reader, Tx, Value,
    events::EventNum,
    expiry::ExpiryDue,
    key::{Key, KeyReader, KeyWriter},
    pack::{Packer, Unpacker},
    state::StateRef,
    table,
    tx::Error,
};

/// Places left free where history is missing.
const HOLE: i64 = 1 << 20;

/// A room's number on this server; never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomNid(pub u32);

impl Key for RoomNid {
    fn write(&self, to: &mut KeyWriter) {
        self.0.write(to);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        u32::read(from).map(Self)
    }
}

impl Value for RoomNid {
    fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        u32::from_bytes(bytes).map(Self)
    }
}

/// A room's head: what changes with nearly every write. Small (about 60 bytes).
///
/// Law: a transaction that writes anything of the room expects the head it was decided on and puts the next one
/// ([`Tx::replace_head`]).
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomHead {
    /// The last commit that replaced this head, those aside which only took away what has expired.
    pub position: Position,
    /// The room's version, as its create event says.
    pub version: RoomVersionId,
    /// The current state.
    pub state: StateRef,
    /// The number the next stored event gets.
    pub next_event: u32,
    /// The place the next live event gets in the timeline; starts at 1, jumps where history is missing.
    pub next_live: i64,
    /// The place the next backfilled event gets; starts at 0 and goes down.
    pub next_back: i64,
    /// The number the next line of state versions gets.
    pub next_line: u32,
    /// The number the next new state key gets.
    pub next_key: u32,
    /// Events that no accepted event follows yet: the next event's `prev_events`.
    pub extremities: Vec<EventNum>,
    /// The largest depth among the extremities.
    pub depth: u64,
    /// Joined users.
    pub joined: u32,
    /// Invited users.
    pub invited: u32,
    /// Whether a user of this server is or was joined, so that this server has the room's state.
    pub resident: bool,
    /// Whether memberships are still being fetched after a join over federation: the state lacks members.
    pub partial: bool,
    /// Whether it is known that no state of the room, on whatever fork, has ever named a policy server: then nobody has to
    /// look for one.
    pub no_policy: bool,
    /// Whether it is known that no state event of the room has ever been redacted: then nobody has to look for one.
    pub no_redacted_state: bool,
    /// How long what is said in the room is kept, and how far it was looked for what has expired.
    pub keeping: Keeping,
    /// The commit since which the state is whole; 0 for a room whose state was whole from the beginning.
    pub whole_since: WholeSince,
}

/// How long what is said in a room is kept, and how far it was looked for what has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// What the room says of it.
    pub said: Retention,
    /// The first event, by number, that may still have to go: all before it are gone, or are state.
    pub next: EventNum,
    /// When that one is looked at, in milliseconds since 1970; 0: never.
    pub due: u64,
}

impl Default for Keeping {
    fn default() -> Self {
        Self { said: Retention::default(), next: EventNum(1), due: 0 }
    }
}

impl Keeping {
    fn pack(&self, to: &mut Packer) {
        let lifetime = |ms: Option<u64>| ms.map_or(0, |ms| ms.saturating_add(1));
        to.uint(lifetime(self.said.max)).uint(lifetime(self.said.min));
        to.uint(self.next.0.into()).uint(self.due);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Error> {
        let (max, min) = (from.uint()?.checked_sub(1), from.uint()?.checked_sub(1));
        Ok(Self { said: Retention { max, min }, next: EventNum(from.u32()?), due: from.uint()? })
    }
}

/// Since when a room's state is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WholeSince {
    /// Since this commit, or from the beginning (0).
    Commit(Position),
    /// Since the commit that writes this.
    Now,
}

/// The number of a room's first state key.
pub(crate) const FIRST_KEY: u32 = 1;

impl RoomHead {
    /// The head of a room nothing is known of yet.
    pub fn new(version: RoomVersionId) -> Self {
        Self {
            position: Position(0),
            version,
            state: StateRef::EMPTY,
            next_event: 1,
            next_live: 1,
            next_back: 0,
            next_line: 1,
            next_key: FIRST_KEY,
            extremities: Vec::new(),
            depth: 0,
            joined: 0,
            invited: 0,
            resident: false,
            partial: false,
            no_policy: true,
            no_redacted_state: true,
            keeping: Keeping::default(),
            whole_since: WholeSince::Commit(Position(0)),
        }
    }

    /// The commit since which the state is whole.
    pub fn whole_at(&self) -> Position {
        match self.whole_since {
            WholeSince::Commit(position) => position,
            WholeSince::Now => self.position,
        }
    }

    /// Whether nothing is left of the room but its number: it was purged.
    pub fn is_bare(&self) -> bool {
        self.extremities.is_empty() && self.next_event > 1
    }

    /// Takes the next event number.
    pub fn take_event_num(&mut self) -> EventNum {
        let num = EventNum(self.next_event);
        self.next_event += 1;
        num
    }

    /// Takes the next place at the live end of the timeline.
    pub fn take_live_ordinal(&mut self) -> i64 {
        self.next_live += 1;
        self.next_live - 1
    }

    /// Leaves places free before the next live event: for history that is missing there and may come later.
    pub fn open_hole(&mut self) {
        if self.next_live > 1 {
            self.next_live = self.next_live.saturating_add(HOLE);
        }
    }

    /// Takes the next place at the old end of the timeline.
    pub fn take_back_ordinal(&mut self) -> i64 {
        self.next_back -= 1;
        self.next_back + 1
    }

    fn pack(&self) -> Vec<u8> {
        let mut to = Packer::default();
        to.text(self.version.as_str()).raw(&self.state.pack());
        to.uint(self.next_event.into()).int(self.next_live).int(self.next_back);
        to.uint(self.next_line.into()).uint(self.next_key.into());
        to.list(self.extremities.iter().map(|num| num.0)).uint(self.depth);
        to.uint(self.joined.into()).uint(self.invited.into());
        let keeps = self.keeping != Keeping::default();
        let flags = [self.resident, self.partial, self.no_policy, keeps, self.no_redacted_state];
        to.uint((0..).zip(flags).fold(0, |bits, (place, flag)| bits | u64::from(flag) << place));
        if keeps {
            self.keeping.pack(&mut to);
        }
        to.done()
    }
}

impl Value for RoomHead {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.position.0.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.pack());
        if self.whole_at() != Position(0) {
            bytes.extend_from_slice(&self.whole_at().0.to_be_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Unpacker::new(bytes, "room head");
        let mut head = Self {
            position: Position(u64::from_be_bytes(from.fixed()?)),
            version: from.text()?.try_into().map_err(|_| from.damaged())?,
            state: StateRef::unpack(&mut from)?,
            next_event: from.u32()?,
            next_live: from.int()?,
            next_back: from.int()?,
            next_line: from.u32()?,
            next_key: from.u32()?,
            extremities: from.list()?.into_iter().map(EventNum).collect(),
            depth: from.uint()?,
            joined: from.u32()?,
            invited: from.u32()?,
            resident: false,
            partial: false,
            no_policy: false,
            no_redacted_state: false,
            keeping: Keeping::default(),
            whole_since: WholeSince::Commit(Position(0)),
        };
        let flags = from.uint()?;
        (head.resident, head.partial, head.no_policy) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
        head.no_redacted_state = flags & 16 != 0;
        if flags & 8 != 0 {
            head.keeping = Keeping::unpack(&mut from)?;
        }
        if !from.is_empty() {
            head.whole_since = WholeSince::Commit(Position(u64::from_be_bytes(from.fixed()?)));
        }
        Ok(head)
    }
}

table! {
    /// Room id → number.
    RoomIds = ROOM_IDS: OwnedRoomId => RoomNid;
    /// Room id → the number under which everything is being removed: the room cannot come back before that is done.
    DoomedRooms = DOOMED_ROOMS: OwnedRoomId => RoomNid;
    /// Number → room id, with the position at which the room was numbered.
    RoomNames = ROOM_NAMES: RoomNid => At<String>;
    /// Number → head.
    RoomHeads = ROOM_HEADS: RoomNid => RoomHead;
}

impl Reader<'_> {
    /// The number of a room, if this server stores anything of it.
    pub async fn room_nid(&self, room: &RoomId) -> Result<Option<RoomNid>, Error> {
        if let Some(nid) = self.cache.room_nids.get(room) {
            return Ok(Some(nid));
        }
        let found = self.get::<RoomIds>(&room.to_owned()).await?;
        if let Some(nid) = found {
            self.keep(&self.cache.room_nids, &room.to_owned(), nid);
        }
        Ok(found)
    }

    /// The id of a numbered room.
    pub async fn room_id(&self, nid: RoomNid) -> Result<OwnedRoomId, Error> {
        if let Some(room) = self.cache.room_ids.get(&nid) {
            return Ok(room);
        }
        let found = self.get::<RoomNames>(&nid).await?.ok_or(Error::Corrupt("room number without a room"))?;
        let room: OwnedRoomId = found.value.try_into().map_err(|_| Error::Corrupt("room id"))?;
        self.cache.room_ids.insert(nid, room.clone());
        Ok(room)
    }

    /// The head of a room; every numbered room has one.
    pub async fn room_head(&self, nid: RoomNid) -> Result<RoomHead, Error> {
        self.get::<RoomHeads>(&nid).await?.ok_or(Error::Corrupt("room without a head"))
    }

    /// The heads of several rooms, in their order: one round trip, none for no rooms.
    pub async fn room_heads(&self, nids: &[RoomNid]) -> Result<Vec<RoomHead>, Error> {
        if nids.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.get_many::<RoomHeads>(nids).await?;
        found.into_iter().map(|head| head.ok_or(Error::Corrupt("room without a head"))).collect()
    }

    /// Up to `limit` rooms numbered above `after`, ascending: pages over all rooms.
    pub async fn rooms_after(&self, after: RoomNid, limit: usize) -> Result<Vec<RoomNid>, Error> {
        let mut from = after.0.saturating_add(1);
        let mut found = Vec::new();
        loop {
            let rows = self.scan_from::<RoomHeads>(&(), &RoomNid(from), limit).await?;
            let is_last = rows.len() < limit;
            if let Some((nid, _)) = rows.last() {
                from = nid.0.saturating_add(1);
            }
            let there = rows.into_iter().filter(|(_, head)| !head.is_bare());
            found.extend(there.map(|(nid, _)| nid));
            if is_last || found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
        }
    }

    /// Up to `limit` rooms, the newest number first.
    pub async fn newest_rooms(&self, limit: usize) -> Result<Vec<RoomNid>, Error> {
        let rows = self.scan::<RoomHeads>(&(), Direction::Backward, limit).await?;
        Ok(rows.into_iter().filter(|(_, head)| !head.is_bare()).map(|(nid, _)| nid).collect())
    }

    /// A number for a new room, given to nobody else in this process; pass it to [`Tx::new_room`].
    pub async fn next_room(&self) -> Result<RoomNid, Error> {
        let newest = self.scan::<RoomNames>(&(), Direction::Backward, 1).await?;
        let newest = newest.first().map_or(0, |(nid, _)| nid.0);
        let take = |taken: u32| taken.max(newest).checked_add(1);
        let before = self.cache.taken_room.fetch_update(SeqCst, SeqCst, take);
        let before = before.map_err(|_| Error::Corrupt("room numbers are used up"))?;
        Ok(RoomNid(before.max(newest) + 1))
    }
}

impl Tx {
    /// Numbers a room `nid` (from [`Reader::next_room`]). Conflict if the room exists, is being removed, or the number is
    /// taken by then.
    /// The caller puts the first head with [`Tx::first_head`] in the same transaction.
    pub fn new_room(&mut self, nid: RoomNid, room: &RoomId) -> &mut Self {
        self.expect_absent::<RoomNames>(&nid);
        self.expect_absent::<RoomIds>(&room.to_owned()).expect_absent::<DoomedRooms>(&room.to_owned());
        self.put::<RoomIds>(&room.to_owned(), &nid);
        self.put_now::<RoomNames, _>(&nid, &room.as_str().to_owned())
    }

    /// Puts the head of a room that has none.
    pub fn first_head(&mut self, nid: RoomNid, head: &RoomHead) -> &mut Self {
        self.expect_absent::<RoomHeads>(&nid);
        self.move_expiry(nid, 0, head.keeping.due).put_head(nid, head)
    }

    fn put_head(&mut self, nid: RoomNid, head: &RoomHead) -> &mut Self {
        let mut rest = head.pack();
        match head.whole_since {
            WholeSince::Now => return self.put_stamped_twice::<RoomHeads>(&nid, &rest),
            WholeSince::Commit(Position(0)) => {}
            WholeSince::Commit(position) => rest.extend_from_slice(&position.0.to_be_bytes()),
        }
        self.put_stamped::<RoomHeads>(&nid, &rest)
    }

    /// Puts the next head. Conflict if `old` is no longer the head. `new.position` is ignored: the commit's is stored,
    /// or the old one where nothing but [`RoomHead::keeping`] is new, as nothing has happened in the room.
    pub fn replace_head(&mut self, nid: RoomNid, old: &RoomHead, new: &RoomHead) -> &mut Self {
        self.expect::<RoomHeads>(&nid, Some(old));
        self.move_expiry(nid, old.keeping.due, new.keeping.due);
        let quiet = RoomHead { keeping: new.keeping, ..old.clone() };
        if new.keeping != old.keeping && *new == quiet {
            return self.put::<RoomHeads>(&nid, &quiet);
        }
        self.put_head(nid, new)
    }

    fn move_expiry(&mut self, nid: RoomNid, old: u64, new: u64) -> &mut Self {
        if old != new && old != 0 {
            self.delete::<ExpiryDue>(&(old, nid));
        }
        if old != new && new != 0 {
            self.put::<ExpiryDue>(&(new, nid), &());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};
    use ruma::RoomVersionId;

    use super::{RoomHead, RoomHeads, RoomNid};
    use crate::{EventNum, Store, Tx};

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
}
