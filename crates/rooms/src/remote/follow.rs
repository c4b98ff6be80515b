//! A join through another server to a room that this server follows already: an event like any other.

use ruma::{RoomId, RoomVersionId, ServerName};

use chappe_rules::Pdu;

use super::handshake::{Accepted, check_version};
use crate::{
    Error, Inner, Result,
    desk::{Desk, Source, rules_of},
    receive::{Budget, Checked, Verdict},
};

impl Inner {
    /// Whether this server gets the events of a room, or knows what came before it left while it still fetched the
    /// memberships of the room: then the state is not to be replaced by what a peer says.
    pub(super) async fn is_followed_room(&self, room: &RoomId) -> Result<bool> {
        if self.store.read().room_nid(room).await?.is_none() {
            return Ok(false);
        }
        let desk = Desk::open(self, room).await?;
        Ok(desk.head.partial || desk.is_here().await?)
    }

    /// Takes the join of a local user that another server has accepted, made for a room of this version. False if the room is
    /// not followed any more.
    pub(super) async fn follow_join(
        &self,
        server: &ServerName,
        version: &RoomVersionId,
        join: Pdu,
        accepted: &Accepted,
    ) -> Result<bool> {
        let head = Desk::open(self, join.room_id()).await?.head;
        check_version(version, &head.version)?;
        let rules = rules_of(&head.version)?;
        let checked = Checked::from_handshake(server, self.check_one(rules, join).await?);
        let mut budget = Budget::with_gap(&self.config());
        budget.fill = false;
        // Otherwise: what lies between is not needed for the user to be in.
        if let Err(error @ (Error::Store(_) | Error::Retry)) = self.fill_gap(&checked, &mut budget).await {
            return Err(error);
        }
        let room = checked.room().to_owned();
        let complete = checked.complete_as(self, &mut budget, Source::Elsewhere).await?;
        let complete = self.with_opinion(complete).await;
        let _turn = self.turn(&room).await;
        if !self.is_followed_room(&room).await? {
            return Ok(false);
        }
        match self.settle_in_turn(&complete).await? {
            Verdict::Accepted => Ok(true),
            Verdict::Rejected(reason) => {
                // By everybody else, too: nobody believes that the user is in.
                *accepted.lock() = None;
                Err(Error::Forbidden(reason))
            }
            Verdict::SoftFailed(reason) | Verdict::Undecided(reason) => Err(Error::Forbidden(reason)),
        }
    }
}
