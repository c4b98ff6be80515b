//! Inviting an address: its user if it has one, else whoever will have it.

use std::sync::Arc;

use chappe_identity::{Email, Error as IdentityError, IdentityServer, Invitation, StoredInvite};
use chappe_rules::{
    access::{Refusal, Rule},
    policy::Door,
};
use ruma::{RoomId, UserId, events::StateEventType};
use serde_json::{Map, Value, json};

use super::Change;
use crate::{Actor, Draft, Error, Result, Rooms, access::refused, author::By, desk::Desk, send::bypass_of};

/// An invitation of an address.
#[derive(Clone)]
pub struct AddressInvite {
    /// Whom.
    pub address: Email,
    /// The identity server that the inviting user trusts with it.
    pub server: Arc<dyn IdentityServer>,
}

impl Rooms {
    /// Invites an address (client-server API, "Third-party invites"). A user who has it is invited as any other; else the
    /// identity server mails the address, and the room is told of the invitation. Nobody is asked and nothing is mailed
    /// before it is clear that the actor may do this.
    pub async fn invite_address(&self, actor: &Actor, room: &RoomId, invite: &AddressInvite) -> Result<()> {
        let may = self.check_may_invite_addresses(actor, room).await;
        self.veiled(actor, room, may).await?;
        let rule = Desk::open(&self.0, room).await?.room_rules().await?.rule;
        self.check_home(actor, rule, invite).await?;
        let bound = match invite.server.lookup(&invite.address).await? {
            Some(user) => Some(user),
            None => match invite.server.store_invite(self.told(actor, room, invite).await?).await {
                Ok(stored) => {
                    let draft = announcement(&stored);
                    return self.send(actor, room, draft, None).await.map(drop);
                }
                // Somebody bound it meanwhile.
                Err(IdentityError::Bound { user }) => Some(user),
                Err(error) => return Err(error.into()),
            },
        };
        let user = bound.ok_or(Error::NotFound("user"))?;
        self.change(actor, room, &user, Change::Invite, None).await
    }

    /// Refuses the address of an external where the room is closed to externals. Whose home cannot be had is taken for one.
    pub(crate) async fn check_home(&self, actor: &Actor, rule: Rule, invite: &AddressInvite) -> Result<()> {
        let access = self.0.access_for(actor).filter(|access| !access.externals.is_empty());
        let Some(access) = access.filter(|_| rule == Rule::Restricted) else { return Ok(()) };
        match invite.server.homeserver_of(&invite.address).await {
            Ok(Some(home)) if !access.is_external(&home) => Ok(()),
            Ok(_) => Err(refused(Refusal::Closed)),
            Err(error) => {
                tracing::info!(%error, "the home of an invited address is not known");
                Err(refused(Refusal::Closed))
            }
        }
    }

    /// Makes the event as if there were an answer already, and throws it away.
    async fn check_may_invite_addresses(&self, actor: &Actor, room: &RoomId) -> Result<()> {
        let mut desk = Desk::open(&self.0, room).await?;
        if !desk.is_here().await? {
            return Err(Error::Forbidden("you are not in this room".to_owned()));
        }
        let by = By { sender: &actor.user, bypass: bypass_of(actor), door: Door::Local };
        let rehearsal = StoredInvite {
            token: "rehearsal".to_owned(),
            public_keys: Vec::new(),
            display_name: String::new(),
        };
        desk.author_unasked(by, announcement(&rehearsal)).await.map(drop)
    }

    /// What the mail may say of the room and of who invites.
    async fn told(&self, actor: &Actor, room: &RoomId, invite: &AddressInvite) -> Result<Invitation> {
        let desk = Desk::open(&self.0, room).await?;
        let mut told = Map::new();
        for (name, kind, field) in [
            ("room_name", StateEventType::RoomName, "name"),
            ("room_alias", StateEventType::RoomCanonicalAlias, "alias"),
            ("room_avatar_url", StateEventType::RoomAvatar, "url"),
            ("room_join_rules", StateEventType::RoomJoinRules, "join_rule"),
            ("room_type", StateEventType::RoomCreate, "type"),
        ] {
            let content = desk.current(kind, "").await?;
            let content = content.as_ref().and_then(chappe_rules::Pdu::content_as::<Map<String, Value>>);
            if let Some(text) =
                content.as_ref().and_then(|content| content.get(field)).and_then(Value::as_str)
            {
                told.insert(name.to_owned(), json!(text));
            }
        }
        drop(desk);
        self.tell_of_sender(&actor.user, &mut told).await?;
        Ok(Invitation {
            address: invite.address.clone(),
            room: room.to_owned(),
            sender: actor.user.clone(),
            told,
            language: None,
        })
    }

    async fn tell_of_sender(&self, sender: &UserId, told: &mut Map<String, Value>) -> Result<()> {
        let content = self.0.member_content(sender, "join", None).await?;
        for (name, field) in [("sender_display_name", "displayname"), ("sender_avatar_url", "avatar_url")] {
            if let Some(value) = content.get(field) {
                told.insert(name.to_owned(), value.clone());
            }
        }
        Ok(())
    }
}

/// `m.room.third_party_invite`.
fn announcement(stored: &StoredInvite) -> Draft {
    let mut content = Map::from_iter([
        ("display_name".to_owned(), json!(stored.display_name)),
        ("public_keys".to_owned(), json!(stored.public_keys)),
    ]);
    let (key, url) = stored
        .public_keys
        .first()
        .map_or(("", ""), |key| (key.public_key.as_str(), key.key_validity_url.as_str()));
    content.insert("public_key".to_owned(), json!(key));
    content.insert("key_validity_url".to_owned(), json!(url));
    Draft::state(StateEventType::RoomThirdPartyInvite, stored.token.as_str(), content)
}

impl std::fmt::Debug for AddressInvite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddressInvite").field("address", &self.address).finish_non_exhaustive()
    }
}
