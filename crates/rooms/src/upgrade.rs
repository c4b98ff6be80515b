//! `upgrade`: a new room takes over from an old one.

mod levels;

use std::collections::BTreeSet;

use chappe_rules::{Pdu, auth::StateKey as RuleKey};
use chappe_store::{Membership, Tx};
use ruma::{
    OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId,
    api::client::room::create_room::v3::Request,
    events::{StateEventType, TimelineEventType, room::power_levels::UserPowerLevel},
    room_version_rules::RoomVersionRules,
};
use serde_json::{Map, Value, json};

use self::levels::{Levels, tidied};
use crate::{
    Actor, Change, Draft, Error, Result, Rooms,
    create::{Furniture, Plan, Upgrade, default_power_levels, succession},
    desk::{Desk, content_of, rules_of},
    turn::Job,
};

/// What of the old room's state goes on in the new one, beside power levels and bans.
const CARRIED_OVER: &[&str] = &[
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.encryption",
    "m.room.server_acl",
    "m.room.retention",
    "im.vector.room.access_rules",
];

/// Bans carried over at most.
const MOST_BANS: usize = 1_000;

/// What is read of the old room.
struct Old {
    create: Pdu,
    carried: Vec<Draft>,
    power_levels: Map<String, Value>,
    /// Who was above every level.
    unlimited: Vec<OwnedUserId>,
    canonical_alias: Option<Map<String, Value>>,
    bans: Vec<(OwnedUserId, Map<String, Value>)>,
    last: Option<ruma::OwnedEventId>,
    published: bool,
    /// Externals who are in it: they enter the new one by invitation only.
    externals: Vec<OwnedUserId>,
}

impl Rooms {
    /// Replaces `room` by a new one of `version`: copies its state, moves local aliases, closes the old one.
    /// Client-server API, "Room upgrades".
    pub async fn upgrade(
        &self,
        actor: &Actor,
        room: &RoomId,
        version: RoomVersionId,
        additional_creators: Vec<OwnedUserId>,
    ) -> Result<OwnedRoomId> {
        let rules = rules_of(&version)?;
        let old = self.read_old(actor, room).await;
        let old = self.veiled(actor, room, old).await?;
        let from = Upgrade {
            room_id: room.to_owned(),
            event_id: old.last.clone().filter(|_| !rules.authorization.room_create_event_id_as_room_id),
        };
        let old_content: Map<String, Value> = content_of(&old.create);
        let create = succession(&actor.user, old_content, &version, rules, &from, &additional_creators);
        let levels = self.new_levels(actor, rules, &old, &additional_creators)?;
        let rest = furniture(&old, levels.last);
        let plan = Plan {
            version,
            furniture: Furniture { create, power_levels: levels.first, rest },
            alias: None,
            published: old.published,
            invites: Vec::new(),
            own_member: self.0.member_content(&actor.user, "join", None).await?,
        };
        let new = self.0.make_room(actor, &plan).await?;
        self.close_old(actor, room, &new).await?;
        self.move_aliases(actor, room, &new, &old).await?;
        self.bring_externals(actor, old.externals, &new);
        self.inherit_settings(&actor.user, &new).await;
        Ok(new)
    }

    /// Reads the old room, and refuses whoever may not close it.
    async fn read_old(&self, actor: &Actor, room: &RoomId) -> Result<Old> {
        let desk = Desk::open(&self.0, room).await?;
        let membership = desk.reader.membership(desk.nid, &actor.user).await?;
        if !matches!(membership, Some((Membership::Join, _))) || !desk.is_here().await? {
            return Err(crate::send::not_in_room());
        }
        let power = desk.power_at(desk.state.current()).await?.ok_or(Error::NotFound("room"))?;
        let needed = power.to_send(&TimelineEventType::RoomTombstone, Some(""));
        if power.of(&actor.user) < UserPowerLevel::Int(needed) {
            return Err(Error::Forbidden("you may not upgrade this room".to_owned()));
        }
        let create = desk.current(StateEventType::RoomCreate, "").await?.ok_or(Error::NotFound("room"))?;
        let keys: Vec<RuleKey> =
            CARRIED_OVER.iter().map(|kind| (StateEventType::from(*kind), String::new())).collect();
        let held = desk.held(&keys).await?;
        let draft = |(kind, key): &RuleKey, pdu: &Pdu| {
            Draft::state(TimelineEventType::from(kind.to_string()), key.clone(), content_of(pdu))
        };
        let content = |pdu: Option<Pdu>| pdu.as_ref().map(content_of);
        let bans = desk.reader.some_members(desk.nid, Membership::Ban, MOST_BANS).await?;
        let nums: Vec<_> = bans.iter().map(|(_, num)| *num).collect();
        let pdus = desk.pdus(&nums).await?;
        let bans = bans.into_iter().zip(pdus).map(|((user, _), pdu)| (user, content_of(&pdu)));
        let externals = desk.externals().await?;
        let is_unlimited = desk.rules.authorization.explicitly_privilege_room_creators;
        let unlimited = power.creators().iter().filter(|_| is_unlimited).cloned().collect();
        Ok(Old {
            unlimited,
            externals,
            carried: held.0.iter().map(|(key, (_, pdu))| draft(key, pdu)).collect(),
            power_levels: content(desk.current(StateEventType::RoomPowerLevels, "").await?)
                .unwrap_or_default(),
            canonical_alias: content(desk.current(StateEventType::RoomCanonicalAlias, "").await?),
            bans: bans.collect(),
            last: desk.heads().await?.0.first().map(|head| head.id().to_owned()),
            published: desk.reader.is_published(desk.nid).await?,
            create,
        })
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

    /// Points from the old room to the new one, and lets only moderators speak in the old one.
    async fn close_old(&self, actor: &Actor, room: &RoomId, new: &RoomId) -> Result<()> {
        let content = json!({ "body": "This room has been replaced", "replacement_room": new });
        let Value::Object(content) = content else { unreachable!("an object literal") };
        let tombstone = Draft::state(TimelineEventType::RoomTombstone, "", content);
        self.send(actor, room, tombstone, None).await?;
        let desk = Desk::open(&self.0, room).await?;
        let levels = desk.current(StateEventType::RoomPowerLevels, "").await?;
        let Some(mut levels) = levels.as_ref().map(content_of) else { return Ok(()) };
        drop(desk);
        let default = levels.get("users_default").and_then(Value::as_i64).unwrap_or(0);
        let closed = 50.max(default + 1);
        for field in ["events_default", "invite"] {
            if levels.get(field).and_then(Value::as_i64).unwrap_or(0) < closed {
                levels.insert(field.to_owned(), json!(closed));
            }
        }
        let draft = Draft::state(TimelineEventType::RoomPowerLevels, "", levels);
        match self.send(actor, room, draft, None).await {
            // Whoever may only post the tombstone leaves the levels as they are.
            Ok(_) | Err(Error::Forbidden(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The levels of the old room as the new one has them: who is not of the network any more has none. [`Error::Unreachable`]
    /// while that is not known.
    fn new_levels(
        &self,
        actor: &Actor,
        rules: &RoomVersionRules,
        old: &Old,
        creators: &[OwnedUserId],
    ) -> Result<Levels> {
        if old.power_levels.is_empty() {
            let levels = default_power_levels(&actor.user, &Request::new(), rules)?;
            return Ok(Levels::without_limit(levels));
        }
        let mut kept = tidied(old.power_levels.clone());
        let strict = rules.authorization.explicitly_privilege_room_creators;
        let is_creator =
            |user: &UserId| *user == actor.user || creators.iter().any(|creator| creator == user);
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
        Ok(Levels::within_limits(kept, &actor.user, &unlimited, &banned))
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

    async fn move_aliases(&self, actor: &Actor, room: &RoomId, new: &RoomId, old: &Old) -> Result<()> {
        let reader = self.0.store.read();
        let (Some(from), Some(to)) = (reader.room_nid(room).await?, reader.room_nid(new).await?) else {
            return Ok(());
        };
        let (mut tx, mut moved) = (Tx::new(), BTreeSet::new());
        for name in reader.aliases_of(from).await? {
            if let Some(alias) = reader.alias(&name).await? {
                tx.move_alias(&name, &alias, to);
                moved.insert(name);
            }
        }
        if old.published {
            tx.unpublish_room(from);
        }
        drop(reader);
        if !tx.is_empty() {
            self.0.store.commit(tx).await?;
        }
        if let Some(content) = &old.canonical_alias
            && let Err(error) = self.move_canonical(actor, (room, new), content, &moved).await
        {
            tracing::info!(%room, %new, %error, "canonical alias not moved");
        }
        Ok(())
    }

    /// Names what was moved in the new room and then no longer in the old one. Aliases of other servers still point there.
    async fn move_canonical(
        &self,
        actor: &Actor,
        (room, new): (&RoomId, &RoomId),
        content: &Map<String, Value>,
        moved: &BTreeSet<OwnedRoomAliasId>,
    ) -> Result<()> {
        let is_moved = |alias: &str| moved.iter().any(|name| name.as_str() == alias);
        let here = only_aliases(content, is_moved);
        if here.is_empty() {
            return Ok(());
        }
        let draft = |content| Draft::state(TimelineEventType::RoomCanonicalAlias, "", content);
        // That they point there is known: nobody is asked.
        self.submit(new, Job::new(actor, draft(here))).await?;
        let gone = only_aliases(content, |alias| !is_moved(alias));
        self.send(actor, room, draft(gone), None).await.map(drop)
    }
}

/// The state carried over, the bans, and last the power levels that stay where the room begins with others.
fn furniture(old: &Old, last: Option<Map<String, Value>>) -> Vec<Draft> {
    let bans = old.bans.iter().map(|(user, content)| Draft::member(user, content.clone()));
    let last = last.map(|levels| Draft::state(TimelineEventType::RoomPowerLevels, "", levels));
    old.carried.iter().cloned().chain(bans).chain(last).collect()
}

/// The content of a canonical alias event with some of its aliases; empty if it names none of them.
fn only_aliases(content: &Map<String, Value>, holds: impl Fn(&str) -> bool) -> Map<String, Value> {
    let stays = |alias: &Value| alias.as_str().is_some_and(&holds);
    let mut kept = content.clone();
    if !kept.get("alias").is_some_and(stays) {
        kept.remove("alias");
    }
    let has_others = match kept.get_mut("alt_aliases") {
        Some(Value::Array(aliases)) => {
            aliases.retain(stays);
            !aliases.is_empty()
        }
        _ => false,
    };
    if !has_others {
        kept.remove("alt_aliases");
    }
    if has_others || kept.contains_key("alias") { kept } else { Map::new() }
}

impl Desk<'_> {
    /// The joined users of servers of externals.
    async fn externals(&self) -> Result<Vec<OwnedUserId>> {
        let Some(access) = self.inner.access() else { return Ok(Vec::new()) };
        if !self.servers().await?.iter().any(|server| access.is_external(server)) {
            return Ok(Vec::new());
        }
        let joined = self.reader.members(self.nid, Membership::Join).await?.into_iter();
        Ok(joined.map(|(user, _)| user).filter(|user| access.is_external(user.server_name())).collect())
    }
}
