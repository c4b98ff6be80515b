//! The one door for reading events: who sees what, judged by room and event together.

mod erased;
mod servers;

use std::{
    collections::{BTreeMap, BTreeSet},
    slice::from_ref,
};

use chappe_rules::visibility::{AtEvent, membership, user_may_see, visibility};
use chappe_store::{EventNum, Membership, StateRef, Status, state::StateKey};
use futures_util::future::try_join_all;
use ruma::{
    EventId, RoomId, ServerName, UserId,
    events::{
        StateEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
};

pub(crate) use self::servers::Witness;
use crate::{
    Actor, Error, Result, Rooms, Standing,
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
        /// The state after the event that ended it.
        state: StateRef,
        /// The place of that event.
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

/// What a user's memberships say about the whole room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The first main-line version from which on the user is joined without a break.
    joined_from: Option<u32>,
    /// Every event before this place was sent before the user's last stretch of being joined ended.
    joined_until: i64,
    /// The event that ended it.
    ended_by: Option<EventNum>,
    /// Whether the user sees every event, whatever the memberships say.
    oversees: bool,
}

const NO_PART: Part = Part { joined_from: None, joined_until: i64::MIN, ended_by: None, oversees: false };

/// The part of an administrator who looks into the room.
const EVERYTHING: Part =
    Part { joined_from: Some(0), joined_until: i64::MAX, ended_by: None, oversees: true };

impl Rooms {
    /// A view of a room for `actor`: an overseer sees everything in it.
    pub(crate) async fn view_as(&self, actor: &Actor, room: &RoomId) -> Result<View<'_>> {
        let view = self.view(room).await?;
        if actor.standing == Standing::Overseer {
            *view.part.lock() = Some((actor.user.clone(), EVERYTHING));
        }
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

    /// Those of `events` that are shown, for a user **known to be joined since before all of them**: such a user sees
    /// everything, so nothing is read.
    pub fn seen_while_joined(&self, events: Vec<Event>) -> Vec<Seen> {
        let shown = events.into_iter().filter(|event| self.shows(event));
        shown.map(|event| Seen { event, membership: MembershipState::Join }).collect()
    }

    /// Those of `events` that `user`, of this server, may see, in their order; what erased users said while the user was not
    /// in the room comes redacted.
    ///
    /// No reads beside the user's own membership where the user has been joined since before the events; two seeks for
    /// each different state otherwise, cached for ever.
    pub async fn visible(&self, user: &UserId, events: Vec<Event>) -> Result<Vec<Seen>> {
        let part = self.part(user).await?;
        if part.oversees {
            return Ok(self.seen_while_joined(events));
        }
        let is_steady = |event: &Event| {
            let before = event.meta.before;
            before.line == 0 && part.joined_from.is_some_and(|from| before.version >= from)
        };
        let shown: Vec<Event> = events.into_iter().filter(|event| self.shows(event)).collect();
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
        let part = self.read_part(user).await?;
        *self.part.lock() = Some((user.to_owned(), part));
        Ok(part)
    }

    async fn read_part(&self, user: &UserId) -> Result<Part> {
        let Some(at) = self.reader.user_room(user, self.nid).await? else { return Ok(NO_PART) };
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
        self.last_part(user, at.value.num).await
    }

    /// Follows the memberships of a user who is not joined back to the last time the user was.
    async fn last_part(&self, user: &UserId, mut member: EventNum) -> Result<Part> {
        for _ in 0..MEMBERSHIP_STEPS {
            let meta = self.reader.event_meta(self.nid, member).await?;
            if meta.status == Status::Outlier {
                break;
            }
            let Some(before) =
                self.state_event_at(meta.before, StateEventType::RoomMember, user.as_str()).await?
            else {
                break;
            };
            if membership(Some(&before.pdu)) == MembershipState::Join {
                let Some(ordinal) = meta.ordinal else { break };
                return Ok(Part { joined_until: ordinal, ended_by: Some(member), ..NO_PART });
            }
            member = before.num;
        }
        Ok(NO_PART)
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
