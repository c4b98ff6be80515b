//! Rooms the user is no longer in: up to the moment they left, and nothing after it.

use std::collections::BTreeSet;

use chappe_rooms::{Event, Seen, View};
use chappe_rules::visibility::membership;
use chappe_store::{EventNum, Position, StateRef, Status, state::StateKey};
use ruma::{
    OwnedUserId,
    events::{StateEventType, room::member::MembershipState},
};

use super::{
    LeftRoom,
    delta::{Personal, Work},
    filter::Members,
    joined::{Place, Told},
    state::{self, Nums, Stretch},
    timeline::{self, Slice, Span},
};
use crate::Error;

const MEMBER: &str = "m.room.member";
/// How far back a user's memberships are followed to find what ended the last stay.
const MEMBERSHIPS: usize = 50;

/// What there is to tell of a room that the user is no longer in.
pub(super) struct End {
    /// The timeline up to the moment they left; nothing if they never were in the room or the device was told.
    pub(super) slice: Slice,
    /// The state at that moment.
    pub(super) state: Option<StateRef>,
    /// Up to where the device knows the room; none where it was not in it then.
    pub(super) known: Option<Position>,
    /// What became of their membership since: unbanned, invited anew and refused.
    pub(super) since: Option<Seen>,
}

/// Where a user's last stay in a room ended.
struct Ended {
    /// The event that ended it.
    by: EventNum,
    /// The commit with which it ended.
    position: Position,
    /// The first place beyond it.
    before: i64,
    /// The state that the user may see.
    state: StateRef,
    /// Whether the event is in no timeline: it is known only by a state that was told.
    is_told: bool,
}

impl Work<'_> {
    /// The end of a room that was left, refused, kicked out of or banned from.
    pub(super) async fn left(
        &self,
        place: &Place<'_>,
        personal: &Personal,
    ) -> Result<Option<LeftRoom>, Error> {
        let view = &place.view;
        let account_data = personal.of_rooms.get(&view.room_id).cloned().unwrap_or_default();
        let End { mut slice, state: end, known, since } = self.end(place, &personal.settings.ignored).await?;
        let mut nums = Nums::new();
        if let Some(end) = end {
            let from = match known {
                Some(seen) if !self.request.full_state => Some(state::state_seen(view, seen, &slice).await?),
                _ => None,
            };
            let lazy = Members::of(&self.request.filter.room) != Members::All;
            let stretch = Stretch { from, end, lazy, slice: &slice };
            nums = self.state(place, &stretch, known).await?.0;
            if lazy {
                let after = since.as_ref().map(|seen| seen.event.pdu.sender().to_owned());
                self.members_left(view, &stretch, after, &mut nums).await?;
            }
        }
        if let Some(since) = since {
            nums.insert(StateKey::new(MEMBER, &self.request.user), since.event.num);
            slice.events.push(since);
        }
        let told = Told { slice, nums };
        Ok(Some(LeftRoom { part: self.part(place, told, account_data).await? }))
    }

    /// Adds the members who say something in the timeline, and `after` it; of a whole state they and the user are all the members
    /// that are told.
    async fn members_left(
        &self,
        view: &View<'_>,
        stretch: &Stretch<'_>,
        after: Option<OwnedUserId>,
        nums: &mut Nums,
    ) -> Result<(), Error> {
        let mut needed: BTreeSet<OwnedUserId> =
            stretch.slice.events.iter().map(|seen| seen.event.pdu.sender().to_owned()).chain(after).collect();
        if stretch.from.is_none() {
            let own = StateKey::new(MEMBER, &self.request.user);
            nums.retain(|key, _| key.event_type() != MEMBER || *key == own);
            needed.insert(self.request.user.clone());
        }
        let before = !self.request.state_after && stretch.joins_on();
        let at = if before { stretch.start() } else { stretch.end };
        for (member, num) in state::members_at(view, at, needed, stretch.slice).await? {
            nums.entry(StateKey::new(MEMBER, member)).or_insert(num);
        }
        Ok(())
    }

    /// What the device does not have of the end of a room.
    pub(super) async fn end(&self, place: &Place<'_>, ignored: &BTreeSet<OwnedUserId>) -> Result<End, Error> {
        let (view, user) = (&place.view, &self.request.user);
        let last = view.load_one(place.own.value.num).await?;
        let known = self.known(place).await?;
        let is_news =
            |ended: &Ended| known.is_some() || self.seen.is_none_or(|seen| ended.position > seen.position);
        let ended = self.ended(place, &last).await?.filter(is_news);
        let is_new = place.own.position > known.unwrap_or_default();
        let is_known = ended.as_ref().is_some_and(|ended| ended.by == last.num)
            || known.is_some_and(|seen| last.meta.position <= seen);
        let is_told = is_new && ended.as_ref().is_some_and(|ended| ended.is_told);
        let start = last.meta.ordinal.unwrap_or(view.head.next_live);
        let (mut slice, mut state) = (Slice { start, ..Slice::default() }, None);
        if let Some(ended) = ended {
            let span = Span { after: known, before: ended.before };
            slice = timeline::slice((view, &place.tail), &span, &self.wanted(ignored)).await?;
            state = is_new.then_some(ended.state);
        }
        let since = if is_told {
            // Whoever is thrown out gets to know it, though it has no place.
            Some(Seen { membership: membership(Some(&last.pdu)), event: last })
        } else if is_known {
            None
        } else {
            view.visible(user, vec![last]).await?.pop()
        };
        Ok(End { slice, state, known, since })
    }

    /// Where the user's last stay in a room ended; none if they never were in it.
    async fn ended(&self, place: &Place<'_>, last: &Event) -> Result<Option<Ended>, Error> {
        let (view, user) = (&place.view, self.request.user.as_str());
        let noted = match last.meta.status {
            Status::Outlier => view.before_told(place.own).await?,
            _ => None,
        };
        let mut ended = last.clone();
        for _ in 0..MEMBERSHIPS {
            let noted = noted.filter(|_| ended.num == last.num);
            let at = noted.map_or(ended.meta.before, |(state, _)| state);
            match view.state_event_at(at, StateEventType::RoomMember, user).await? {
                Some(before) if membership(Some(&before.pdu)) == MembershipState::Join => {
                    let (by, meta, is_told) = (ended.num, &ended.meta, noted.is_some());
                    let (position, state, end) = match noted {
                        Some((state, end)) => (place.own.position, state, Some(end)),
                        None => (meta.position, meta.after, meta.ordinal.map(|ordinal| ordinal + 1)),
                    };
                    return Ok(end.map(|before| Ended { by, position, before, state, is_told }));
                }
                Some(before) => ended = before,
                None => break,
            }
        }
        Ok(None)
    }
}
