//! Room aliases: made, resolved, deleted; and whether a room is listed.

use std::collections::BTreeSet;

use chappe_rules::power::Power;
use chappe_store::{Tx, aliases::Alias};
use futures_util::future::join_all;
use ruma::{
    OwnedRoomAliasId, OwnedServerName, RoomAliasId, RoomId, ServerName, UserId,
    events::{StateEventType, TimelineEventType, room::power_levels::UserPowerLevel},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    Actor, AliasTarget, Draft, Error, Result, Rooms, Standing,
    read::{state::no_such_room, view::View},
    send::not_in_room,
    visible::Access,
};

/// The longest alias, in bytes.
const LONGEST: usize = 255;
/// Servers named with an alias at most.
const SERVERS: usize = 50;
/// Aliases that one `m.room.canonical_alias` event may add.
const NEW_ALIASES: usize = 20;

/// Whether a room is in the public directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Listed.
    Public,
    /// Not listed.
    Private,
}

impl Rooms {
    /// Makes an alias of this server for a room the user is in, or for any room if it belongs to the application service
    /// that asks. [`Error::AliasInUse`] if there is one, [`Error::Reserved`].
    pub async fn create_alias(&self, actor: &Actor, alias: &RoomAliasId, room: &RoomId) -> Result<()> {
        self.check_own(alias)?;
        self.check_reserved(actor, alias)?;
        let is_free = actor.standing == Standing::Administrator || actor.appservice.is_some();
        let unknown = || if is_free { Error::NotFound("room") } else { not_in_room() };
        let view = self.view(room).await.map_err(|_| unknown())?;
        if !is_free && view.access(&actor.user).await.ok() != Some(Access::Joined) {
            return Err(not_in_room());
        }
        if view.reader.alias(alias).await?.is_some() {
            return Err(Error::AliasInUse);
        }
        let mut tx = Tx::new();
        tx.put_alias(alias, view.nid, &actor.user);
        drop(view);
        match self.0.store.commit(tx).await {
            Err(chappe_store::Error::Conflict) => Err(Error::AliasInUse),
            done => done.map(drop).map_err(Error::from),
        }
    }

    /// Whether `alias` can be made here: of this server, not too long, not free-floating. Used by `createRoom` too.
    pub(crate) fn check_own(&self, alias: &RoomAliasId) -> Result<()> {
        if alias.server_name() != self.server() {
            return Err(Error::InvalidParam("aliases of other servers are made there".to_owned()));
        }
        let text = alias.alias();
        let clean =
            !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':');
        if alias.as_str().len() > LONGEST || !clean {
            return Err(Error::InvalidParam("this is not a usable alias".to_owned()));
        }
        Ok(())
    }

    /// Refuses aliases that are kept for an application service to everybody else, and to a service those that are not its.
    pub(crate) fn check_reserved(&self, actor: &Actor, alias: &RoomAliasId) -> Result<()> {
        let asking = actor.appservice.as_deref();
        let outside = asking.is_some_and(|service| !service.covers_alias(alias));
        if outside || self.0.accounts.appservices().reserve_alias(alias, asking) {
            return Err(Error::Reserved);
        }
        Ok(())
    }

    /// Where an alias points, asked of its server if that is another one.
    pub async fn resolve_alias(&self, alias: &RoomAliasId) -> Result<AliasTarget> {
        if alias.server_name() == self.server() {
            return self.local_alias(alias).await;
        }
        match self.0.peers.alias(alias).await {
            Ok(target) => Ok(target),
            Err(error) => {
                tracing::debug!(%alias, %error, "alias not resolved");
                Err(Error::NotFound("room alias"))
            }
        }
    }

    /// Where an alias of this server points, for another server (`GET /query/directory`). Those of externals find what their
    /// users are in or asked into.
    pub async fn alias_for(&self, asker: &ServerName, alias: &RoomAliasId) -> Result<AliasTarget> {
        let target = self.local_alias(alias).await?;
        if self.is_external(asker) && !self.view(&target.room_id).await?.has_part_of(asker).await? {
            return Err(Error::NotFound("room alias"));
        }
        Ok(target)
    }

    /// Where an alias of this server points. The application service that it would belong to is asked to make it, if nobody
    /// has.
    pub async fn local_alias(&self, alias: &RoomAliasId) -> Result<AliasTarget> {
        let mut known = self.0.store.read().alias(alias).await?;
        if known.is_none() && self.0.services.has_alias(alias).await {
            known = self.0.store.read().alias(alias).await?;
        }
        let target = known.ok_or(Error::NotFound("room alias"))?;
        let reader = self.0.store.read();
        let mut servers = reader.room_servers(target.nid()).await?;
        servers.sort_by_key(|(server, joined)| (*server != self.0.server, std::cmp::Reverse(*joined)));
        let mut servers: Vec<OwnedServerName> = servers.into_iter().map(|(server, _)| server).collect();
        servers.truncate(SERVERS);
        if servers.is_empty() {
            servers.push(self.0.server.clone());
        }
        Ok(AliasTarget { room_id: reader.room_id(target.nid()).await?, servers })
    }

    /// Deletes an alias of this server: its creator may, who may change the room's canonical alias may, and server
    /// administrators may. The canonical alias event is brought in line if the user may do that.
    pub async fn delete_alias(&self, actor: &Actor, alias: &RoomAliasId) -> Result<()> {
        self.check_reserved(actor, alias)?;
        let found = self.0.store.read().alias(alias).await?.ok_or(Error::NotFound("room alias"))?;
        let view = self.view_of(found.nid()).await?;
        let may = actor.standing == Standing::Administrator
            || actor.appservice.is_some()
            || found.creator == actor.user
            || view.may_set_aliases(&actor.user).await?;
        if !may {
            return Err(Error::Forbidden("you may not delete this alias".to_owned()));
        }
        let room = view.room_id.clone();
        let canonical: Option<Map<String, Value>> =
            view.current_content(StateEventType::RoomCanonicalAlias).await?;
        drop(view);
        self.drop_alias(alias, &found).await?;
        if let Some(content) = canonical.and_then(|content| without(content, alias)) {
            let draft = Draft::state(TimelineEventType::RoomCanonicalAlias, "", content);
            if let Err(error) = self.send(actor, &room, draft, None).await {
                tracing::debug!(%room, %alias, %error, "canonical alias left as it was");
            }
        }
        Ok(())
    }

    async fn drop_alias(&self, alias: &RoomAliasId, old: &Alias) -> Result<()> {
        let mut tx = Tx::new();
        tx.delete_alias(alias, old);
        match self.0.store.commit(tx).await {
            Err(chappe_store::Error::Conflict) => Err(Error::NotFound("room alias")),
            done => done.map(drop).map_err(Error::from),
        }
    }

    /// `GET /rooms/{roomId}/aliases`: the aliases of this server, for members and where everybody may read.
    pub async fn aliases(&self, actor: &Actor, room: &RoomId) -> Result<Vec<OwnedRoomAliasId>> {
        let view = self.view(room).await.map_err(no_such_room)?;
        match view.access(&actor.user).await? {
            Access::Joined | Access::Peeking => Ok(view.reader.aliases_of(view.nid).await?),
            Access::Left { .. } => Err(Error::Forbidden("you are not a member of this room".to_owned())),
        }
    }

    /// Checks the aliases that a new `m.room.canonical_alias` event adds: each must point at the room.
    /// [`Error::BadAlias`] otherwise.
    ///
    /// Specification: client-server API, `PUT /rooms/{roomId}/state/…`, `M_BAD_ALIAS`.
    pub(crate) async fn check_canonical_alias(
        &self,
        actor: &Actor,
        room: &RoomId,
        content: &Map<String, Value>,
    ) -> Result<()> {
        let view = self.view(room).await?;
        if !view.may_set_aliases(&actor.user).await? {
            // Nobody is asked anything for a sender whom the rules refuse anyway.
            return Ok(());
        }
        let old: Option<Map<String, Value>> =
            view.current_content(StateEventType::RoomCanonicalAlias).await?;
        drop(view);
        let named = aliases_in(content)?;
        let known = old.and_then(|old| aliases_in(&old).ok()).unwrap_or_default();
        let new: Vec<_> = named.difference(&known).collect();
        if new.len() > NEW_ALIASES {
            return Err(Error::InvalidParam("too many new aliases".to_owned()));
        }
        // Side by side: each may take a server as long as it likes.
        let targets = join_all(new.iter().map(|alias| self.resolve_alias(alias))).await;
        for (alias, target) in new.into_iter().zip(targets) {
            if !target.is_ok_and(|target| target.room_id == room) {
                return Err(Error::BadAlias(alias.clone()));
            }
        }
        Ok(())
    }

    /// Whether a room is listed; rooms nobody here knows are not found.
    pub async fn directory_visibility(&self, room: &RoomId) -> Result<Visibility> {
        let reader = self.0.store.read();
        let nid = reader.room_nid(room).await?.ok_or(Error::NotFound("room"))?;
        let listed = reader.is_published(nid).await?;
        Ok(if listed { Visibility::Public } else { Visibility::Private })
    }

    /// Lists a room or takes it out of the list: for whoever may change its canonical alias, and administrators.
    pub async fn set_directory_visibility(
        &self,
        actor: &Actor,
        room: &RoomId,
        visibility: Visibility,
    ) -> Result<()> {
        let done = self.set_visibility_unveiled(actor, room, visibility).await;
        self.veiled(actor, room, done).await
    }

    async fn set_visibility_unveiled(
        &self,
        actor: &Actor,
        room: &RoomId,
        visibility: Visibility,
    ) -> Result<()> {
        // Nobody opens the room to externals meanwhile.
        let _turn = self.0.turn(room).await;
        let view = self.view(room).await?;
        if actor.standing != Standing::Administrator && !view.may_set_aliases(&actor.user).await? {
            return Err(Error::Forbidden("you may not list or unlist this room".to_owned()));
        }
        if visibility == Visibility::Public {
            self.check_publishable(actor, room).await?;
        }
        let mut tx = Tx::new();
        match visibility {
            Visibility::Public => tx.publish_room(view.nid),
            Visibility::Private => tx.unpublish_room(view.nid),
        };
        drop(view);
        self.0.store.commit(tx).await?;
        Ok(())
    }
}

#[derive(Deserialize)]
struct Canonical {
    alias: Option<String>,
    #[serde(default)]
    alt_aliases: Vec<String>,
}

fn aliases_in(content: &Map<String, Value>) -> Result<BTreeSet<OwnedRoomAliasId>> {
    let bad = |_| Error::InvalidParam("not a room alias".to_owned());
    let canonical: Canonical = serde_json::from_value(Value::Object(content.clone()))
        .map_err(|error| Error::BadJson(error.to_string()))?;
    let named = canonical.alias.into_iter().filter(|alias| !alias.is_empty()).chain(canonical.alt_aliases);
    named.map(|alias| OwnedRoomAliasId::try_from(alias).map_err(bad)).collect()
}

/// A canonical alias event's content without `alias`; `None` if it does not name it.
fn without(mut content: Map<String, Value>, alias: &RoomAliasId) -> Option<Map<String, Value>> {
    let mut changed = false;
    if content.get("alias").and_then(Value::as_str) == Some(alias.as_str()) {
        content.remove("alias");
        changed = true;
    }
    if let Some(Value::Array(others)) = content.get_mut("alt_aliases") {
        let before = others.len();
        others.retain(|other| *other != json!(alias));
        changed |= others.len() < before;
    }
    changed.then_some(content)
}

impl View<'_> {
    /// The power levels of the room; none before its create event.
    pub async fn power(&self) -> Result<Option<Power>> {
        let Some(create) = self.current(StateEventType::RoomCreate, "").await? else { return Ok(None) };
        let levels = self.current(StateEventType::RoomPowerLevels, "").await?;
        Ok(Some(Power::new(self.rules, &create.pdu, levels.as_ref().map(|event| &event.pdu))))
    }

    /// Whether a user is joined and may send `m.room.canonical_alias`.
    async fn may_set_aliases(&self, user: &UserId) -> Result<bool> {
        if self.access(user).await.ok() != Some(Access::Joined) {
            return Ok(false);
        }
        let Some(power) = self.power().await? else { return Ok(false) };
        let needed = power.to_send(&TimelineEventType::RoomCanonicalAlias, Some(""));
        Ok(power.of(user) >= UserPowerLevel::Int(needed))
    }
}
