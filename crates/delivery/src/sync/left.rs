//! Rooms the user is no longer in: up to the moment they left, and nothing after it.

use ruma::events::room::member::MembershipState;

use super::{
    LeftRoom,
    delta::{Personal, Work},
    joined::{Place, Told},
    state::{self, Nums, Stretch},
    timeline::{self, Sight, Slice, Span},
};
use crate::{Error, events};

impl Work<'_> {
    /// The end of a room that was left, refused, kicked out of or banned from.
    pub(super) async fn left(&self, place: &Place<'_>, personal: &Personal) -> Result<Option<LeftRoom>, Error> {
        let room = place.room();
        let num = place.own.value.num;
        let leave = events::load(self.reader, &room, &[num]).await?.remove(0);
        let was = events::membership_at(self.reader, &room, leave.meta.before, &self.request.user).await?;
        let account_data = personal.of_rooms.get(place.id).cloned().unwrap_or_default();
        let (Some(ordinal), true) = (leave.meta.ordinal, was == MembershipState::Join) else {
            // Never in the room: the refusal is all there is to see.
            let start = leave.meta.ordinal.unwrap_or(place.head.next_live);
            let slice = Slice { events: vec![leave], limited: false, start, first: None };
            let told = Told { slice, nums: Nums::new(), members_changed: false };
            return Ok(Some(LeftRoom { part: self.part(place, told, account_data).await? }));
        };
        let known = self.known(place).await?;
        let span = Span { after: known, before: ordinal + 1, sight: Sight::Judged { joined_since: true } };
        let slice = timeline::slice(self.reader, &room, &span, &self.wanted(&personal.ignored)).await?;
        let from = match known {
            Some(seen) if !self.request.full_state => {
                Some(state::state_seen(self.reader, &room, place.head, seen, &slice).await?)
            }
            _ => None,
        };
        let stretch = Stretch { from, end: leave.meta.after, slice: &slice };
        let (nums, members_changed) = self.state(place, &stretch, known).await?;
        let told = Told { slice, nums, members_changed };
        Ok(Some(LeftRoom { part: self.part(place, told, account_data).await? }))
    }
}
