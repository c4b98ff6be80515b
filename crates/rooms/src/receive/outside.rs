//! Memberships of local users in rooms that this server is not in: an invite that is withdrawn, a knock that is refused.

use std::cmp::Reverse;

use chappe_rules::Pdu;
use chappe_store::{
    At, EventNum, Json, Membership, StateChange, Tx,
    members::UserRoom,
    out_of_band::{OutOfBand, OutOfBands},
    state::StateKey,
};
use ruma::{OwnedEventId, OwnedUserId, RoomId, RoomVersionId, UserId};
use serde::Deserialize;

use super::{Received, is_in, parse};
use crate::{
    Error, Inner, Result,
    desk::{Desk, membership_of, rules_of},
    turn::ATTEMPTS,
};

/// Ends of invites and knocks that are kept of one user, the newest: a device that was away for longer is not told of the
/// others.
const ENDED: usize = 1_000;

#[derive(Deserialize)]
struct Peek {
    #[serde(rename = "type")]
    kind: String,
    state_key: Option<String>,
}

impl Inner {
    /// Takes a leave or ban of a local user whose invite or knock is out-of-band, or whose invite is from when this server was in
    /// the room; `None` for every other event. While the room comes in with a join it is [`Error::Unreachable`].
    pub(super) async fn receive_outside(&self, received: &Received) -> Result<Option<OwnedEventId>> {
        let Some(user) = self.local_member(received) else { return Ok(None) };
        for _ in 0..ATTEMPTS {
            match self.try_outside(&user, received).await {
                // While keys were fetched the user was invited anew, or came in.
                Err(Error::Retry) => {}
                done => return done,
            }
        }
        Err(Error::Retry)
    }

    async fn try_outside(&self, user: &UserId, received: &Received) -> Result<Option<OwnedEventId>> {
        // Asked first: with its last commit a join is over.
        let is_coming_in = self.is_coming_in(&received.room).await?;
        if is_in(self, &received.room).await? {
            return Ok(None);
        }
        if is_coming_in {
            return Err(Error::Unreachable);
        }
        let Some(now) = self.store.read().out_of_band(user, &received.room).await? else {
            return Box::pin(self.try_left_behind(user, received)).await;
        };
        let rules = rules_of(&version_of(&now)?)?;
        let pdu = parse(rules, &received.room, &received.raw)?;
        let pdu = self.check_one(rules, pdu).await?.pdu().clone();
        if !is_about(&now.value.0, &pdu) {
            return Err(Error::Forbidden("this event does not end the invite or knock".to_owned()));
        }
        self.end_outside(user, &received.room, &now, &pdu).await?;
        Ok(Some(pdu.event_id().to_owned()))
    }

    /// The same where the room itself says that the user is invited, as it was when the last of this server left.
    async fn try_left_behind(&self, user: &UserId, received: &Received) -> Result<Option<OwnedEventId>> {
        if self.store.read().room_nid(&received.room).await?.is_none() {
            return Ok(None);
        }
        let desk = Desk::open(self, &received.room).await?;
        let own = desk.reader.user_room(user, desk.nid).await?;
        // Whether a room without its members knows of the invite is seen when they come.
        let is_invite = |own: &At<UserRoom>| own.value.membership == Membership::Invite && !desk.head.partial;
        let Some(own) = own.filter(is_invite) else { return Ok(None) };
        let without = || chappe_store::Error::Corrupt("event without JSON");
        let invite = desk.pdus(&[own.value.num]).await?.pop().ok_or_else(without)?;
        let rules = desk.rules;
        let now = OutOfBand {
            membership: Membership::Invite.as_str().to_owned(),
            event: invite.to_raw(),
            event_id: invite.event_id().to_string(),
            state: Vec::new(),
            version: Some(desk.head.version.to_string()),
            via: Vec::new(),
            number: Some(desk.nid.0),
        };
        drop(desk);
        let pdu = parse(rules, &received.room, &received.raw)?;
        if !is_about(&now, &pdu) {
            return Ok(None);
        }
        let pdu = self.check_one(rules, pdu).await?.pdu().clone();
        self.end_left_behind(user, &received.room, (own, now), &pdu).await?;
        Ok(Some(pdu.event_id().to_owned()))
    }

    /// Takes an invite out of the state of a room that this server is not in, and notes beside it how it ended: what the room is
    /// like nobody here knows any more. [`Error::Retry`] if something has changed since it was read.
    async fn end_left_behind(
        &self,
        user: &UserId,
        room: &RoomId,
        (read, invite): (At<UserRoom>, OutOfBand),
        leave: &Pdu,
    ) -> Result<()> {
        let _turn = self.turn(room).await;
        let mut desk = Desk::open(self, room).await?;
        if desk.is_here().await? || desk.reader.user_room(user, desk.nid).await? != Some(read) {
            return Err(Error::Retry);
        }
        let changes = [StateChange { key: StateKey::new("m.room.member", user), num: EventNum::NONE }];
        desk.change_current(&changes).await?;
        desk.announce_members(&changes, None);
        // None has come from outside since.
        desk.tx.expect_absent::<OutOfBands>(&(user.to_owned(), room.to_owned()));
        desk.tx.put_out_of_band(user, room, &ended(invite, leave));
        self.store.commit(desk.seal()).await?;
        Ok(())
    }

    /// Puts a leave in place of an invite or knock. [`Error::Retry`] if that is no longer as it was read.
    pub(crate) async fn end_outside(
        &self,
        user: &UserId,
        room: &RoomId,
        read: &At<Json<OutOfBand>>,
        leave: &Pdu,
    ) -> Result<()> {
        let mut tx = Tx::new();
        let ended = ended(read.value.0.clone(), leave);
        tx.expect_out_of_band(user, room, read).put_out_of_band(user, room, &ended);
        self.drop_oldest_ends(&mut tx, user, room).await?;
        self.store.commit(tx).await?;
        Ok(())
    }

    /// Makes place for one more end. What ended in a room here stays: other servers do not bring about as much of that as
    /// they like.
    async fn drop_oldest_ends(&self, tx: &mut Tx, user: &UserId, newest: &RoomId) -> Result<()> {
        let mut ends = self.store.read().out_of_band_list(user).await?;
        ends.retain(|(room, at)| room != newest && at.value.is_over() && at.value.number.is_none());
        ends.sort_by_key(|(_, at)| Reverse(at.position));
        // From before there was a limit there may be many.
        for (room, at) in ends.iter().skip(ENDED - 1).take(ENDED) {
            tx.delete_listed(user, room, at);
        }
        Ok(())
    }

    fn local_member(&self, received: &Received) -> Option<OwnedUserId> {
        let peek: Peek = serde_json::from_str(received.raw.get()).ok()?;
        let user = UserId::parse(peek.state_key?).ok()?;
        (peek.kind == "m.room.member" && user.server_name() == self.server).then_some(user)
    }
}

/// What is left of an invite or knock that a leave has ended.
fn ended(what: OutOfBand, leave: &Pdu) -> OutOfBand {
    OutOfBand {
        membership: "leave".to_owned(),
        event: leave.to_raw(),
        event_id: leave.event_id().to_string(),
        state: Vec::new(),
        ..what
    }
}

fn version_of(now: &At<Json<OutOfBand>>) -> Result<RoomVersionId> {
    let version = now.value.0.version.as_deref().unwrap_or("1");
    version.try_into().map_err(|_| Error::UnsupportedRoomVersion(version.to_owned()))
}

#[derive(Deserialize)]
struct Sent {
    sender: OwnedUserId,
}

/// Whether the event ends what is known, and not an earlier invite or knock. Its sender cannot be authorized without the
/// room, so an invite is taken back by the one who sent it, and a knock refused by somebody of a server that it went to.
fn is_about(now: &OutOfBand, pdu: &Pdu) -> bool {
    let ends = matches!(membership_of(pdu), Membership::Leave | Membership::Ban);
    // Whoever changes a membership has to name the one it replaces.
    if !ends || !pdu.auth_events().iter().any(|event| *event == now.event_id) {
        return false;
    }
    match now.kind() {
        Some(Membership::Invite) => {
            serde_json::from_str::<Sent>(now.event.get()).is_ok_and(|invite| invite.sender == *pdu.sender())
        }
        Some(Membership::Knock) => now.via.iter().any(|server| server == pdu.sender().server_name()),
        _ => false,
    }
}
