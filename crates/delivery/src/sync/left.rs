//! Rooms the user is no longer in: up to the moment they left, and nothing after it.

use std::collections::BTreeSet;

use chappe_rooms::{Event, Seen, View};
use chappe_rules::visibility::membership;
use chappe_store::{Position, StateRef, state::StateKey};
use ruma::{
    OwnedUserId,
    events::{StateEventType, room::member::MembershipState},
};

use super::{
    LeftRoom,
    delta::{Personal, Work},
    joined::{Place, Told},
    state::{self, Nums, Stretch},
    timeline::{self, Slice, Span},
};
use crate::Error;

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
            let stretch = Stretch { from, end, lazy: false, slice: &slice };
            nums = self.state(place, &stretch, known).await?.0;
        }
        if let Some(since) = since {
            nums.insert(StateKey::new("m.room.member", &self.request.user), since.event.num);
            slice.events.push(since);
        }
        let told = Told { slice, nums };
        Ok(Some(LeftRoom { part: self.part(place, told, account_data).await? }))
    }

    /// What the device does not have of the end of a room.
    pub(super) async fn end(&self, place: &Place<'_>, ignored: &BTreeSet<OwnedUserId>) -> Result<End, Error> {
        let (view, user) = (&place.view, &self.request.user);
        let last = view.load_one(place.own.value.num).await?;
        let known = self.known(place).await?;
        let is_news = |ended: &Event| {
            known.is_some() || self.seen.is_none_or(|seen| ended.meta.position > seen.position)
        };
        let ended = self.ended(view, &last).await?.filter(is_news);
        let ended = ended.and_then(|ended| ended.meta.ordinal.map(|ordinal| (ordinal, ended)));
        let is_told = ended.as_ref().is_some_and(|(_, ended)| ended.num == last.num)
            || known.is_some_and(|seen| last.meta.position <= seen);
        let start = last.meta.ordinal.unwrap_or(view.head.next_live);
        let (mut slice, mut state) = (Slice { start, ..Slice::default() }, None);
        if let Some((ordinal, ended)) = ended {
            let span = Span { after: known, before: ordinal + 1, joined: false };
            slice = timeline::slice((view, &place.tail), &span, &self.wanted(ignored)).await?;
            state = (place.own.position > known.unwrap_or_default()).then_some(ended.meta.after);
        }
        let since = if is_told { None } else { view.visible(user, vec![last]).await?.pop() };
        Ok(End { slice, state, known, since })
    }

    /// The event that ended the user's last stay in a room; none if they never were in it.
    async fn ended(&self, view: &View<'_>, last: &Event) -> Result<Option<Event>, Error> {
        let mut ended = last.clone();
        for _ in 0..MEMBERSHIPS {
            let user = self.request.user.as_str();
            let before = view.state_event_at(ended.meta.before, StateEventType::RoomMember, user).await?;
            match before {
                Some(before) if membership(Some(&before.pdu)) == MembershipState::Join => {
                    return Ok(Some(ended));
                }
                Some(before) => ended = before,
                None => break,
            }
        }
        Ok(None)
    }
}
