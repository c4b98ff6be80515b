//! Memberships of local users in rooms that this server is not in: an invite that is withdrawn, a knock that is refused.

use chappe_rules::Pdu;
use chappe_store::{At, Json, Membership, Tx, out_of_band::OutOfBand};
use ruma::{OwnedEventId, OwnedUserId, RoomId, RoomVersionId, UserId};
use serde::Deserialize;

use super::{Received, is_in, parse};
use crate::{
    Error, Inner, Result,
    desk::{membership_of, rules_of},
    turn::ATTEMPTS,
};

#[derive(Deserialize)]
struct Peek {
    #[serde(rename = "type")]
    kind: String,
    state_key: Option<String>,
}

impl Inner {
    /// Takes a leave or ban of a local user whose invite or knock is out-of-band; `None` for every other event.
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
        if is_in(self, &received.room).await? {
            return Ok(None);
        }
        let Some(now) = self.store.read().out_of_band(user, &received.room).await? else { return Ok(None) };
        let rules = rules_of(&version_of(&now)?)?;
        let pdu = parse(rules, &received.room, &received.raw)?;
        let pdu = self.check_one(rules, pdu).await?.pdu().clone();
        if !is_about(&now.value.0, &pdu) {
            return Err(Error::Forbidden("this event does not end the invite or knock".to_owned()));
        }
        self.end_outside(user, &received.room, &now, &pdu).await?;
        Ok(Some(pdu.event_id().to_owned()))
    }

    /// Puts a leave in place of an invite or knock. [`Error::Retry`] if that is no longer as it was read.
    pub(crate) async fn end_outside(
        &self,
        user: &UserId,
        room: &RoomId,
        read: &At<Json<OutOfBand>>,
        leave: &Pdu,
    ) -> Result<()> {
        let ended = OutOfBand {
            membership: "leave".to_owned(),
            event: leave.to_raw(),
            event_id: leave.event_id().to_string(),
            ..read.value.0.clone()
        };
        let mut tx = Tx::new();
        tx.expect_out_of_band(user, room, read).put_out_of_band(user, room, &ended);
        self.store.commit(tx).await?;
        Ok(())
    }

    fn local_member(&self, received: &Received) -> Option<OwnedUserId> {
        let peek: Peek = serde_json::from_str(received.raw.get()).ok()?;
        let user = UserId::parse(peek.state_key?).ok()?;
        (peek.kind == "m.room.member" && user.server_name() == self.server).then_some(user)
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
