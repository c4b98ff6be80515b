//! Sticky events on a sliding connection (MSC4480): oldest first and surely, as messages for the device are.

use std::collections::BTreeSet;

use chappe_rooms::StickyEvent;
use chappe_rules::visibility::membership;
use chappe_store::{Position, RoomNid};
use ruma::{
    OwnedEventId,
    events::{StateEventType, room::member::MembershipState},
};

use super::{
    Turn,
    ask::StickyAsk,
    connection::{RoomKey, Told},
    extensions::{Stage, StickyPage},
    room::SlidingRoom,
};
use crate::{Error, Received};

/// Sticky events in one answer if the device does not say how many, and at most.
const USUAL: usize = 100;
const MOST: usize = 500;
/// Changes of one's own profile followed back; whoever made more of them is told what they may know already.
const CHANGES: usize = 50;

/// Sticky events with their rooms.
type Stuck = Vec<(RoomNid, StickyEvent)>;

impl Turn<'_> {
    pub(super) async fn sticky(
        &mut self,
        ask: &StickyAsk,
        stage: &Stage<'_>,
        told: &mut Told,
    ) -> Result<StickyPage, Error> {
        let since = ask.since.unwrap_or_default();
        let limit = ask.limit.unwrap_or(USUAL).clamp(1, MOST);
        let (entered, mut waiting) = self.stuck(since.0, stage.interesting, limit).await?;
        waiting.sort_by_key(|(_, one)| one.position);
        let cut = waiting.get(limit).map(|_| waiting[limit - 1].1.position);
        // Events of one commit stay together.
        waiting.retain(|(_, one)| cut.is_none_or(|cut| one.position <= cut));
        self.lags |= cut.is_some();
        let found = !waiting.is_empty() || !entered.is_empty();
        let shown: BTreeSet<OwnedEventId> = if found {
            stage.rooms.values().flat_map(SlidingRoom::event_ids).collect()
        } else {
            BTreeSet::new()
        };
        let mut page = StickyPage::default();
        for (nid, one) in entered.into_iter().chain(waiting) {
            let pdu = &one.event.pdu;
            if shown.contains(pdu.event_id()) || self.personal.settings.ignored.contains(pdu.sender()) {
                continue;
            }
            let view = self.work.delivery.0.rooms.view_at(self.work.reader.clone(), nid).await?;
            page.rooms.entry(view.room_id.clone()).or_default().push(view.render_sticky(&one)?);
        }
        page.next_batch = found.then(|| Received(cut.unwrap_or(self.work.next.position)));
        told.sticky = page.next_batch.or(ask.since);
        Ok(page)
    }

    /// What sticks in the rooms since a position: all of it where the user has come in since, and what is new elsewhere,
    /// of each room the oldest: one more than is told at once, so that it shows whether there is more.
    async fn stuck(
        &self,
        since: Position,
        rooms: &BTreeSet<RoomKey>,
        limit: usize,
    ) -> Result<(Stuck, Stuck), Error> {
        let delivery = self.work.delivery;
        let joined = self.work.joined_rooms();
        let (mut entered, mut waiting) = (Vec::new(), Vec::new());
        for key in rooms {
            let RoomKey::Here(nid) = *key else { continue };
            if !joined.contains(&nid) || !delivery.0.wake.may_stick(nid, Position(0)) {
                continue;
            }
            let has_entered = since > Position(0) && self.has_entered(nid, since).await?;
            let after = if has_entered { Position(0) } else { since };
            if !delivery.0.wake.may_stick(nid, after) {
                continue;
            }
            let view = delivery.0.rooms.view_at(self.work.reader.clone(), nid).await?;
            let user = &self.request.user;
            let (list, found) = if has_entered {
                (&mut entered, view.newest_sticky_after(user, after).await?)
            } else {
                (&mut waiting, view.sticky_after(user, after, limit + 1).await?)
            };
            list.extend(found.into_iter().map(|one| (nid, one)));
        }
        Ok((entered, waiting))
    }

    /// Whether the user came into a room after a position.
    async fn has_entered(&self, nid: RoomNid, since: Position) -> Result<bool, Error> {
        if self.work.signal.joined_since(nid, since).is_some() {
            return Ok(false);
        }
        let own = self.work.reader.user_room(&self.request.user, nid).await?;
        let Some(own) = own.filter(|own| own.position > since) else { return Ok(false) };
        let view = self.work.delivery.0.rooms.view_at(self.work.reader.clone(), nid).await?;
        let mut num = own.value.num;
        for _ in 0..CHANGES {
            // Whoever was in the room before only changed what they are called.
            let meta = self.work.reader.event_meta(nid, num).await?;
            let own = StateEventType::RoomMember;
            let earlier = view.state_event_at(meta.before, own, self.request.user.as_str()).await?;
            match earlier.filter(|event| membership(Some(&event.pdu)) == MembershipState::Join) {
                None => return Ok(true),
                Some(earlier) if earlier.meta.position <= since => return Ok(false),
                Some(earlier) => num = earlier.num,
            }
        }
        Ok(true)
    }
}
