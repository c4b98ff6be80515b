//! Users of this server who are put out of a room: who is out is told no more of it, so the events before that may not be had.

use chappe_rules::Pdu;
use chappe_store::Membership;
use ruma::{OwnedUserId, RoomId, ServerName, UserId};

use super::{Budget, Checked, Verdict, is_in, parse};
use crate::{
    Error, Inner, Result, Rooms,
    desk::{Desk, membership_of},
};

/// Events that an invite rests on which are asked for, at most: it rests on no more.
const MOST: usize = 10;

impl Rooms {
    /// Whether an invite of a user of this server rests on what was never heard of here, though this server seems to be in the
    /// room. If the user seems to be in it as well, what put them out is had from the inviting server.
    pub(crate) async fn misses_before(
        &self,
        origin: &ServerName,
        (room, invite): (&RoomId, &Pdu),
        invited: &UserId,
    ) -> Result<bool> {
        if !is_in(&self.0, room).await? || self.0.unsettled(room, invite.prev_events()).await?.is_empty() {
            return Ok(false);
        }
        if !self.0.seems_joined(room, invited).await? {
            return Ok(true);
        }
        let rules = Desk::open(&self.0, room).await?.rules;
        let unknown = self.0.unsettled(room, invite.auth_events()).await?;
        for event in unknown.iter().take(MOST) {
            let Ok(raw) = self.0.peers.event(origin, event).await else { continue };
            let pdu = parse(rules, room, &raw).ok();
            if pdu.is_some_and(|pdu| self.0.put_out(&pdu).is_some_and(|user| user == *invited)) {
                self.receive(origin, vec![raw]).await;
            }
        }
        Ok(true)
    }
}

impl Inner {
    /// The user of this server whom an event puts out of its room.
    fn put_out(&self, pdu: &Pdu) -> Option<OwnedUserId> {
        let user = UserId::parse(pdu.state_key()?).ok()?;
        let is_out = matches!(membership_of(pdu), Membership::Leave | Membership::Ban);
        let ours = pdu.kind().to_string() == "m.room.member" && user.server_name() == self.server;
        (ours && is_out).then_some(user)
    }

    /// Whether a user is in the room as far as is known here.
    pub(crate) async fn seems_joined(&self, room: &RoomId, user: &UserId) -> Result<bool> {
        let desk = Desk::open(self, room).await?;
        let membership = desk.reader.membership(desk.nid, user).await?;
        Ok(membership.is_some_and(|(membership, _)| membership == Membership::Join))
    }

    /// Whether an event puts somebody of this server out who seems to be in the room.
    pub(super) async fn puts_out_somebody(&self, checked: &Checked) -> Result<bool> {
        match self.put_out(checked.pdu()) {
            Some(user) => self.seems_joined(checked.room(), &user).await,
            None => Ok(false),
        }
    }

    /// Takes an event that puts a user of this server out and whose past is not given. It is judged by what the room is like
    /// here, so nothing can be claimed with it; if it does not fit, nothing is kept of it, as it may with more of the room.
    pub(super) async fn take_put_out(&self, checked: Checked, budget: &mut Budget) -> Result<()> {
        let event = checked.pdu().event_id().to_owned();
        let complete = checked.complete_by_now(self, budget).await?;
        let complete = self.with_opinion(complete).await;
        match self.settle(&complete).await? {
            Verdict::Undecided(reason) => Err(Error::HostilePeer(reason)),
            verdict => {
                tracing::info!(%event, ?verdict, "a user was put out, what was before is not told");
                Ok(())
            }
        }
    }
}
