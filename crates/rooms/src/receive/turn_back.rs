//! Users of this server who should not have entered a room, as its members tell now that they are here.

use std::collections::BTreeSet;

use chappe_rules::{
    Pdu,
    policy::{Bypass, Door},
};
use chappe_store::{Membership, StateChange};
use ruma::{OwnedServerName, OwnedUserId, UserId};
use serde_json::{Map, json};

use crate::{
    Draft, Error, Inner, Result,
    author::By,
    desk::{Desk, membership_of},
};

impl Inner {
    /// The user of this server whom an event makes a member.
    pub(super) fn own_user_let_in(&self, pdu: &Pdu) -> Option<OwnedUserId> {
        let user = UserId::parse(pdu.state_key()?).ok()?;
        let joins = pdu.kind().to_string() == "m.room.member" && membership_of(pdu) == Membership::Join;
        (joins && user.server_name() == self.server).then_some(user)
    }
}

impl Desk<'_> {
    /// The last commit with which a room becomes whole, by `changes`, takes those out who are `refused`, or all if somebody
    /// is in the room whose server does not take part in the network.
    pub(super) async fn turn_back(
        &mut self,
        changes: &[StateChange],
        refused: &BTreeSet<OwnedUserId>,
    ) -> Result<()> {
        let mut own = Vec::new();
        for (user, _) in self.reader.members(self.nid, Membership::Join).await? {
            if user.server_name() == self.inner.server {
                own.push(user);
            }
        }
        if let Some(server) = self.outside(changes).await? {
            tracing::warn!(room = %self.room_id, %server, "left, since it has members outside the network");
        } else {
            own.retain(|user| refused.contains(user));
        }
        for user in own {
            let by = By { sender: &user, bypass: Bypass::ServerAdmin, door: Door::Local };
            let content = Map::from_iter([("membership".to_owned(), json!("leave"))]);
            match self.author_unasked(by, Draft::member(&user, content)).await {
                // Who is out already has no need to leave.
                Ok(_) | Err(Error::Forbidden(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A server outside the network with a member in the room.
    async fn outside(&self, changes: &[StateChange]) -> Result<Option<OwnedServerName>> {
        let mut users = Vec::new();
        for membership in [Membership::Join, Membership::Invite, Membership::Knock] {
            let members = self.reader.members(self.nid, membership).await?;
            users.extend(members.into_iter().map(|(user, _)| user));
        }
        let members = changes.iter().filter(|change| change.key.event_type() == "m.room.member");
        users.extend(members.filter_map(|change| UserId::parse(&change.key.state_key).ok()));
        users.retain(|user| !self.inner.takes_part(user.server_name()));
        for user in users {
            let now = self.current("m.room.member".into(), user.as_str()).await?;
            let is_in = matches!(
                now.as_ref().map(membership_of),
                Some(Membership::Join | Membership::Invite | Membership::Knock)
            );
            if is_in {
                return Ok(Some(user.server_name().to_owned()));
            }
        }
        Ok(None)
    }
}
