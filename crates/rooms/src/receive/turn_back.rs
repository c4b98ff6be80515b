//! Users of this server who should not have entered a room, as its members tell now that they are here.

use std::collections::{BTreeMap, BTreeSet};

use chappe_rules::{
    Pdu,
    policy::{Bypass, Door},
};
use chappe_store::{EventNum, Membership, StateChange};
use ruma::{OwnedUserId, UserId};
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
    /// is in the room whose server does not take part in the network: [`Error::Unreachable`] if that cannot be told now. The
    /// leaves rest on the joins and go to all servers that are in the room as its members tell.
    pub(super) async fn turn_back(
        &mut self,
        changes: &[StateChange],
        refused: &BTreeMap<EventNum, OwnedUserId>,
    ) -> Result<()> {
        let mut users = BTreeSet::new();
        for membership in [Membership::Join, Membership::Invite, Membership::Knock] {
            let members = self.reader.members(self.nid, membership).await?;
            users.extend(members.into_iter().map(|(user, _)| user));
        }
        let members = changes.iter().filter(|change| change.key.event_type() == "m.room.member");
        users.extend(members.filter_map(|change| UserId::parse(&change.key.state_key).ok()));
        let (mut own, mut outside) = (Vec::new(), Vec::new());
        for user in users {
            if user.server_name() == self.inner.server {
                own.push(user);
            } else if self.inner.is_outside(user.server_name())? {
                outside.push(user);
            }
        }
        if let Some(user) = self.first_in(&outside).await? {
            tracing::warn!(room = %self.room_id, %user, "left: somebody outside the network is in the room");
        } else {
            own.retain(|user| refused.values().any(|refused| refused == user));
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

    /// The first of these who is in the room, or on the way there.
    async fn first_in<'a>(&self, users: &'a [OwnedUserId]) -> Result<Option<&'a UserId>> {
        for user in users {
            let now = self.current("m.room.member".into(), user.as_str()).await?;
            let now = now.as_ref().map(membership_of);
            if matches!(now, Some(Membership::Join | Membership::Invite | Membership::Knock)) {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }
}
