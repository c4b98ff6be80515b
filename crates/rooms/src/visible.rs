//! The one door for reading events: who sees what, judged by room and event together.

mod erased;
mod ignored;
mod servers;

use std::{
    collections::{BTreeMap, BTreeSet},
    slice::from_ref,
};

use chappe_rules::visibility::{AtEvent, membership, user_may_see, visibility};
use chappe_store::{
    At, EventNum, Membership, Position, StateRef, Status,
    members::{UserRoom, UserRooms},
    rooms::RoomHeads,
    state::StateKey,
};
use futures_util::future::try_join_all;
use ruma::{
    EventId, RoomId, ServerName, UserId,
    events::{
        StateEventType, TimelineEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
};

pub(crate) use self::{
    ignored::{Ignored, is_hidden},
    servers::Witness,
};
use crate::{
    Actor, Error, Result, Rooms, Standing,
    desk::parsed,
    read::view::{Event, View},
};

/// How far back a user's memberships are followed to find when the user was last joined.
const MEMBERSHIP_STEPS: usize = 50;

/// An event that a user may see.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The event.
    pub event: Event,
    /// The user's membership at the event, the event itself taken into account.
    pub membership: MembershipState,
}

/// What part of a room a user may ask about (not which events: that is judged for each).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Joined: the current state.
    Joined,
    /// Was joined and is not any more: the state when that ended.
    Left {
        /// The state after the event that ended it, or before one that has no place here.
        state: StateRef,
        /// The place of that event, or the last one before it.
        ordinal: i64,
    },
    /// Never joined, but the room is world-readable now: the current state.
    Peeking,
}

impl Access {
    /// The newest version of the state the user may see.
    pub fn state(self, current: StateRef) -> StateRef {
        match self {
            Self::Left { state, .. } => state,
            Self::Joined | Self::Peeking => current,
        }
    }

    /// The first place of the timeline beyond what the user may ask for.
    pub fn end(self) -> i64 {
        match self {
            Self::Left { ordinal, .. } => ordinal + 1,
            Self::Joined | Self::Peeking => i64::MAX,
        }
    }
}

/// Since when a user is in a room: good as long as they are, and the room is judged as before.
#[derive(Clone, Copy, Debug)]
pub struct Stay(Option<u32>);

/// What a user's memberships say about the whole room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The first main-line version from which on the user is joined without a break.
    joined_from: Option<u32>,
    /// Every event before this place was sent before the user's last stretch of being joined ended.
    joined_until: i64,
    /// The event that ended it.
    ended_by: Option<EventNum>,
    /// The state in which it ended, where that event has no place here.
    ended_in: Option<StateRef>,
    /// Whether the user sees every event, whatever the memberships say.
    oversees: bool,
}

const NO_PART: Part =
    Part { joined_from: None, joined_until: i64::MIN, ended_by: None, ended_in: None, oversees: false };

/// The part of an administrator who looks into the room.
const EVERYTHING: Part = Part { joined_from: Some(0), joined_until: i64::MAX, oversees: true, ..NO_PART };

impl Rooms {
    /// A view of a room for `actor`: an overseer sees everything in it. The actor's membership is read with the room's head.
    pub(crate) async fn view_as(&self, actor: &Actor, room: &RoomId) -> Result<View<'_>> {
        let user = &actor.user;
        if actor.standing == Standing::Overseer {
            let view = self.view(room).await?;
            *view.part.lock() = Some((user.clone(), EVERYTHING));
            view.ignores(user, Ignored::default());
            return Ok(view);
        }
        let reader = self.0.store.read();
        let nid = reader.room_nid(room).await?.ok_or(Error::NotFound("room"))?;
        let (heads, own) = reader.get_both::<RoomHeads, UserRooms>(&[nid], &[(user.clone(), nid)]).await?;
        let head = heads.into_iter().flatten().next();
        let head = head.ok_or(chappe_store::Error::Corrupt("room without a head"))?;
        let view = self.view_with(reader, (nid, room.to_owned()), head)?;
        let part = view.part_of(user, own.into_iter().flatten().next()).await?;
        *view.part.lock() = Some((user.clone(), part));
        Ok(view)
    }

    /// The event, if it is in this room and `user` may see it; otherwise [`Error::NotFound`], whatever the reason.
    pub async fn visible_to_user(&self, user: &UserId, room: &RoomId, event: &EventId) -> Result<Seen> {
        self.view(room).await.map_err(|_| Error::NotFound("event"))?.seen_by(user, event).await
    }

    /// The event, if it is in this room and `server` may see it; otherwise [`Error::NotFound`], whatever the reason.
    pub async fn visible_to_server(
        &self,
        server: &ServerName,
        room: &RoomId,
        event: &EventId,
    ) -> Result<Event> {
        let view = self.view(room).await.map_err(|_| Error::NotFound("event"))?;
        let num = view.reader.event_num(view.nid, event).await?.ok_or(Error::NotFound("event"))?;
        let mut event = view.load_one(num).await?;
        let sees = view.server_sees(server, from_ref(&event)).await?;
        if sees.first() != Some(&true) {
            return Err(Error::NotFound("event"));
        }
        if view.veiled_from(server, None, from_ref(&event)).await?.contains(&num) {
            event.erase(view.rules)?;
        }
        Ok(event)
    }
}

fn as_all_see(events: Vec<Event>) -> Vec<Seen> {
    events.into_iter().map(|event| Seen { event, membership: MembershipState::Join }).collect()
}

fn member_key(user: &UserId) -> StateKey {
    StateKey::new(StateEventType::RoomMember, user)
}

fn visibility_key() -> StateKey {
    StateKey::new(StateEventType::RoomHistoryVisibility, "")
}

impl View<'_> {
    /// One event by id, if `user` may see it.
    pub async fn seen_by(&self, user: &UserId, event: &EventId) -> Result<Seen> {
        let num = self.reader.event_num(self.nid, event).await?.ok_or(Error::NotFound("event"))?;
        let event = self.load_one(num).await?;
        self.visible(user, vec![event]).await?.pop().ok_or(Error::NotFound("event"))
    }

    /// Whether clients may be told of an event at all. They apply whatever redaction they get: one is told once it has taken
    /// effect here.
    ///
    /// Specification: room version 3, "Handling redactions".
    pub async fn tells(&self, event: &Event) -> Result<bool> {
        if !self.shows(event) {
            return Ok(false);
        }
        if *event.pdu.kind() != TimelineEventType::RoomRedaction {
            return Ok(true);
        }
        // What redaction leaves of a redaction says no more in all room versions what it redacts.
        let whole = parsed(self.rules, &event.stored)?;
        let Some(target) = whole.redacts() else { return Ok(false) };
        let Some(num) = self.reader.event_num(self.nid, target).await? else { return Ok(false) };
        if self.reader.event_meta(self.nid, num).await?.redacted_by.some().is_some() {
            return Ok(true);
        }
        match self.reader.pdu(self.nid, num).await {
            // It was purged: nothing is left to be redacted here.
            Err(chappe_store::Error::Gone) => Ok(true),
            found => found.map(|_| false).map_err(Error::from),
        }
    }

    /// Those of `events` that clients may be told of, as whoever sees everything sees them.
    pub(crate) async fn told_to_all(&self, events: Vec<Event>) -> Result<Vec<Seen>> {
        Ok(as_all_see(self.tellable(events).await?))
    }

    async fn tellable(&self, events: Vec<Event>) -> Result<Vec<Event>> {
        let mut told = Vec::with_capacity(events.len());
        for event in events {
            if self.tells(&event).await? {
                told.push(event);
            }
        }
        Ok(told)
    }

    /// Whether whoever is in the room may see an event, though they came in after it.
    pub async fn is_for_newcomers(&self, event: &Event) -> Result<bool> {
        let said = self.state_event_at(event.meta.before, StateEventType::RoomHistoryVisibility, "").await?;
        let visibility = visibility(said.as_ref().map(|event| &event.pdu));
        Ok(matches!(visibility, HistoryVisibility::Shared | HistoryVisibility::WorldReadable))
    }

    /// Since when a user is in the room; none if they are not.
    pub async fn stay(&self, user: &UserId) -> Result<Option<Stay>> {
        let part = self.part(user).await?;
        Ok((part.joined_until == i64::MAX).then_some(Stay(part.joined_from)))
    }

    /// Has it known, without reading it, since when the user is in the room who is asked about next.
    pub fn knows(&self, user: &UserId, Stay(joined_from): Stay) {
        let part = Part { joined_from, joined_until: i64::MAX, ..NO_PART };
        *self.part.lock() = Some((user.to_owned(), part));
    }

    /// Those of `events` that `user`, of this server, may see, in their order; what erased users said while the user was not
    /// in the room comes redacted.
    ///
    /// No reads beside the user's own membership where the user has been joined since before the events; two seeks for
    /// each different state otherwise, cached for ever.
    pub async fn visible(&self, user: &UserId, events: Vec<Event>) -> Result<Vec<Seen>> {
        self.visible_or_untold(user, self.tellable(events).await?).await
    }

    /// Whether a user who is in the room may see an event.
    pub async fn member_sees(&self, user: &UserId, event: &Event) -> Result<bool> {
        if event.meta.before == self.head.state {
            return self.tells(event).await;
        }
        Ok(!self.visible(user, vec![event.clone()]).await?.is_empty())
    }

    /// As [`View::visible`], whether clients are told of the events or not.
    pub(crate) async fn visible_or_untold(&self, user: &UserId, shown: Vec<Event>) -> Result<Vec<Seen>> {
        let part = self.part(user).await?;
        if part.oversees {
            return Ok(as_all_see(shown));
        }
        let is_steady = |event: &Event| {
            let before = event.meta.before;
            before.line == 0 && part.joined_from.is_some_and(|from| before.version >= from)
        };
        let mut states: Vec<StateRef> =
            shown.iter().filter(|event| !is_steady(event)).map(|event| event.meta.before).collect();
        states.sort_unstable();
        states.dedup();
        let judged = self.judge_states(user, &states).await?;
        let (mut seen, mut was_in) = (Vec::with_capacity(shown.len()), Vec::with_capacity(shown.len()));
        for event in shown {
            let mut at = judged.get(&event.meta.before).cloned().unwrap_or(AtEvent {
                visibility: HistoryVisibility::Shared,
                membership: MembershipState::Join,
                joined_since: true,
            });
            at.joined_since = event.meta.ordinal.is_some_and(|ordinal| ordinal < part.joined_until);
            if !user_may_see(user, &event.pdu, &at) {
                continue;
            }
            was_in.push(at.membership == MembershipState::Join);
            let own = event.pdu.state_key() == Some(user.as_str())
                && event.pdu.kind().to_string() == StateEventType::RoomMember.to_string();
            let membership = if own { membership(Some(&event.pdu)) } else { at.membership };
            seen.push(Seen { event, membership });
        }
        let outside = seen.iter_mut().zip(was_in).filter(|(_, was_in)| !was_in);
        self.veil(outside.map(|(seen, _)| &mut seen.event).collect()).await?;
        Ok(seen)
    }

    async fn judge_states(&self, user: &UserId, states: &[StateRef]) -> Result<BTreeMap<StateRef, AtEvent>> {
        let keys = [visibility_key(), member_key(user)];
        self.reader.prepare_state(self.nid, states, &keys).await?;
        let held = try_join_all(states.iter().map(|at| self.reader.state_at(self.nid, *at, &keys))).await?;
        let nums: BTreeSet<EventNum> = held.iter().flatten().copied().flatten().collect();
        let nums: Vec<EventNum> = nums.into_iter().collect();
        let events: BTreeMap<EventNum, Event> = nums.iter().copied().zip(self.load(&nums).await?).collect();
        let said = |num: &Option<EventNum>| num.and_then(|num| events.get(&num)).map(|event| &event.pdu);
        let judge = |(at, held): (&StateRef, &Vec<Option<EventNum>>)| {
            let (rule, member) = (held.first().and_then(said), held.get(1).and_then(said));
            let visibility = visibility(rule);
            (*at, AtEvent { visibility, membership: membership(member), joined_since: false })
        };
        Ok(states.iter().zip(&held).map(judge).collect())
    }

    /// What `user`, of this server, may ask about the room at all. [`Error::Forbidden`] if nothing.
    pub async fn access(&self, user: &UserId) -> Result<Access> {
        let part = self.part(user).await?;
        if part.joined_until == i64::MAX {
            return Ok(Access::Joined);
        }
        if let Some(ended_by) = part.ended_by {
            let meta = self.reader.event_meta(self.nid, ended_by).await?;
            return Ok(Access::Left { state: meta.after, ordinal: part.joined_until });
        }
        if let Some(state) = part.ended_in {
            return Ok(Access::Left { state, ordinal: part.joined_until.saturating_sub(1) });
        }
        let said = self.current(StateEventType::RoomHistoryVisibility, "").await?;
        if visibility(said.as_ref().map(|event| &event.pdu)) == HistoryVisibility::WorldReadable {
            return Ok(Access::Peeking);
        }
        Err(Error::Forbidden("you are not a member of this room".to_owned()))
    }

    async fn part(&self, user: &UserId) -> Result<Part> {
        if let Some((_, part)) = self.part.lock().as_ref().filter(|(whose, _)| whose == user) {
            return Ok(*part);
        }
        let part = self.part_of(user, self.reader.user_room(user, self.nid).await?).await?;
        *self.part.lock() = Some((user.to_owned(), part));
        Ok(part)
    }

    /// The part of a user with this membership.
    async fn part_of(&self, user: &UserId, own: Option<At<UserRoom>>) -> Result<Part> {
        let Some(at) = own else { return Ok(NO_PART) };
        if at.value.membership == Membership::Join {
            let meta = self.reader.event_meta(self.nid, at.value.num).await?;
            // Current since it was placed, not brought back by a later merge of the room's state.
            let is_steady = meta.status == Status::Accepted && meta.position == at.position;
            let joined_from = (is_steady && meta.after.line == 0).then_some(meta.after.version);
            return Ok(Part { joined_from, joined_until: i64::MAX, ..NO_PART });
        }
        if self.reader.forgotten(user, self.nid).await?.is_some() {
            return Ok(NO_PART);
        }
        self.last_part(user, at).await
    }

    /// Follows the memberships of a user who is not joined back to the last time the user was.
    async fn last_part(&self, user: &UserId, own: At<UserRoom>) -> Result<Part> {
        let mut member = own.value.num;
        for _ in 0..MEMBERSHIP_STEPS {
            let meta = self.reader.event_meta(self.nid, member).await?;
            let told = match meta.status {
                // When an earlier one was taken up nobody knows.
                Status::Outlier if member != own.value.num => break,
                Status::Outlier => match self.before_told(own).await? {
                    None => break,
                    told => told,
                },
                _ => None,
            };
            let at = told.map_or(meta.before, |(state, _)| state);
            let Some(before) = self.state_event_at(at, StateEventType::RoomMember, user.as_str()).await?
            else {
                break;
            };
            if membership(Some(&before.pdu)) == MembershipState::Join {
                if let Some((state, place)) = told {
                    return Ok(Part { joined_until: place, ended_in: Some(state), ..NO_PART });
                }
                let Some(ordinal) = meta.ordinal else { break };
                return Ok(Part { joined_until: ordinal, ended_by: Some(member), ..NO_PART });
            }
            member = before.num;
        }
        Ok(NO_PART)
    }

    /// Of a user's membership that has no place here, as only a state that was told says it: the state before the commit that
    /// took it up, and the first place after all that was here by then; none where that was not noted.
    pub async fn before_told(&self, own: At<UserRoom>) -> Result<Option<(StateRef, i64)>> {
        let last = Position(own.position.0.saturating_sub(1));
        let Some(state) = self.reader.state_as_of(self.nid, last).await? else { return Ok(None) };
        Ok(Some((state, self.reader.ordinal_after(self.nid, last).await?)))
    }
}

#[cfg(test)]
mod tests {
    use ruma::{OwnedEventId, RoomId};
    use serde_json::json;

    use crate::{
        Actor, Change, Error,
        testing::{Town, actor},
    };

    async fn sees(town: &Town, who: &Actor, room: &RoomId, event: &OwnedEventId) -> bool {
        match town.rooms.visible_to_user(&who.user, room, event).await {
            Ok(_) => true,
            Err(Error::NotFound("event")) => false,
            Err(other) => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn history_visibility_is_judged_at_the_event() {
        let town = Town::new();
        let (anna, bob, carl) = (actor("anna"), actor("bob"), actor("carl"));
        let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
        for (visibility, outsider, invited, joiner) in [
            ("joined", false, false, false),
            ("invited", false, true, false),
            ("shared", false, false, true),
            ("world_readable", true, true, true),
        ] {
            town.set(
                &anna,
                &room,
                "m.room.history_visibility",
                "",
                json!({ "history_visibility": visibility }),
            )
            .await;
            let before = town.say(&anna, &room, json!({ "body": "before" })).await;
            town.change(&anna, &room, &bob, Change::Invite).await;
            let during = town.say(&anna, &room, json!({ "body": "invited" })).await;
            assert_eq!(sees(&town, &carl, &room, &before).await, outsider, "{visibility}");
            assert_eq!(sees(&town, &bob, &room, &during).await, invited, "{visibility}");
            town.join(&bob, &room).await;
            let inside = town.say(&anna, &room, json!({ "body": "joined" })).await;
            assert_eq!(sees(&town, &bob, &room, &before).await, joiner, "{visibility}");
            assert!(sees(&town, &bob, &room, &inside).await);
            town.rooms.leave(&bob, &room, None).await.unwrap();
            let after = town.say(&anna, &room, json!({ "body": "gone" })).await;
            assert_eq!(sees(&town, &bob, &room, &after).await, outsider, "{visibility}");
            assert!(
                sees(&town, &bob, &room, &inside).await,
                "{visibility}: what was seen while joined stays seen"
            );
            assert_eq!(sees(&town, &bob, &room, &before).await, joiner, "{visibility}: after leaving");
            let member = bob.user.clone();
            town.rooms.forget(&member, &room).await.unwrap();
            assert_eq!(sees(&town, &bob, &room, &before).await, outsider, "{visibility}: after forgetting");
        }
    }

    #[tokio::test]
    async fn an_event_of_another_room_is_not_found() {
        let town = Town::new();
        let anna = actor("anna");
        let (one, two) = (town.room(&anna, json!({})).await, town.room(&anna, json!({})).await);
        let event = town.say(&anna, &two, json!({ "body": "x" })).await;
        assert!(sees(&town, &anna, &two, &event).await);
        assert!(!sees(&town, &anna, &one, &event).await);
        let here = "here.fr".try_into().unwrap();
        assert!(town.rooms.visible_to_server(here, &two, &event).await.is_ok());
        assert!(town.rooms.visible_to_server(here, &one, &event).await.is_err());
        let there = "there.fr".try_into().unwrap();
        assert!(town.rooms.visible_to_server(there, &two, &event).await.is_err());
    }

    #[tokio::test]
    async fn a_joined_user_costs_one_look_at_the_membership() {
        let town = Town::new();
        let anna = actor("anna");
        let room = town.room(&anna, json!({})).await;
        for number in 0..30 {
            town.say(&anna, &room, json!({ "body": number.to_string() })).await;
        }
        let view = town.rooms.view(&room).await.unwrap();
        let rows = view.reader.timeline_back(view.nid, i64::MAX, 20).await.unwrap();
        let nums: Vec<_> = rows.into_iter().map(|row| row.num).collect();
        let events = view.load(&nums).await.unwrap();
        town.trips.take();
        assert_eq!(view.visible(&anna.user, events).await.unwrap().len(), 20);
        let (gets, scans, _) = town.trips.take();
        assert!(gets <= 2 && scans == 0, "{gets} gets, {scans} scans");
    }
}
