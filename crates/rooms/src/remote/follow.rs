//! A join through another server to a room that this server follows already: an event like any other.

use ruma::{RoomId, ServerName, room_version_rules::RoomVersionRules};

use chappe_rules::Pdu;

use crate::{
    Error, Inner, Result,
    desk::{Desk, Source},
    receive::{Budget, Checked, STATES, Verdict},
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

    /// Takes the join of a local user that another server has accepted. False if the room is not followed any more.
    pub(super) async fn follow_join(
        &self,
        server: &ServerName,
        rules: &'static RoomVersionRules,
        join: Pdu,
    ) -> Result<bool> {
        let checked = Checked::from_handshake(server, self.check_one(rules, join).await?);
        let mut budget = Budget { events: self.config().missing_events_limit, states: STATES, fill: false };
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
            Verdict::SoftFailed(reason) | Verdict::Rejected(reason) | Verdict::Undecided(reason) => {
                Err(Error::Forbidden(reason))
            }
        }
    }
}
