//! Users of this server who are put out of a room: who is out is told no more of it, so the events before that may not be had.

use std::time::Duration;

use chappe_rules::Pdu;
use chappe_store::{EventMeta, EventNum, Membership, Status};
use ruma::{OwnedUserId, RoomId, ServerName, UserId};

use super::{Budget, Checked, Verdict, is_in, parse};
use crate::{
    Error, Inner, Result, Rooms,
    desk::{Desk, membership_of},
};

/// Unknown events that an invite rests on which are asked for, at most: one says that the invited user is out.
const MOST: usize = 3;
/// For how long they are asked for, and what is before them: whoever invites waits.
const LONGEST: Duration = Duration::from_secs(5);

impl Rooms {
    /// Whether an invite of a user of this server rests on what was never heard of here, though this server seems to be in the
    /// room. If the user seems to be in it as well, what put them out is had from the inviting server.
    pub(crate) async fn misses_before(
        &self,
        origin: &ServerName,
        (room, invite): (&RoomId, &Pdu),
        invited: &UserId,
    ) -> Result<bool> {
        if !is_in(&self.0, room).await?
            || !self.0.has_server(room, origin).await?
            || self.0.unsettled(room, invite.prev_events()).await?.is_empty()
        {
            return Ok(false);
        }
        if !self.0.seems_joined(room, invited).await? {
            return Ok(true);
        }
        let asked = self.ask_for_put_out(origin, (room, invite), invited);
        self.0.world.timeout(LONGEST, Box::pin(asked)).await.unwrap_or(Ok(()))?;
        Ok(true)
    }

    /// Takes the event that puts a user of this server out, if the invite rests on it.
    async fn ask_for_put_out(
        &self,
        origin: &ServerName,
        (room, invite): (&RoomId, &Pdu),
        user: &UserId,
    ) -> Result<()> {
        let desk = Desk::open(&self.0, room).await?;
        let (rules, known) = (desk.rules, desk.known(invite.auth_events()).await?);
        let is_outlier =
            |(num, meta): &(EventNum, EventMeta)| (meta.status == Status::Outlier).then_some(*num);
        let outliers: Vec<EventNum> =
            known.iter().filter_map(|(_, known)| known.as_ref().and_then(is_outlier)).collect();
        let mut pdus = desk.pdus(&outliers).await?;
        drop(desk);
        for (event, _) in known.iter().filter(|(_, known)| known.is_none()).take(MOST) {
            let raw = self.0.peers.event(origin, event).await.ok();
            pdus.extend(raw.and_then(|raw| parse(rules, room, &raw).ok()));
        }
        let puts_out = |pdu: &&Pdu| self.0.put_out(pdu).is_some_and(|out| out == *user);
        if let Some(pdu) = pdus.iter().find(puts_out) {
            self.receive(origin, vec![pdu.to_raw()]).await;
        }
        Ok(())
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

    /// Whether a server has somebody in the room as far as is known here.
    pub(crate) async fn has_server(&self, room: &RoomId, server: &ServerName) -> Result<bool> {
        let desk = Desk::open(self, room).await?;
        Ok(desk.reader.server_joined(desk.nid, server).await?)
    }

    /// Whether a user is in the room as far as is known here.
    pub(crate) async fn seems_joined(&self, room: &RoomId, user: &UserId) -> Result<bool> {
        let desk = Desk::open(self, room).await?;
        let membership = desk.reader.membership(desk.nid, user).await?;
        Ok(membership.is_some_and(|(membership, _)| membership == Membership::Join))
    }

    /// Whether an event puts somebody of this server out who seems to be in the room, and has not come in since.
    pub(super) async fn puts_out_somebody(&self, checked: &Checked) -> Result<bool> {
        let Some(user) = self.put_out(checked.pdu()) else { return Ok(false) };
        let desk = Desk::open(self, checked.room()).await?;
        let Some((Membership::Join, join)) = desk.reader.membership(desk.nid, &user).await? else {
            return Ok(false);
        };
        let stored = desk.own_num(checked.pdu()).await?;
        Ok(match stored {
            Some(num) => !desk.reader.auth_chain(desk.nid, &[join]).await?.contains(num.0),
            None => true,
        })
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
