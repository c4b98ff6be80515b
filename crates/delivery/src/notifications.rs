//! Notifications, found by the reader: the user's rooms are merged backwards in time, and what is not asked for is not
//! looked at.
//!
//! Nothing is written when something is said. A page looks at the heads of the user's rooms once, asks of those that went on
//! since it begins where their last event before it is, and then opens only the rooms in which something happened
//! within the page, newest first.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap},
    fmt,
    str::FromStr,
};

use chappe_rooms::{Bundle, Form, Seen, Unsigned};
use chappe_rules::{
    Pdu, client,
    push::{Setting, Subject, actions, attention},
    version,
};
use chappe_store::{
    EventNum, Membership, Position, Reader, RoomNid, out_of_band::OutOfBand, rooms::RoomHeads,
};
use ruma::{
    OwnedEventId, OwnedRoomId, RoomVersionId, UserId, events::room::member::MembershipState, push::Action,
};
use serde_json::value::RawValue;

use crate::{
    Delivery, Error,
    signal::Settings,
    tail::Tail,
    unread::{Read, Reading, display_name, matters, thread_of},
};

/// Notifications of a page at most.
const MOST: usize = 100;
/// Events of a room looked at at once.
const PAGE: usize = 25;
/// Events looked at for one page at most; a page may be shorter then, and tells where to go on.
const LOOKED_AT: usize = 2_500;
/// Rooms opened for one page at most.
const OPENED: usize = 200;
/// Heads read at once.
const CHUNK: usize = 500;

/// Which notifications.
#[derive(Clone, Debug, Default)]
pub struct NotificationsRequest {
    /// Those before this token.
    pub from: Option<String>,
    /// How many.
    pub limit: usize,
    /// Only those that stand out.
    pub only_highlights: bool,
}

/// A page of notifications, the newest first.
#[derive(Debug, Default)]
pub struct Notifications {
    /// The notifications.
    pub list: Vec<Notification>,
    /// The token of the next page; none: there are no more.
    pub next: Option<String>,
}

/// A notification.
#[derive(Debug)]
pub struct Notification {
    /// What the user's rules say is to be done.
    pub actions: Vec<Action>,
    /// The event, without its room.
    pub event: Box<RawValue>,
    /// Whether the user has read on.
    pub read: bool,
    /// Where.
    pub room: OwnedRoomId,
    /// When it was sent, in milliseconds since 1970.
    pub ts: u64,
}

/// Where an event stands among all of a user: by commit, then by room, then by place in the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    position: Position,
    room: RoomNid,
    ordinal: i64,
}

/// The room number of what is not in a room here.
const NOWHERE: RoomNid = RoomNid(u32::MAX);

impl Place {
    /// The place in a room before which everything before this place is: never after it, so that pages get on.
    fn in_room(self, room: RoomNid) -> Self {
        match room.cmp(&self.room) {
            Ordering::Equal => self,
            Ordering::Less => Self { room, ordinal: i64::MAX, ..self },
            Ordering::Greater => {
                Self { position: Position(self.position.0.saturating_sub(1)), room, ordinal: i64::MAX }
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n1_{}_{}_{}", self.position, self.room.0, self.ordinal)
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let read = || {
            let mut parts = text.strip_prefix("n1_")?.split('_');
            let position = Position(parts.next()?.parse().ok()?);
            let room = RoomNid(parts.next()?.parse().ok()?);
            let ordinal = parts.next()?.parse().ok()?;
            parts.next().is_none().then_some(Self { position, room, ordinal })
        };
        read().ok_or(Error::BadParameter("from"))
    }
}

/// What comes next: something found, or a room in which everything that was not looked at is before this place.
struct Entry {
    at: Place,
    what: What,
}

enum What {
    Found(Box<Notification>),
    /// An invite to a room that this server is not in.
    Invite(OwnedRoomId),
    /// A room of which it is not known where its last event before this place is; the commit of its last event of all,
    /// and the ordinal after that.
    Unplaced(RoomNid, Position, i64),
    /// A room that goes on before this ordinal.
    Room(RoomNid, i64),
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}

struct Merge<'a> {
    delivery: &'a Delivery,
    reader: &'a Reader<'a>,
    user: &'a UserId,
    settings: &'a Settings,
    request: &'a NotificationsRequest,
    from: Option<Place>,
    heap: BinaryHeap<Entry>,
    /// The rooms that were opened, and how far they are read.
    rooms: BTreeMap<RoomNid, Read>,
    looked_at: usize,
}

impl Delivery {
    /// What a user was or would have been notified of, in rooms they are or were in, as far as they may see it.
    ///
    /// Specification: client-server API, "Listing notifications".
    pub async fn notifications(
        &self,
        user: &UserId,
        request: &NotificationsRequest,
    ) -> Result<Notifications, Error> {
        let from = request.from.as_deref().map(Place::from_str).transpose()?;
        let reader = self.0.store.read();
        self.0.wake.reach(reader.position()).await?;
        let settings = self.settings(&reader, user).await?;
        let (heap, rooms) = (BinaryHeap::new(), BTreeMap::new());
        let mut merge = Merge {
            delivery: self,
            reader: &reader,
            user,
            settings: &settings,
            request,
            from,
            heap,
            rooms,
            looked_at: 0,
        };
        merge.begin().await?;
        merge.page().await
    }
}

impl Merge<'_> {
    /// Every room with the place before which all in it is.
    async fn begin(&mut self) -> Result<(), Error> {
        let rooms = self.reader.user_rooms(self.user).await?;
        for rooms in rooms.chunks(CHUNK) {
            let nids: Vec<RoomNid> = rooms.iter().map(|(nid, _)| *nid).collect();
            let heads = self.reader.get_many::<RoomHeads>(&nids).await?;
            for ((nid, own), head) in rooms.iter().zip(heads) {
                let Some(head) = head else { continue };
                // Whoever is not in a room is told nothing after that came to be.
                let last =
                    if own.value.membership == Membership::Join { head.position } else { own.position };
                let mut at = Place { position: last, room: *nid, ordinal: i64::MAX };
                if let Some(from) = self.from {
                    at = at.min(from.in_room(*nid));
                }
                self.heap.push(Entry { at, what: What::Unplaced(*nid, head.position, head.next_live) });
            }
        }
        for (room, invite) in self.reader.out_of_band_list(self.user).await? {
            let at = Place { position: invite.position, room: NOWHERE, ordinal: 0 };
            if invite.value.membership == Membership::Invite && self.from.is_none_or(|from| at < from) {
                self.heap.push(Entry { at, what: What::Invite(room) });
            }
        }
        Ok(())
    }

    async fn page(&mut self) -> Result<Notifications, Error> {
        let limit = self.request.limit.clamp(1, MOST);
        let mut page = Notifications::default();
        let mut last = self.from;
        while let Some(Entry { at, what }) = self.heap.pop() {
            match what {
                What::Found(found) if page.list.len() < limit => {
                    page.list.push(*found);
                    last = Some(at);
                }
                What::Invite(room) if page.list.len() < limit => {
                    let found = self.reader.out_of_band(self.user, &room).await?;
                    page.list.extend(found.and_then(|at| self.invite(room, &at.value.0)));
                    last = Some(at);
                }
                What::Unplaced(nid, newest, next) if page.list.len() < limit => {
                    let before =
                        if newest <= at.position && at.ordinal == i64::MAX { Some(next) } else { None };
                    self.place(nid, before, at).await?;
                }
                What::Room(nid, before) if self.looked_at < LOOKED_AT && self.rooms.len() < OPENED => {
                    if page.list.len() == limit {
                        page.next = last.map(|last| last.to_string());
                        return Ok(page);
                    }
                    self.look(nid, before).await?;
                    last = Some(last.map_or(at, |last| last.min(at)));
                }
                _ => {
                    page.next = last.map(|last| last.to_string());
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }

    /// Puts a room where its last event before a place is. Otherwise all rooms that went on since the page begins would
    /// have to be opened before anything that was found is told.
    async fn place(&mut self, nid: RoomNid, before: Option<i64>, at: Place) -> Result<(), Error> {
        let before = match before {
            Some(before) => before,
            None if at.ordinal < i64::MAX => at.ordinal,
            None => self.reader.ordinal_after(nid, at.position).await?,
        };
        let rows = self.reader.timeline_back(nid, before, 1).await?;
        if let Some(row) = rows.first().filter(|row| row.ordinal > 0) {
            let last = Place { position: row.position, room: nid, ordinal: row.ordinal + 1 };
            self.heap.push(Entry { at: last.min(at), what: What::Room(nid, row.ordinal + 1) });
        }
        Ok(())
    }

    /// Looks at the next events of a room, all of them before an ordinal.
    async fn look(&mut self, nid: RoomNid, before: i64) -> Result<(), Error> {
        let tail = self.delivery.tail(self.reader, nid).await?;
        let numbered = (nid, tail.room_id.clone());
        let view = self.delivery.0.rooms.view_with(self.reader.clone(), numbered, tail.head.clone())?;
        let reading =
            Reading { user: self.user, view: &view, tail: &tail, settings: self.settings, signal: None };
        if !self.rooms.contains_key(&nid) {
            let read = self.delivery.read_up_to(&reading).await?;
            self.rooms.insert(nid, read);
        }
        let rows = self.reader.timeline_back(nid, before, PAGE).await?;
        self.looked_at += rows.len();
        // What was fetched of the time before this server knew the room notified nobody.
        let live: Vec<_> = rows.iter().filter(|row| row.ordinal > 0).collect();
        let nums: Vec<EventNum> = live.iter().map(|row| row.num).collect();
        let mut seen = view.visible(self.user, view.load(&nums).await?).await?;
        // One's invite is one's own to see, whatever the room shows to those who are not in it.
        let own = self.reader.user_room(self.user, nid).await?.map(|own| own.value);
        if let Some(own) = own.filter(|own| own.membership == Membership::Invite && nums.contains(&own.num))
            && !seen.iter().any(|seen| seen.event.num == own.num)
        {
            let invite = view.load(&[own.num]).await?.into_iter();
            seen.extend(invite.map(|event| Seen { event, membership: MembershipState::Invite }));
        }
        let places: BTreeMap<EventNum, Place> = live
            .iter()
            .map(|row| (row.num, Place { position: row.position, room: nid, ordinal: row.ordinal }))
            .collect();
        for seen in seen {
            let Some(at) = places.get(&seen.event.num).copied() else { continue };
            if let Some(found) = self.judge(&reading, &tail, &seen).await? {
                self.heap.push(Entry { at, what: What::Found(Box::new(found)) });
            }
        }
        if let Some(end) = live.last().filter(|_| live.len() == PAGE) {
            let at = Place { position: end.position, room: nid, ordinal: end.ordinal };
            self.heap.push(Entry { at, what: What::Room(nid, end.ordinal) });
        }
        Ok(())
    }

    /// What the user's rules make of an event, if it notifies.
    async fn judge(
        &self,
        reading: &Reading<'_>,
        tail: &Tail,
        seen: &Seen,
    ) -> Result<Option<Notification>, Error> {
        let pdu = &seen.event.pdu;
        let invited = pdu.state_key() == Some(self.user.as_str())
            && seen.membership == MembershipState::Invite
            && !self.settings.invites.hides(pdu.sender());
        if !matters(&seen.event, reading) || !(invited || seen.membership == MembershipState::Join) {
            return Ok(None);
        }
        let view = reading.view;
        let name = display_name(reading).await?;
        let setting = Setting {
            room_id: &view.room_id,
            joined: view.head.joined.into(),
            power: tail.power(view).await?,
            user: self.user,
            display_name: &name,
            follows: crate::unread::follows(reading, pdu).await?,
        };
        let subject = seen.event.kept(Subject::new);
        let Some(actions) = self.wanted(&subject, &setting) else { return Ok(None) };
        let ordinal = seen.event.meta.ordinal.unwrap_or_default();
        let thread = thread_of(view, &seen.event).await?;
        let read = self.rooms.get(&view.nid).is_some_and(|read| read.covers(ordinal, thread.as_ref()));
        let actor = chappe_rooms::Actor::user(self.user);
        let rendered = view.render(&actor, std::slice::from_ref(seen), Form::Sync, Bundle::None).await?.pop();
        let ts = u64::from(pdu.origin_server_ts().0);
        let room = view.room_id.clone();
        Ok(rendered.map(|event| Notification { actions, event, read, room, ts }))
    }

    fn wanted(&self, subject: &Subject, setting: &Setting<'_>) -> Option<Vec<Action>> {
        let actions = actions(&self.settings.rules, subject, setting)?;
        let attention = attention(actions);
        let wanted = attention.notify && (attention.highlight || !self.request.only_highlights);
        wanted.then(|| actions.to_vec())
    }

    /// An invite to a room that this server is not in, if it notifies.
    fn invite(&self, room: OwnedRoomId, what: &OutOfBand) -> Option<Notification> {
        let known = what.version.as_deref().and_then(|version| RoomVersionId::try_from(version).ok());
        let rules = version::rules(&known.unwrap_or(RoomVersionId::V11))?;
        let id = OwnedEventId::try_from(what.event_id.as_str()).ok()?;
        let pdu = Pdu::restore(rules, id, what.event.get()).ok()?;
        let sender = pdu.sender();
        if self.settings.ignored.contains(sender) || self.settings.invites.hides(sender) {
            return None;
        }
        let setting = Setting {
            room_id: &room,
            joined: 0,
            power: None,
            user: self.user,
            display_name: "",
            follows: None,
        };
        let actions = self.wanted(&Subject::new(&pdu), &setting)?;
        let event = client::render(&pdu, Form::Sync, &Unsigned::default());
        let ts = u64::from(pdu.origin_server_ts().0);
        Some(Notification { actions, event, read: false, room, ts })
    }
}

#[cfg(test)]
mod tests {
    use chappe_store::{Position, RoomNid};

    use super::Place;

    #[test]
    fn tokens_survive_their_text_and_others_are_refused() {
        let place = Place { position: Position(12), room: RoomNid(3), ordinal: -4 };
        assert_eq!(place.to_string().parse::<Place>().unwrap(), place);
        for bad in
            ["", "n1_", "n1_1_2", "n1_1_2_3_4", "n2_1_2_3", "n1_-1_2_3", "c1_1_a-1", "n1_1_5000000000_1"]
        {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
