//! A join or leave through another server in a room that this server follows already: an event like any other.

use ruma::{RoomId, RoomVersionId, ServerName};

use chappe_rules::Pdu;

use super::{
    handshake::{Made, check_version},
    taking_back::Joining,
};
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
        joining: &Joining,
    ) -> Result<bool> {
        match self.follow(server, version, join).await? {
            None => Ok(false),
            Some(Verdict::Accepted) => Ok(true),
            Some(Verdict::Rejected(reason)) => {
                // By everybody else, too: nobody believes that the user is in.
                joining.refused_by(server);
                Err(Error::Forbidden(reason))
            }
            Some(Verdict::SoftFailed(reason) | Verdict::Undecided(reason)) => Err(Error::Forbidden(reason)),
        }
    }

    /// Takes the leave of a local user that another server has accepted, if this server follows the room: nobody sends it that,
    /// and the invite that was turned down would still be there.
    pub(super) async fn follow_leave(&self, server: &ServerName, made: Made) -> Result<()> {
        if !self.is_followed_room(made.pdu.room_id()).await? {
            return Ok(());
        }
        match self.follow(server, &made.version, made.pdu).await? {
            None | Some(Verdict::Accepted) => Ok(()),
            Some(Verdict::SoftFailed(reason) | Verdict::Rejected(reason) | Verdict::Undecided(reason)) => {
                Err(Error::Forbidden(reason))
            }
        }
    }

    async fn follow(
        &self,
        server: &ServerName,
        version: &RoomVersionId,
        member: Pdu,
    ) -> Result<Option<Verdict>> {
        let head = Desk::open(self, member.room_id()).await?.head;
        check_version(version, &head.version)?;
        let rules = rules_of(&head.version)?;
        let checked = Checked::from_handshake(server, self.check_one(rules, member).await?);
        // Of its own accord: the other server has accepted the event by now, and nothing comes again.
        let mut budget = Budget { fill: false, counted: None, ..Budget::with_gap(&self.config(), server) };
        // Otherwise: what lies between is not needed for the user to be in.
        if let Err(error @ (Error::Store(_) | Error::Retry)) = self.fill_gap(&checked, &mut budget).await {
            return Err(error);
        }
        let room = checked.room().to_owned();
        let complete = checked.complete_as(self, &mut budget, Source::Elsewhere).await?;
        let complete = self.with_opinion(complete).await;
        let _turn = self.turn(&room).await;
        if !self.is_followed_room(&room).await? {
            return Ok(None);
        }
        self.settle_in_turn(&complete).await.map(Some)
    }
}
