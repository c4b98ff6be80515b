//! `createRoom`: presets, initial state and invites in one commit.

mod access;
mod invites;
mod presets;

use chappe_rules::policy::Door;
use ruma::{
    OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, RoomVersionId, UserId,
    api::client::room::{Visibility, create_room::v3::Request},
    events::TimelineEventType,
};
use serde_json::{Map, Value, json};

pub(crate) use self::presets::{Furniture, power_levels as default_power_levels, succession};
use self::{access::Wanted, invites::Asked, presets::furnish};
use crate::{
    Actor, AddressInvite, Draft, Error, Inner, Result, Rooms,
    author::By,
    desk::{Desk, rules_of},
    membership::AUTHORISED_BY,
    send::bypass_of,
    turn::ATTEMPTS,
};

/// Where an upgraded room comes from.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// The old room.
    pub room_id: OwnedRoomId,
    /// Its last event, for versions whose create event names it.
    pub event_id: Option<OwnedEventId>,
}

/// A room to be made.
pub(crate) struct Plan {
    pub(crate) version: RoomVersionId,
    pub(crate) furniture: Furniture,
    pub(crate) alias: Option<OwnedRoomAliasId>,
    pub(crate) published: bool,
    /// Local users to invite in the same commit, with the content of their membership.
    pub(crate) invites: Vec<(OwnedUserId, Map<String, Value>)>,
    pub(crate) own_member: Map<String, Value>,
}

impl Rooms {
    /// Creates a room (client-server API, `POST /createRoom`). All its events are one commit; invites of users
    /// of other servers follow it. If all of those fail, and nobody else would be in the room, there is none.
    pub async fn create(&self, actor: &Actor, request: Request) -> Result<OwnedRoomId> {
        self.create_with(actor, request, &[]).await
    }

    async fn create_with(
        &self,
        actor: &Actor,
        request: Request,
        addresses: &[AddressInvite],
    ) -> Result<OwnedRoomId> {
        let version = request.room_version.clone().unwrap_or_else(|| self.config().default_version.clone());
        let rules = rules_of(&version)?;
        self.check_request(&request)?;
        let mut furniture = furnish(&actor.user, &request, &version, rules)?;
        if let Some(access) = self.0.access_for(actor) {
            let wanted = Wanted::read(&access, &actor.user, &request)?;
            wanted.check_invited(&request.invite, 0)?;
            wanted.furnish(&actor.user, rules, &mut furniture)?;
        }
        let alias = request.room_alias_name.as_deref().map(|name| self.alias_named(name)).transpose()?;
        if let Some(alias) = &alias {
            self.check_reserved(actor, alias)?;
        }
        let (local, users): (Vec<_>, Vec<_>) =
            request.invite.iter().cloned().partition(|user| user.server_name() == self.server());
        let mut invites = Vec::with_capacity(local.len());
        for user in local {
            self.check_welcome(&actor.user, &user).await?;
            let content = self.0.invite_content(&user, None, request.is_direct).await?;
            invites.push((user, content));
        }
        let own_member = self.0.member_content(&actor.user, "join", None).await?;
        let published = request.visibility == Visibility::Public;
        let is_direct = request.is_direct;
        let are_all = invites.is_empty() && !published && (is_direct || furniture.is_closed());
        let asked = Asked { users, addresses: addresses.to_vec(), is_direct, are_all };
        let plan = Plan { version, furniture, alias, published, invites, own_member };
        let (rooms, actor) = (self.clone(), actor.clone());
        // Goes on when the client hangs up: it does not know of the room yet, and there is more to do once that is there.
        let work = async move { rooms.create_as(&actor, &plan, asked).await };
        self.0.world.spawn("new room", work).await.unwrap_or(Err(Error::Retry))
    }

    async fn create_as(&self, actor: &Actor, plan: &Plan, asked: Asked) -> Result<OwnedRoomId> {
        let room = self.0.make_room(actor, plan).await?;
        self.invite_into_new(actor, &room, asked).await?;
        self.inherit_settings(&actor.user, &room).await;
        Ok(room)
    }

    fn check_request(&self, request: &Request) -> Result<()> {
        let config = self.config();
        if !request.invite_3pid.is_empty() {
            // Addresses are invited by [`Rooms::create_inviting`], once there is a room.
            return Err(Error::InvalidParam("addresses are not invited with the room".to_owned()));
        }
        if request.invite.len() > config.max_invites_at_creation {
            return Err(Error::InvalidParam("too many invites at once".to_owned()));
        }
        if request.initial_state.len() > config.max_initial_state {
            return Err(Error::InvalidParam("too many events in initial_state".to_owned()));
        }
        Ok(())
    }

    fn alias_named(&self, localpart: &str) -> Result<OwnedRoomAliasId> {
        let bad = || Error::InvalidParam("room_alias_name is not the local part of an alias".to_owned());
        if localpart.is_empty()
            || localpart.contains([':', '\0', '#'])
            || localpart.contains(char::is_whitespace)
        {
            return Err(bad());
        }
        let alias = format!("#{localpart}:{}", self.server());
        RoomAliasId::parse(alias).ok().filter(|alias| alias.as_str().len() <= 255).ok_or_else(bad)
    }
}

impl Inner {
    /// Commits a new room.
    pub(crate) async fn make_room(&self, actor: &Actor, plan: &Plan) -> Result<OwnedRoomId> {
        for _ in 0..ATTEMPTS {
            if let Some(alias) = &plan.alias
                && self.store.read().alias(alias).await?.is_some()
            {
                return Err(Error::AliasInUse);
            }
            let (room, tx) = self.draw_room(actor, plan).await?;
            match self.store.commit(tx).await {
                Ok(_) => return Ok(room),
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Retry)
    }

    async fn draw_room(&self, actor: &Actor, plan: &Plan) -> Result<(OwnedRoomId, chappe_store::Tx)> {
        let placeholder = format!("!{}:{}", self.world.token(18), self.server);
        let placeholder = RoomId::parse(placeholder)
            .map_err(|_| Error::InvalidParam("server name is too long".to_owned()))?;
        let mut desk = Desk::found(self, &placeholder, &plan.version).await?;
        let by = By { sender: &actor.user, bypass: bypass_of(actor), door: Door::Create };
        let mut drafts = vec![
            Draft::state(TimelineEventType::RoomCreate, "", plan.furniture.create.clone()),
            Draft::member(&actor.user, plan.own_member.clone()),
            Draft::state(TimelineEventType::RoomPowerLevels, "", plan.furniture.power_levels.clone()),
        ];
        if let Some(alias) = &plan.alias {
            drafts.push(canonical_alias(alias));
        }
        drafts.extend(plan.furniture.rest.iter().cloned());
        drafts.extend(plan.invites.iter().map(|(user, content)| Draft::member(user, content.clone())));
        for draft in drafts {
            desk.author(by, draft).await?;
        }
        if let Some(alias) = &plan.alias {
            desk.tx.put_alias(alias, desk.nid, &actor.user);
        }
        if plan.published {
            desk.tx.publish_room(desk.nid);
        }
        let room = desk.room_id.clone();
        Ok((room, desk.seal()))
    }

    /// The content of a membership of a local user, with the profile.
    pub(crate) async fn member_content(
        &self,
        user: &UserId,
        membership: &str,
        reason: Option<&str>,
    ) -> Result<Map<String, Value>> {
        let mut content = Map::from_iter([("membership".to_owned(), json!(membership))]);
        if let Some(reason) = reason {
            content.insert("reason".to_owned(), json!(reason));
        }
        if user.server_name() != self.server {
            return Ok(content);
        }
        // A user without an account (the server's own, say) has no profile.
        if let Ok(profile) = self.accounts.profile(&self.store.read(), user).await {
            for field in ["displayname", "avatar_url"] {
                if let Some(value) = profile.fields.get(field).filter(|value| value.is_string()) {
                    content.insert(field.to_owned(), value.clone());
                }
            }
        }
        Ok(content)
    }

    /// The content of a join: the profile, and what the client says of its own.
    pub(crate) async fn join_content(
        &self,
        user: &UserId,
        said: Map<String, Value>,
    ) -> Result<Map<String, Value>> {
        let not_the_clients = ["membership", "third_party_signed", AUTHORISED_BY];
        let mut content = self.member_content(user, "join", None).await?;
        content.extend(said.into_iter().filter(|(key, _)| !not_the_clients.contains(&key.as_str())));
        Ok(content)
    }

    /// The content of an invite of any user.
    pub(crate) async fn invite_content(
        &self,
        user: &UserId,
        reason: Option<&str>,
        direct: bool,
    ) -> Result<Map<String, Value>> {
        let mut content = self.member_content(user, "invite", reason).await?;
        if direct {
            content.insert("is_direct".to_owned(), json!(true));
        }
        Ok(content)
    }
}

fn canonical_alias(alias: &RoomAliasId) -> Draft {
    let content = Map::from_iter([("alias".to_owned(), json!(alias))]);
    Draft::state(TimelineEventType::RoomCanonicalAlias, "", content)
}
