//! Rooms the user is no longer in: up to the moment they left, and nothing after it.

use ruma::events::room::member::MembershipState;

use super::{
    LeftRoom,
    delta::{Personal, Work},
    joined::{Place, Told, membership_at},
    state::{self, Nums, Stretch},
    timeline::{self, Slice, Span},
};
use crate::Error;

impl Work<'_> {
    /// The end of a room that was left, refused, kicked out of or banned from.
    pub(super) async fn left(
        &self,
        place: &Place<'_>,
        personal: &Personal,
    ) -> Result<Option<LeftRoom>, Error> {
        let view = &place.view;
        let leave = view.load_one(place.own.value.num).await?;
        let was = membership_at(view, leave.meta.before, &self.request.user).await?;
        let account_data = personal.of_rooms.get(&view.room_id).cloned().unwrap_or_default();
        let (Some(ordinal), true) = (leave.meta.ordinal, was == MembershipState::Join) else {
            // Never in the room: the refusal is all there is to see.
            let start = leave.meta.ordinal.unwrap_or(view.head.next_live);
            let events = view.visible(&self.request.user, vec![leave]).await?;
            let slice = Slice { events, limited: false, start, first: None };
            let told = Told { slice, nums: Nums::new() };
            return Ok(Some(LeftRoom { part: self.part(place, told, account_data).await? }));
        };
        let known = self.known(place).await?;
        let span = Span { after: known, before: ordinal + 1, joined: false };
        let wanted = self.wanted(&personal.settings.ignored);
        let slice = timeline::slice((view, &place.tail), &span, &wanted).await?;
        let from = match known {
            Some(seen) if !self.request.full_state => Some(state::state_seen(view, seen, &slice).await?),
            _ => None,
        };
        let stretch = Stretch { from, end: leave.meta.after, lazy: false, slice: &slice };
        let (nums, _) = self.state(place, &stretch, known).await?;
        let told = Told { slice, nums };
        Ok(Some(LeftRoom { part: self.part(place, told, account_data).await? }))
    }
}
