//! What is read of a room that is replaced.

use chappe_rules::{Pdu, auth::StateKey as RuleKey};
use chappe_store::{EventNum, Membership, aliases::Alias};
use ruma::{
    OwnedEventId, OwnedRoomAliasId, OwnedUserId,
    events::{StateEventType, TimelineEventType, room::power_levels::UserPowerLevel},
};
use serde_json::{Map, Value, json};

use crate::{
    Actor, Draft, Error, Result,
    desk::{Desk, content_of},
    send::not_in_room,
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
/// Children of a space carried over at most, and their bytes.
const MOST_CHILDREN: usize = 1_000;
const CHILDREN_BYTES: usize = 1 << 20;

/// What is read of the old room.
pub(super) struct Old {
    pub(super) create: Pdu,
    pub(super) carried: Vec<Draft>,
    pub(super) power_levels: Option<Map<String, Value>>,
    /// Who was above every level.
    pub(super) unlimited: Vec<OwnedUserId>,
    /// Those of this server.
    pub(super) aliases: Vec<(OwnedRoomAliasId, Alias)>,
    pub(super) names: Option<Names>,
    pub(super) bans: Vec<(OwnedUserId, Map<String, Value>)>,
    pub(super) last: Option<OwnedEventId>,
    pub(super) published: bool,
    /// Externals who are in it: they enter the new one by invitation only.
    pub(super) externals: Vec<OwnedUserId>,
}

/// What the canonical alias event names, if some of it moves.
pub(super) struct Names {
    pub(super) moved: Map<String, Value>,
    /// Aliases of other servers still point to the old room.
    pub(super) left: Map<String, Value>,
}

impl Names {
    fn of(content: &Map<String, Value>, aliases: &[(OwnedRoomAliasId, Alias)]) -> Option<Self> {
        let is_moved = |alias: &str| aliases.iter().any(|(name, _)| name.as_str() == alias);
        let moved = only_aliases(content, is_moved);
        let left = only_aliases(content, |alias| !is_moved(alias));
        (!moved.is_empty()).then_some(Self { moved, left })
    }
}

impl Old {
    /// The levels with which only moderators speak; none if they are these already, or there are none.
    pub(super) fn closed_levels(&self) -> Option<Map<String, Value>> {
        let levels = self.power_levels.as_ref()?;
        let level = |field: &str| levels.get(field).and_then(Value::as_i64).unwrap_or(0);
        let closed = level("users_default").saturating_add(1).max(50);
        let mut kept = levels.clone();
        for field in ["events_default", "invite"] {
            if level(field) < closed {
                kept.insert(field.to_owned(), json!(closed));
            }
        }
        (kept != *levels).then_some(kept)
    }
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
    /// Reads the old room, and refuses whoever may not close it.
    pub(super) async fn read_old(&self, actor: &Actor) -> Result<Old> {
        let membership = self.reader.membership(self.nid, &actor.user).await?;
        if !matches!(membership, Some((Membership::Join, _))) || !self.is_here().await? {
            return Err(not_in_room());
        }
        let power = self.power_at(self.state.current()).await?.ok_or(Error::NotFound("room"))?;
        let needed = power.to_send(&TimelineEventType::RoomTombstone, Some(""));
        if power.of(&actor.user) < UserPowerLevel::Int(needed) {
            return Err(Error::Forbidden("you may not upgrade this room".to_owned()));
        }
        let create = self.current(StateEventType::RoomCreate, "").await?.ok_or(Error::NotFound("room"))?;
        let is_unlimited = self.rules.authorization.explicitly_privilege_room_creators;
        let unlimited = power.creators().iter().filter(|_| is_unlimited).cloned().collect();
        let levels = self.current(StateEventType::RoomPowerLevels, "").await?;
        let aliases = self.local_aliases().await?;
        let canonical = self.current(StateEventType::RoomCanonicalAlias, "").await?;
        Ok(Old {
            unlimited,
            externals: self.externals().await?,
            carried: self.carried_over(&create).await?,
            power_levels: levels.as_ref().map(content_of),
            names: canonical.and_then(|canonical| Names::of(&content_of(&canonical), &aliases)),
            aliases,
            bans: self.bans().await?,
            last: self.heads().await?.0.first().map(|head| head.id().to_owned()),
            published: self.reader.is_published(self.nid).await?,
            create,
        })
    }

    async fn local_aliases(&self) -> Result<Vec<(OwnedRoomAliasId, Alias)>> {
        let mut aliases = Vec::new();
        for name in self.reader.aliases_of(self.nid).await? {
            let alias = self.reader.alias(&name).await?;
            aliases.extend(alias.map(|alias| (name, alias)));
        }
        Ok(aliases)
    }

    async fn carried_over(&self, create: &Pdu) -> Result<Vec<Draft>> {
        let keys: Vec<RuleKey> =
            CARRIED_OVER.iter().map(|kind| (StateEventType::from(*kind), String::new())).collect();
        let held = self.held(&keys).await?;
        let draft = |(kind, key): &RuleKey, pdu: &Pdu| {
            Draft::state(TimelineEventType::from(kind.to_string()), key.clone(), content_of(pdu))
        };
        let mut carried: Vec<Draft> = held.0.iter().map(|(key, (_, pdu))| draft(key, pdu)).collect();
        if content_of(create).get("type").and_then(Value::as_str) == Some("m.space") {
            carried.extend(self.children().await?);
        }
        Ok(carried)
    }

    async fn bans(&self) -> Result<Vec<(OwnedUserId, Map<String, Value>)>> {
        let bans = self.reader.some_members(self.nid, Membership::Ban, MOST_BANS).await?;
        let nums: Vec<EventNum> = bans.iter().map(|(_, num)| *num).collect();
        let pdus = self.state_events(&nums).await?;
        Ok(bans.into_iter().zip(pdus).map(|((user, _), pdu)| (user, content_of(&pdu))).collect())
    }

    /// The rooms of a space. Of one that was taken out of it nothing but an empty event is left.
    async fn children(&self) -> Result<Vec<Draft>> {
        let found = self.reader.current_of_type(self.nid, "m.space.child").await?;
        let nums: Vec<EventNum> = found.iter().map(|(_, num)| *num).take(MOST_CHILDREN).collect();
        let (pdus, mut bytes) = (self.state_events(&nums).await?, 0);
        let fit = pdus.iter().take_while(|pdu| {
            bytes += pdu.json().len();
            bytes <= CHILDREN_BYTES
        });
        let child = |pdu: &Pdu| {
            let (room, content) = (pdu.state_key()?, content_of(pdu));
            let stays = room.starts_with('!') && !content.is_empty();
            stays.then(|| Draft::state(pdu.kind().clone(), room, content))
        };
        Ok(fit.filter_map(child).collect())
    }

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
