//! `upgrade`: a new room takes over from an old one.

use chappe_rules::{Pdu, auth::StateKey as RuleKey};
use chappe_store::{Membership, Tx};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId,
    api::client::room::create_room::v3::Request,
    events::{StateEventType, TimelineEventType, room::power_levels::UserPowerLevel},
    room_version_rules::RoomVersionRules,
};
use serde_json::{Map, Value, json};

use crate::{
    Actor, Change, Draft, Error, Result, Rooms,
    create::{Furniture, Plan, Upgrade, default_power_levels, succession},
    desk::{Desk, content_of, rules_of},
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
        let plan = Plan {
            version,
            furniture: Furniture {
                create,
                power_levels: default_power_levels(&actor.user, &Request::new(), rules)?,
                rest: self.furniture(actor, rules, &old, &additional_creators),
            },
            alias: None,
            published: old.published,
            invites: old.bans.clone(),
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
        Ok(Old {
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

    /// The state carried over; the old power levels come last, when everything else is in place. Of those, who is not of the
    /// network any more has none in the new room.
    fn furniture(
        &self,
        actor: &Actor,
        rules: &RoomVersionRules,
        old: &Old,
        creators: &[OwnedUserId],
    ) -> Vec<Draft> {
        let mut levels = old.power_levels.clone();
        if levels.is_empty() {
            return old.carried.clone();
        }
        let strict = rules.authorization.explicitly_privilege_room_creators;
        let is_creator =
            |user: &UserId| *user == actor.user || creators.iter().any(|creator| creator == user);
        if let Some(Value::Object(users)) = levels.get_mut("users") {
            users.retain(|user, _| match UserId::parse(user) {
                Ok(user) => self.0.takes_part(user.server_name()) && !(strict && is_creator(&user)),
                Err(_) => !strict,
            });
        }
        let mut drafts = old.carried.clone();
        drafts.push(Draft::state(TimelineEventType::RoomPowerLevels, "", levels));
        drafts
    }

    async fn move_aliases(&self, actor: &Actor, room: &RoomId, new: &RoomId, old: &Old) -> Result<()> {
        let reader = self.0.store.read();
        let (Some(from), Some(to)) = (reader.room_nid(room).await?, reader.room_nid(new).await?) else {
            return Ok(());
        };
        let mut tx = Tx::new();
        for name in reader.aliases_of(from).await? {
            if let Some(alias) = reader.alias(&name).await? {
                tx.move_alias(&name, &alias, to);
            }
        }
        if old.published {
            tx.unpublish_room(from);
        }
        drop(reader);
        if !tx.is_empty() {
            self.0.store.commit(tx).await?;
        }
        if let Some(content) = old.canonical_alias.clone().filter(|content| !content.is_empty()) {
            let gone = Draft::state(TimelineEventType::RoomCanonicalAlias, "", Map::new());
            let here = Draft::state(TimelineEventType::RoomCanonicalAlias, "", content);
            for (room, draft) in [(room, gone), (new, here)] {
                if let Err(error) = self.send(actor, room, draft, None).await {
                    tracing::info!(%room, %error, "canonical alias not moved");
                }
            }
        }
        Ok(())
    }
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
