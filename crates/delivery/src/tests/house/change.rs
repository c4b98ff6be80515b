//! Changes of a room that no event of its timeline tells.

use chappe_store::{
    EventMeta, EventNum, LogEntry, Membership, Reader, RoomHead, RoomNid, StateChange, StateRef, StateWriter,
    Status, Tx, WholeSince, members::MemberChange, out_of_band::OutOfBand, partial::PartialRoom,
    state::StateKey,
};
use ruma::{EventId, RoomId, server_name};
use serde_json::value::RawValue;

use super::{House, Person};

/// Makes `event`, which somebody has just sent, one that came by a fork from the state before the event `forked`. Whoever is
/// named has by the resolution the membership that is named, or none.
pub(in crate::tests) async fn by_fork(
    house: &House,
    room: &RoomId,
    (event, forked): (&EventId, EventNum),
    resolved: Option<(&Person<'_>, Option<(Membership, EventNum)>)>,
) {
    let mut change = RoomChange::of(house, room).await;
    let (reader, nid) = (&change.reader, change.nid);
    let num = reader.event_num(nid, event).await.unwrap().unwrap();
    let then = reader.event_meta(nid, forked).await.unwrap().before;
    let meta = reader.event_meta(nid, num).await.unwrap();
    change.tx.place_event(nid, num, &EventMeta { before: then, after: then, ..meta });
    if let Some((person, now)) = resolved {
        change.resolve(person, room, now).await;
    }
    let entry = LogEntry::Event { room: nid.0, event: num.0, member: None, local: true, sticky: false };
    change.commit(entry).await;
}

/// Makes the members of a room known as of now: by what is known, a user has another membership than it seemed.
pub(in crate::tests) async fn becomes_whole(
    house: &House,
    room: &RoomId,
    known: (&Person<'_>, (Membership, EventNum)),
) {
    let mut change = RoomChange::of(house, room).await;
    (change.head.partial, change.head.whole_since) = (false, WholeSince::Now);
    change.resolve(known.0, room, Some(known.1)).await;
    let entry = LogEntry::Whole { room: change.nid.0, servers: Vec::new() };
    change.commit(entry).await;
}

/// Takes an event out of the timeline: one that this server has only heard of.
pub(in crate::tests) async fn unplaced(house: &House, room: &RoomId, num: EventNum) {
    let mut change = RoomChange::of(house, room).await;
    let meta = change.reader.event_meta(change.nid, num).await.unwrap();
    let ordinal = meta.ordinal.unwrap();
    change.tx.unplace_event(change.nid, num, ordinal, &EventMeta { ordinal: None, ..meta });
    let entry = LogEntry::Purged { room: change.nid.0, events: Vec::new() };
    change.commit(entry).await;
}

/// Makes an event one that only a told state has.
pub(in crate::tests) async fn told(house: &House, room: &RoomId, num: EventNum) {
    let mut change = RoomChange::of(house, room).await;
    let meta = change.reader.event_meta(change.nid, num).await.unwrap();
    let ordinal = meta.ordinal.unwrap();
    let (before, after) = (StateRef::EMPTY, StateRef::EMPTY);
    let meta = EventMeta { status: Status::Outlier, before, after, ordinal: None, ..meta };
    change.tx.unplace_event(change.nid, num, ordinal, &meta);
    let entry = LogEntry::Purged { room: change.nid.0, events: Vec::new() };
    change.commit(entry).await;
}

/// Gives events places behind the beginning of the room, as history has that is fetched from other servers.
pub(in crate::tests) async fn back_filled(house: &House, room: &RoomId, nums: &[EventNum]) {
    for (place, num) in (-10..).zip(nums) {
        unplaced(house, room, *num).await;
        let mut change = RoomChange::of(house, room).await;
        let meta = change.reader.event_meta(change.nid, *num).await.unwrap();
        change.tx.place_event(change.nid, *num, &EventMeta { ordinal: Some(place), ..meta });
        let entry = LogEntry::Purged { room: change.nid.0, events: Vec::new() };
        change.commit(entry).await;
    }
}

/// Takes a user out of a room by a resolution of states that no event brings.
pub(in crate::tests) async fn taken_out(house: &House, room: &RoomId, person: &Person<'_>) {
    let mut change = RoomChange::of(house, room).await;
    change.resolve(person, room, None).await;
    let entry = LogEntry::Members { room: change.nid.0 };
    change.commit(entry).await;
}

/// Makes a room one whose members are still to come.
pub(in crate::tests) async fn lacks_members(house: &House, room: &RoomId) {
    let mut change = RoomChange::of(house, room).await;
    change.head.partial = true;
    let via = server_name!("b.example").to_owned();
    let partial = PartialRoom { join: 1, prev: Vec::new(), via, servers: Vec::new() };
    change.tx.begin_partial(change.nid, &partial);
    let entry = LogEntry::Members { room: change.nid.0 };
    change.commit(entry).await;
}

/// A commit that changes a room as no event of its timeline says.
struct RoomChange<'h> {
    house: &'h House,
    reader: Reader<'h>,
    nid: RoomNid,
    old: RoomHead,
    head: RoomHead,
    tx: Tx,
}

impl<'h> RoomChange<'h> {
    async fn of(house: &'h House, room: &RoomId) -> Self {
        let reader = house.store.read();
        let nid = reader.room_nid(room).await.unwrap().unwrap();
        let old = reader.room_head(nid).await.unwrap();
        Self { house, reader, nid, head: old.clone(), old, tx: Tx::new() }
    }

    /// Gives a user another membership, or none.
    async fn resolve(&mut self, person: &Person<'_>, room: &RoomId, now: Option<(Membership, EventNum)>) {
        let (nid, user) = (self.nid, person.id.clone());
        let mut writer = StateWriter::new(nid, &self.old);
        let key = StateKey::new("m.room.member", &user);
        let num = now.map_or(EventNum::NONE, |(_, num)| num);
        writer.advance(&self.reader, &[StateChange { key, num }]).await.unwrap();
        writer.write(&mut self.head, &mut self.tx);
        let before = self.reader.membership(nid, &user).await.unwrap();
        if let Some((_, last)) = before.filter(|_| now.is_none()) {
            let last = self.reader.pdu(nid, last).await.unwrap();
            let event = RawValue::from_string(last.json.to_string()).unwrap();
            let farewell = OutOfBand::farewell(nid, &self.head.version, (&*last.event_id, event));
            self.tx.put_out_of_band(&user, room, &farewell);
        }
        let old = before.map(|(membership, _)| membership);
        let change = MemberChange { user: user.clone(), local: true, old, new: now };
        self.tx.change_member(nid, &mut self.head, &change);
        self.tx.log(LogEntry::Member { room: nid.0, user });
    }

    async fn commit(mut self, entry: LogEntry) {
        self.tx.replace_head(self.nid, &self.old, &self.head);
        self.tx.log(entry);
        self.house.store.commit(self.tx).await.unwrap();
    }
}
