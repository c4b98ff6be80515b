//! One room of an answer: what the device does not have of it yet.

use std::{collections::BTreeSet, sync::Arc};

use chappe_rooms::{Form, Profile, View};
use chappe_rules::visibility::membership;
use chappe_store::{EventNum, Membership, Position, StateRef, state::StateKey};
use ruma::{
    OwnedRoomId, OwnedUserId, api::client::filter::FilterDefinition, events::room::member::MembershipState,
};
use serde::Deserialize;

use super::super::{
    Json, RoomPart, SyncRequest,
    delta::{Candidate, Work},
    joined::{Place, Told as Rendered},
    left::End,
    state::{self, Nums, Stretch},
    stripped::{farewell, out_of_band},
    timeline::{self, Slice, Span},
};
use super::{Turn, ask::Combined, connection::RoomKey, lists::Relevant, sent::Sent};
use crate::{Error, SyncToken, Unread, signal::Look};

const MEMBER: &str = "m.room.member";

/// A room of an answer.
#[derive(Debug)]
pub struct SlidingRoom {
    /// The user's membership.
    pub membership: &'static str,
    /// Whether this is all there is instead of what has changed.
    pub initial: bool,
    /// Whether the timeline has events that were sent before, as more of them are asked for now.
    pub expanded: bool,
    /// The name, if it may have changed.
    pub name: Option<Option<String>>,
    /// The address of the picture, if it may have changed.
    pub avatar: Option<Option<String>>,
    /// For a room without a name: some members, if they may have changed.
    pub heroes: Vec<Hero>,
    /// Whether it is a direct chat, if that has changed.
    pub is_dm: Option<bool>,
    /// Of an invite or knock: what may be known of the room.
    pub stripped: Option<Vec<Json>>,
    /// Timeline and state.
    pub part: Option<RoomPart>,
    /// Events of the timeline that happened since the device asked last: the newest so many.
    pub live: usize,
    /// Joined and invited members, if they may have changed.
    pub members: Option<(u64, u64)>,
    /// Grows with what is said in the room.
    pub bump: u64,
    /// Unread counts; none for a room the user is not in.
    pub unread: Option<Unread>,
}

/// A member who stands for a room without a name.
#[derive(Debug)]
pub struct Hero {
    /// Who.
    pub user: OwnedUserId,
    /// Name and picture in the room.
    pub profile: Profile,
}

/// A room to tell, and what the device has then.
pub(super) type Outcome = (Option<SlidingRoom>, Sent);

/// Where the asked-for stretch of a room begins and ends.
struct Course<'a> {
    /// Up to where the device knows the room.
    known: Option<Position>,
    asked: &'a Combined,
    sent: Option<&'a Sent>,
    end: StateRef,
    /// Whether the room's members have come since.
    grown: bool,
}

impl Turn<'_> {
    /// Whether anything of the room may have to be told.
    pub(super) fn is_due(&self, relevant: &Relevant) -> bool {
        let row = &relevant.row;
        self.known.rooms.get(&row.key).is_none_or(|sent| {
            row.own.position > sent.up_to
                || (row.membership() == Membership::Join
                    && (row.last > sent.up_to || self.may_have_read(&row.key, sent.up_to)))
                || relevant.asked.limit > sent.timeline
                || relevant.marks != sent.asked
                || (!row.is_over() && self.direct.contains(&row.key) != sent.is_dm)
        })
    }

    /// Whether the user may have read on in a room, on whichever device: then less of it is unread.
    fn may_have_read(&self, room: &RoomKey, after: Position) -> bool {
        let RoomKey::Here(nid) = room else { return false };
        // What a user read is not known from before they were attached; what happened in a room is.
        self.work.signal.has_read(*nid, after) && self.work.delivery.0.wake.room_changed(*nid, after)
    }

    /// What the device does not have yet of a room. The room's id comes with it.
    pub(super) async fn room(&self, relevant: &Relevant) -> Result<(OwnedRoomId, Outcome), Error> {
        let sent = self.known.rooms.get(&relevant.row.key);
        let nid = match &relevant.row.key {
            RoomKey::Elsewhere(room) => {
                return Ok((room.clone(), self.elsewhere(room, relevant, sent).await?));
            }
            RoomKey::Here(nid) => *nid,
        };
        let id = self.work.reader.room_id(nid).await?;
        let request = self.request_of(relevant.asked.limit);
        let seen = sent.map(|sent| SyncToken { position: sent.up_to, ..SyncToken::default() });
        let work = Work {
            request: &request,
            seen,
            look: Look::Everywhere,
            actor: self.work.actor.clone(),
            ..self.work
        };
        let place = work.place(&Candidate { nid, own: relevant.row.own }).await?;
        let outcome = match relevant.row.membership() {
            Membership::Join => self.joined(&work, &place, relevant, sent).await?,
            Membership::Invite | Membership::Knock => {
                let stripped = work.stripped(&place, &self.personal.settings).await?;
                self.not_yet(relevant, sent, stripped)
            }
            Membership::Leave | Membership::Ban => self.over(&work, &place, relevant, sent).await?,
        };
        Ok((id, outcome))
    }

    /// A request for one room with so many events.
    fn request_of(&self, limit: usize) -> SyncRequest {
        let mut filter = FilterDefinition::default();
        filter.room.timeline.limit = Some(u32::try_from(limit).unwrap_or(u32::MAX).into());
        SyncRequest { filter: Arc::new(filter), ..self.work.request.clone() }
    }

    fn is_dm(&self, relevant: &Relevant) -> bool {
        self.direct.contains(&relevant.row.key)
    }

    /// What the device has of a room after this answer.
    fn sent_now(&self, relevant: &Relevant, before: Option<&Sent>) -> Sent {
        let mut now = before.cloned().unwrap_or_default();
        now.up_to = self.work.next.position;
        now.asked = relevant.marks.clone();
        now.is_dm = self.is_dm(relevant);
        now.ended = relevant.row.is_over();
        now.timeline = relevant.asked.limit;
        now
    }

    fn empty(&self, relevant: &Relevant, before: Option<&Sent>) -> SlidingRoom {
        let is_dm = self.is_dm(relevant);
        SlidingRoom {
            membership: relevant.row.membership().as_str(),
            initial: before.is_none(),
            expanded: false,
            name: None,
            avatar: None,
            heroes: Vec::new(),
            is_dm: before.map_or(is_dm, |sent| sent.is_dm != is_dm).then_some(is_dm),
            stripped: None,
            part: None,
            live: 0,
            members: None,
            bump: relevant.row.own.position.0,
            unread: None,
        }
    }

    async fn elsewhere(
        &self,
        room: &OwnedRoomId,
        relevant: &Relevant,
        sent: Option<&Sent>,
    ) -> Result<Outcome, Error> {
        let found = self.work.reader.out_of_band(&self.request.user, room).await?;
        let Some(at) = found else { return Ok((None, self.sent_now(relevant, sent))) };
        if relevant.row.is_over() {
            if sent.is_some_and(|sent| sent.ended && at.position <= sent.up_to) {
                return Ok((None, self.sent_now(relevant, sent)));
            }
            let part = farewell(&at, Form::Sync).part;
            let told = SlidingRoom { part: Some(part), initial: true, ..self.empty(relevant, sent) };
            return Ok((Some(told), self.sent_now(relevant, sent)));
        }
        let stripped = out_of_band(&at, &self.personal.settings).map(|(_, stripped)| stripped);
        Ok(self.not_yet(relevant, sent, stripped))
    }

    /// An invite or a knock.
    fn not_yet(&self, relevant: &Relevant, sent: Option<&Sent>, stripped: Option<Vec<Json>>) -> Outcome {
        let now = self.sent_now(relevant, sent);
        let changed =
            sent.is_none_or(|sent| relevant.row.own.position > sent.up_to || sent.is_dm != now.is_dm);
        let told = stripped.filter(|_| changed).map(|stripped| SlidingRoom {
            stripped: Some(stripped),
            initial: true,
            ..self.empty(relevant, sent)
        });
        (told, now)
    }

    async fn joined(
        &self,
        work: &Work<'_>,
        place: &Place<'_>,
        relevant: &Relevant,
        before: Option<&Sent>,
    ) -> Result<Outcome, Error> {
        let (view, asked) = (&place.view, &*relevant.asked);
        let known = work.known(place).await?;
        // Members came in great number behind a join over federation: whoever wants them all begins again.
        let grown = known.is_some_and(|seen| view.head.whole_at() > seen);
        let known = known.filter(|_| !grown || !asked.wants_all_members());
        let sent = before.filter(|_| known.is_some());
        let expanded = sent.is_some_and(|sent| asked.limit > sent.timeline);
        let after = if expanded { None } else { known };
        let span = Span { after, before: view.head.next_live };
        let wanted = work.wanted(&self.personal.settings.ignored);
        work.recall_stay(place).await?;
        let mut slice = timeline::slice((view, &place.tail), &span, &wanted).await?;
        // What the device may have of an earlier stay does not join on to this.
        slice.limited |= before.is_some() && known.is_none();
        let course = Course { known, asked, sent, end: view.head.state, grown };
        let (changed, mut nums) = self.state(view, &course, (&slice, expanded)).await?;
        let mut now = self.sent_now(relevant, sent);
        let joins_on =
            |seen: Position| slice.events.first().is_some_and(|first| first.event.meta.position <= seen);
        let gap = slice.limited && !(expanded && known.is_some_and(joins_on));
        if asked.is_lazy() {
            let moved = match known {
                Some(seen) if grown => Some(state::members_since(view, seen, false).await?),
                _ => None,
            };
            let changed = if gap { None } else { Some(&changed) };
            let needed = needed(view, &course, &slice, moved.as_ref().or(changed)).await?;
            now.note_members(needed.values().copied());
            nums.extend(needed);
        }
        now.timeline = match sent {
            Some(sent) if !gap => sent.timeline.max(asked.limit),
            _ => asked.limit,
        };
        let mut room = self.empty(relevant, sent);
        let unread = self.work.delivery.unread(&work.reading(place, &self.personal)).await?;
        now.unread = unread.total;
        room.unread = Some(unread);
        room.bump = place.tail.bump(view).await?.unwrap_or(relevant.row.own.position).0;
        let silent = slice.events.is_empty() && nums.is_empty() && room.is_dm.is_none() && !grown;
        if let Some(sent) = sent.filter(|_| silent && !gap) {
            return Ok(((sent.unread != now.unread).then_some(room), now));
        }
        self.name(work, place, (&changed, grown), &mut room).await?;
        room.expanded = expanded;
        room.live = self.live(&slice);
        let mut part = work.part(place, Rendered { slice, nums }, Vec::new()).await?;
        part.timeline.limited &= asked.limit > 0;
        room.part = Some(part);
        Ok((Some(room), now))
    }

    /// The state that changed and what of it (or, at the beginning, of all) is asked for.
    async fn state(
        &self,
        view: &View<'_>,
        course: &Course<'_>,
        (slice, expanded): (&Slice, bool),
    ) -> Result<(Nums, Nums), Error> {
        let Some(seen) = course.known else {
            let all = wanted_state(view, course.asked, course.end).await?;
            return Ok((Nums::new(), all));
        };
        if course.grown {
            return Ok((Nums::new(), wanted_state(view, course.asked, course.end).await?));
        }
        let from = if expanded {
            let gap = Slice { limited: true, ..Slice::default() };
            state::state_seen(view, seen, &gap).await?
        } else {
            state::state_seen(view, seen, slice).await?
        };
        let stretch = Stretch { from: Some(from), end: course.end, lazy: false, slice };
        let changed = state::after(view, &stretch).await?.nums;
        let mut nums = changed.clone();
        nums.retain(|key, _| course.asked.wants(key.event_type(), &key.state_key));
        if let Some(sent) = course.sent {
            let more = course.asked.beyond(&sent.asked);
            if !more.is_nothing() {
                nums.extend(wanted_state(view, &more, course.end).await?);
            }
        }
        Ok((changed, nums))
    }

    /// Name, picture and members, as far as they may have changed.
    async fn name(
        &self,
        work: &Work<'_>,
        place: &Place<'_>,
        (changed, grown): (&Nums, bool),
        room: &mut SlidingRoom,
    ) -> Result<(), Error> {
        #[derive(Default, Deserialize)]
        struct Content {
            name: Option<String>,
            url: Option<String>,
        }
        let has = |kind: &str| room.initial || grown || changed.contains_key(&StateKey::new(kind, ""));
        let (name, avatar) = (has("m.room.name"), has("m.room.avatar"));
        let members = room.initial || grown || changed.keys().any(|key| key.event_type() == MEMBER);
        if !name && !avatar && !members {
            return Ok(());
        }
        let view = &place.view;
        let keys = [StateKey::new("m.room.name", ""), StateKey::new("m.room.avatar", "")];
        let found = view.state_events_at(view.head.state, &keys).await?;
        let mut found = found
            .into_iter()
            .map(|event| event.and_then(|event| event.pdu.content_as::<Content>()).unwrap_or_default());
        let named = found.next().and_then(|content| content.name).filter(|name| !name.is_empty());
        let pictured = found.next().and_then(|content| content.url).filter(|url| !url.is_empty());
        if members || (name && named.is_none()) {
            room.members = Some((view.head.joined.into(), view.head.invited.into()));
            if named.is_none() {
                room.heroes = heroes(work, place).await?;
            }
        }
        room.name = name.then_some(named);
        room.avatar = avatar.then_some(pictured);
        Ok(())
    }

    /// How many of the newest events happened since the device asked last.
    fn live(&self, slice: &Slice) -> usize {
        let Some(seen) = self.known.token.map(|token| token.position) else { return 0 };
        let is_live = |seen_event: &&chappe_rooms::Seen| seen_event.event.meta.position > seen;
        slice.events.iter().rev().take_while(is_live).count()
    }

    /// A room the user is no longer in: up to the moment that ended, and nothing after it.
    async fn over(
        &self,
        work: &Work<'_>,
        place: &Place<'_>,
        relevant: &Relevant,
        before: Option<&Sent>,
    ) -> Result<Outcome, Error> {
        let (view, asked) = (&place.view, &*relevant.asked);
        let now = self.sent_now(relevant, before);
        if before.is_some_and(|sent| sent.ended && place.own.position <= sent.up_to) {
            return Ok((None, now));
        }
        let End { mut slice, state, known, since } =
            match work.end(place, &self.personal.settings.ignored).await {
                Ok(end) => end,
                // The room has been removed since the list was made.
                Err(Error::Rooms(chappe_rooms::Error::NotFound(_))) => return Ok((None, now)),
                Err(error) => return Err(error),
            };
        let mut nums = Nums::new();
        if let Some(end) = state {
            let sent = before.filter(|_| known.is_some());
            let course = Course { known, asked, sent, end, grown: false };
            nums = self.state(view, &course, (&slice, false)).await?.1;
        }
        nums.insert(StateKey::new(MEMBER, &self.request.user), place.own.value.num);
        slice.events.extend(since);
        let live = self.live(&slice);
        let mut part = work.part(place, Rendered { slice, nums }, Vec::new()).await?;
        part.timeline.limited &= asked.limit > 0;
        let initial = known.is_none();
        let room = SlidingRoom { part: Some(part), live, initial, ..self.empty(relevant, before) };
        Ok((Some(room), now))
    }
}

/// The members that are needed to show a timeline and that the device does not have; where there is no gap also those
/// that `changed`.
async fn needed(
    view: &View<'_>,
    course: &Course<'_>,
    slice: &Slice,
    changed: Option<&Nums>,
) -> Result<Nums, Error> {
    let mut users: BTreeSet<&str> =
        slice.events.iter().map(|seen| seen.event.pdu.sender().as_str()).collect();
    users.extend(slice.events.iter().filter_map(|seen| match seen.event.pdu.state() {
        Some((kind, key)) if kind.to_string() == MEMBER => Some(key),
        _ => None,
    }));
    let keys: Vec<StateKey> = users.into_iter().map(|user| StateKey::new(MEMBER, user)).collect();
    let mut nums = events_of(view, course.end, keys).await?;
    let members = changed.into_iter().flatten().filter(|(key, _)| key.event_type() == MEMBER);
    nums.extend(members.map(|(key, num)| (key.clone(), *num)));
    let is_known = |num: EventNum| course.sent.is_some_and(|sent| sent.knows_member(num));
    // What changed may be what was sent long ago: it was taken back in between, and is there again.
    let has_changed = |key: &StateKey| changed.is_some_and(|changed| changed.contains_key(key));
    nums.retain(|key, num| {
        (has_changed(key) || !is_known(*num)) && !course.asked.wants(MEMBER, &key.state_key)
    });
    Ok(nums)
}

/// What is asked for of a whole state: only that is looked for.
async fn wanted_state(view: &View<'_>, asked: &Combined, at: StateRef) -> Result<Nums, Error> {
    let places = asked.places();
    let mut nums = if places.everywhere { state::whole(view, at, true).await? } else { Nums::new() };
    let members = places.members.then(|| MEMBER.to_owned());
    let types = places.types.into_iter().filter(|_| !places.everywhere).chain(members);
    for kind in types {
        nums.extend(if at == view.head.state {
            view.reader.current_of_type(view.nid, &kind).await?
        } else {
            view.reader.state_of_type(view.nid, at, &kind).await?
        });
    }
    let keys: Vec<StateKey> = (places.keys.iter())
        .filter(|(kind, _)| !places.everywhere || kind == MEMBER)
        .map(|(kind, key)| StateKey::new(&**kind, key))
        .collect();
    nums.extend(events_of(view, at, keys).await?);
    nums.retain(|key, _| asked.wants(key.event_type(), &key.state_key));
    Ok(nums)
}

/// The events of some keys of a state.
async fn events_of(view: &View<'_>, at: StateRef, keys: Vec<StateKey>) -> Result<Nums, Error> {
    if keys.is_empty() {
        return Ok(Nums::new());
    }
    let found = if at == view.head.state {
        view.reader.state_now(view.nid, &keys).await?
    } else {
        view.reader.state_at(view.nid, at, &keys).await?
    };
    Ok(keys.into_iter().zip(found).filter_map(|(key, num)| Some((key, num?))).collect())
}

async fn heroes(work: &Work<'_>, place: &Place<'_>) -> Result<Vec<Hero>, Error> {
    let users = work.heroes(place).await?;
    let view = &place.view;
    let keys: Vec<StateKey> = users.iter().map(|user| StateKey::new(MEMBER, user)).collect();
    let found = view.state_events_at(view.head.state, &keys).await?;
    let profile = |event: Option<chappe_rooms::Event>| {
        event
            .filter(|event| membership(Some(&event.pdu)) != MembershipState::Ban)?
            .pdu
            .content_as::<Profile>()
    };
    let heroes = users.into_iter().zip(found);
    Ok(heroes.map(|(user, event)| Hero { user, profile: profile(event).unwrap_or_default() }).collect())
}
