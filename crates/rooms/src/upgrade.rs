//! `upgrade`: a new room takes over from an old one, in one commit with what closes that.

mod levels;
mod old;

use std::collections::BTreeSet;

use chappe_rules::policy::Door;
use chappe_store::{Membership, RoomNid, Tx};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId,
    api::client::room::create_room::v3::Request,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
};
use serde_json::{Map, Value, json};

use self::{
    levels::{Levels, tidied},
    old::Old,
};
use crate::{
    Actor, Change, Draft, Error, Result, Rooms,
    author::By,
    create::{Upgrade, default_power_levels, succession},
    desk::{Desk, content_of, rules_of},
    send::bypass_of,
    turn::{ATTEMPTS, UNHELD, not_fatal},
};

/// For how long whoever asks for the same upgrade again has not heard of the first one, in milliseconds.
const AGAIN_MS: u64 = 5 * 60 * 1_000;

/// An upgrade as it is asked for.
struct Asked {
    actor: Actor,
    room: OwnedRoomId,
    version: RoomVersionId,
    rules: &'static RoomVersionRules,
    additional_creators: Vec<OwnedUserId>,
    /// When. However often it is tried, all is made at this time, so that what a policy server has signed fits.
    now: MilliSecondsSinceUnixEpoch,
    /// The id of the new room, where its version does not work it out.
    name: OwnedRoomId,
}

impl Asked {
    fn by(&self, door: Door) -> By<'_> {
        By { sender: &self.actor.user, bypass: bypass_of(&self.actor), door }
    }
}

impl Rooms {
    /// Replaces `room` by a new one of `version`: copies its state, moves local aliases, closes the old one. All of it is one
    /// commit; externals are invited behind. Client-server API, "Room upgrades".
    pub async fn upgrade(
        &self,
        actor: &Actor,
        room: &RoomId,
        version: RoomVersionId,
        additional_creators: Vec<OwnedUserId>,
    ) -> Result<OwnedRoomId> {
        let rules = rules_of(&version)?;
        let name = format!("!{}:{}", self.0.world.token(18), self.server());
        let name =
            RoomId::parse(name).map_err(|_| Error::InvalidParam("server name is too long".to_owned()))?;
        let (actor, room, now) = (actor.clone(), room.to_owned(), self.0.now());
        let asked = Asked { actor, room, version, rules, additional_creators, now, name };
        let rooms = self.clone();
        // Goes on when the client hangs up: there is more to do once the room is there.
        let work = async move { rooms.upgrade_as(&asked).await };
        self.0.world.spawn("room upgrade", work).await.unwrap_or(Err(Error::Retry))
    }

    async fn upgrade_as(&self, asked: &Asked) -> Result<OwnedRoomId> {
        let replaced = self.replace_asking(asked).await;
        let (new, externals) = self.veiled(&asked.actor, &asked.room, replaced).await?;
        self.bring_externals(&asked.actor, externals, &new);
        self.inherit_settings(&asked.actor.user, &new).await;
        Ok(new)
    }

    /// Tried again where another writer was first, and once the old room's policy server has seen what is said there.
    async fn replace_asking(&self, asked: &Asked) -> Result<(OwnedRoomId, Vec<OwnedUserId>)> {
        let mut writing = None;
        for attempt in 0..ATTEMPTS {
            if writing.is_none() {
                writing = Some(self.0.turn(&asked.room).await);
            }
            match self.replace(asked).await {
                Err(Error::Unasked(event)) => {
                    if attempt < UNHELD {
                        writing = None;
                    }
                    self.0.ask_policy_server(&event).await?;
                }
                Err(Error::Retry) => {}
                done => return done,
            }
        }
        Err(Error::Retry)
    }

    /// Commits the new room, and what points to it from the old one. Gives the externals who are to be invited.
    async fn replace(&self, asked: &Asked) -> Result<(OwnedRoomId, Vec<OwnedUserId>)> {
        let mut desk = Desk::open(&self.0, &asked.room).await?;
        desk.now = asked.now;
        if let Some(new) = desk.replaced_by(asked).await? {
            return Ok((new, Vec::new()));
        }
        let old = desk.read_old(&asked.actor).await?;
        let (new, to, tx) = self.found_new(asked, &old).await?;
        desk.tx = tx;
        for (name, alias) in &old.aliases {
            desk.tx.move_alias(name, alias, to);
        }
        if old.published {
            desk.tx.unpublish_room(desk.nid);
        }
        desk.close_for(asked.by(Door::Local), &new, &old).await?;
        self.0.store.commit(desk.seal()).await?;
        Ok((new, old.externals))
    }

    /// The new room, with the transaction that makes it.
    async fn found_new(&self, asked: &Asked, old: &Old) -> Result<(OwnedRoomId, RoomNid, Tx)> {
        let mut desk = Desk::found(&self.0, &asked.name, &asked.version).await?;
        desk.now = asked.now;
        for draft in self.furniture(asked, old).await? {
            desk.author(asked.by(Door::Create), draft).await?;
        }
        if old.published {
            desk.tx.publish_room(desk.nid);
        }
        let (room, nid) = (desk.room_id.clone(), desk.nid);
        Ok((room, nid, desk.seal()))
    }

    /// The events of the new room, last the power levels that stay where it begins with others.
    async fn furniture(&self, asked: &Asked, old: &Old) -> Result<Vec<Draft>> {
        let (user, rules) = (&asked.actor.user, asked.rules);
        let from = Upgrade {
            room_id: asked.room.clone(),
            event_id: old.last.clone().filter(|_| !rules.authorization.room_create_event_id_as_room_id),
        };
        let create = content_of(&old.create);
        let create = succession(user, create, &asked.version, rules, &from, &asked.additional_creators);
        let Levels { first, last } = self.new_levels(asked, old)?;
        let own_member = self.0.member_content(user, "join", None).await?;
        let mut drafts = vec![
            Draft::state(TimelineEventType::RoomCreate, "", create),
            Draft::member(user, own_member),
            power_levels(first),
        ];
        drafts.extend(old.carried.iter().cloned());
        drafts.extend(old.names.iter().map(|names| canonical_alias(names.moved.clone())));
        drafts.extend(old.bans.iter().map(|(banned, content)| Draft::member(banned, content.clone())));
        drafts.extend(last.map(power_levels));
        Ok(drafts)
    }

    /// Invites externals into the new room, behind: their servers may take their time.
    fn bring_externals(&self, actor: &Actor, externals: Vec<OwnedUserId>, new: &RoomId) {
        if externals.is_empty() {
            return;
        }
        let (rooms, actor, new) = (self.clone(), actor.clone(), new.to_owned());
        drop(self.0.world.spawn("externals of an upgraded room", async move {
            for user in externals {
                if let Err(error) = rooms.change(&actor, &new, &user, Change::Invite, None).await {
                    tracing::warn!(room = %new, %user, %error, "an external is not invited into the upgraded room");
                }
            }
        }));
    }

    /// The levels of the old room as the new one has them: who is not of the network any more has none. [`Error::Unreachable`]
    /// while that is not known.
    fn new_levels(&self, asked: &Asked, old: &Old) -> Result<Levels> {
        let (user, rules) = (&asked.actor.user, asked.rules);
        let Some(levels) = old.power_levels.as_ref().filter(|levels| !levels.is_empty()) else {
            let levels = default_power_levels(user, &Request::new(), rules)?;
            return Ok(Levels::without_limit(levels));
        };
        let mut kept = tidied(levels.clone());
        let strict = rules.authorization.explicitly_privilege_room_creators;
        let creators = &asked.additional_creators;
        let is_creator = |named: &UserId| *named == *user || creators.iter().any(|creator| creator == named);
        let outside = self.outside(&kept, old)?;
        if let Some(Value::Object(users)) = kept.get_mut("users") {
            users.retain(|user, _| match UserId::parse(user) {
                Ok(user) => !(outside.contains(&user) || strict && is_creator(&user)),
                Err(_) => !strict,
            });
        }
        if strict {
            return Ok(Levels::without_limit(kept));
        }
        let unlimited = old.unlimited.iter().map(|user| &**user);
        let unlimited: Vec<&UserId> = unlimited.filter(|user| !outside.contains(*user)).collect();
        let banned: Vec<&UserId> = old.bans.iter().map(|(user, _)| &**user).collect();
        Ok(Levels::within_limits(kept, user, &unlimited, &banned))
    }

    /// Those with a part in the old room who are not of the network any more.
    fn outside(&self, levels: &Map<String, Value>, old: &Old) -> Result<BTreeSet<OwnedUserId>> {
        let named = levels.get("users").and_then(Value::as_object).into_iter().flatten();
        let named = named.filter_map(|(user, _)| UserId::parse(user).ok());
        let mut outside = BTreeSet::new();
        for user in named.chain(old.unlimited.iter().chain(&old.externals).cloned()) {
            if self.0.is_outside(user.server_name())? {
                outside.insert(user);
            }
        }
        Ok(outside)
    }
}

fn power_levels(content: Map<String, Value>) -> Draft {
    Draft::state(TimelineEventType::RoomPowerLevels, "", content)
}

fn canonical_alias(content: Map<String, Value>) -> Draft {
    Draft::state(TimelineEventType::RoomCanonicalAlias, "", content)
}

impl Desk<'_> {
    /// The room of the same version that took over a moment ago for the same user: the answer was lost, or is still to come.
    async fn replaced_by(&self, asked: &Asked) -> Result<Option<OwnedRoomId>> {
        let user = &asked.actor.user;
        let Some(last) = self.current(StateEventType::RoomTombstone, "").await? else { return Ok(None) };
        let age = u64::from(asked.now.0).saturating_sub(u64::from(last.origin_server_ts().0));
        if *last.sender() != *user || age > AGAIN_MS {
            return Ok(None);
        }
        let content = content_of(&last);
        let new = content.get("replacement_room").and_then(Value::as_str);
        let Some(new) = new.and_then(|new| RoomId::parse(new).ok()) else { return Ok(None) };
        let Some(nid) = self.reader.room_nid(&new).await? else { return Ok(None) };
        let is_in = matches!(self.reader.membership(nid, user).await?, Some((Membership::Join, _)));
        let is_it = is_in && self.reader.room_head(nid).await?.version == asked.version;
        Ok(is_it.then_some(new))
    }

    /// Points from the old room to the new one, and lets only moderators speak in the old one.
    async fn close_for(&mut self, by: By<'_>, new: &RoomId, old: &Old) -> Result<()> {
        let content = Map::from_iter([
            ("body".to_owned(), json!("This room has been replaced")),
            ("replacement_room".to_owned(), json!(new)),
        ]);
        self.author(by, Draft::state(TimelineEventType::RoomTombstone, "", content)).await?;
        let levels = old.closed_levels().map(power_levels);
        let names = old.names.as_ref().map(|names| canonical_alias(names.left.clone()));
        for draft in levels.into_iter().chain(names) {
            // Whoever may only post the tombstone leaves the rest as it is.
            if let Err(error) = not_fatal(self.author(by, draft).await)? {
                tracing::info!(room = %self.room_id, %new, %error, "the replaced room keeps some of its state");
            }
        }
        Ok(())
    }
}
