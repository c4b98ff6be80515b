//! The last administrator leaves a room: somebody takes over. The leaver says so just before going, so that it counts on
//! every server.

use std::collections::BTreeSet;

use chappe_rules::{
    Pdu,
    access::{Access, Rule},
    auth::StateKey as RuleKey,
    policy::{Bypass, Door},
    power::Power,
};
use chappe_store::Membership;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedUserId, UserId,
    events::{StateEventType, TimelineEventType, room::power_levels::UserPowerLevel},
    int,
};
use serde_json::{Map, Value, json};

use crate::{
    Draft, Error, Result,
    author::{By, create_key},
    desk::{Desk, content_of, membership_of},
};

/// What makes an administrator.
const ADMINISTRATOR: i64 = 100;
/// How large the new power levels may get, in bytes: an event has 64 KiB with all that surrounds its content.
const MOST_BYTES: usize = 60_000;
/// Memberships looked at together.
const TOGETHER: usize = 500;

/// A room about to be left by its last administrator.
struct Left<'a> {
    access: &'a Access,
    leaver: &'a UserId,
    power: Power,
    content: Map<String, Value>,
}

/// Somebody who may take over.
struct Heir {
    user: OwnedUserId,
    level: i64,
    since: MilliSecondsSinceUnixEpoch,
}

impl Desk<'_> {
    /// Before `leaver` leaves: if the room loses its last administrator, others become administrators. What does not work
    /// out keeps nobody from leaving.
    pub(crate) async fn hand_over(&mut self, leaver: &UserId) -> Result<()> {
        let inner = self.inner;
        let Some(access) = inner.access() else { return Ok(()) };
        let Some(left) = self.left_by_last(&access, leaver).await? else { return Ok(()) };
        let Some(levels) = self.levels_without(&left).await? else { return Ok(()) };
        let by = By { sender: leaver, bypass: Bypass::None, door: Door::Local };
        let draft = Draft::state(TimelineEventType::RoomPowerLevels, "", levels);
        match self.author_unasked(by, draft).await {
            Err(error @ (Error::Store(_) | Error::Retry)) => Err(error),
            Err(error) => {
                tracing::warn!(room = %self.room_id, %leaver, %error, "nobody takes over from the last administrator");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// The room, if `leaver` is its only administrator and somebody else is there.
    async fn left_by_last<'a>(&self, access: &'a Access, leaver: &'a UserId) -> Result<Option<Left<'a>>> {
        // Of members that are still to come nobody knows whether one is an administrator.
        if self.head.joined + self.head.invited < 2 || self.head.partial {
            return Ok(None);
        }
        let levels = (StateEventType::RoomPowerLevels, String::new());
        let held = self.held(&[create_key(), levels.clone(), member_key(leaver)]).await?;
        let (Some(create), Some(levels), Some(member)) = (
            held.get(&StateEventType::RoomCreate, ""),
            held.get(&levels.0, ""),
            held.get(&StateEventType::RoomMember, leaver.as_str()),
        ) else {
            return Ok(None);
        };
        let power = Power::new(self.rules, &create, Some(&levels));
        let left = Left { access, leaver, power, content: content_of(&levels) };
        if membership_of(&member) != Membership::Join
            || !left.is_mighty(leaver)
            || left.default() >= ADMINISTRATOR
        {
            return Ok(None);
        }
        let mut others: BTreeSet<OwnedUserId> = left.named().into_iter().collect();
        others.extend(left.power.creators().iter().cloned());
        others.retain(|user| user != leaver && left.is_mighty(user));
        let others: Vec<OwnedUserId> = others.into_iter().collect();
        let there = self.there(&others).await?;
        let anybody =
            there.iter().any(|member| matches!(membership_of(member), Membership::Join | Membership::Invite));
        Ok((!anybody).then_some(left))
    }

    /// The power levels of the room from now on; `None`: they stay.
    async fn levels_without(&self, left: &Left<'_>) -> Result<Option<Map<String, Value>>> {
        if left.access.promote_moderators {
            let named = self.there(&left.named()).await?;
            let there = named
                .iter()
                .filter(|member| matches!(membership_of(member), Membership::Join | Membership::Invite));
            let moderators =
                there.filter_map(|member| left.heir(member)).filter(|heir| heir.level > left.default());
            let moderators: Vec<Heir> = moderators.collect();
            let highest = moderators.iter().map(|heir| heir.level).max();
            if let Some(highest) = highest {
                let heirs = moderators.into_iter().filter(|heir| heir.level == highest).collect();
                return Ok(left.levels_with(heirs));
            }
        }
        let rules = self.room_rules().await?;
        match rules.rule {
            Rule::Direct => Ok(None),
            Rule::Restricted => Ok(Some(left.levels_for_all())),
            Rule::Unrestricted => {
                let users = self.reader.members(self.nid, Membership::Join).await?;
                let users: Vec<OwnedUserId> = users.into_iter().map(|(user, _)| user).collect();
                let members = self.there(&users).await?;
                let joined = members.iter().filter(|member| membership_of(member) == Membership::Join);
                let heirs = joined.filter_map(|member| left.heir(member));
                Ok(left.levels_with(heirs.filter(|heir| heir.level >= left.default()).collect()))
            }
        }
    }

    /// The memberships that users have now.
    async fn there(&self, users: &[OwnedUserId]) -> Result<Vec<Pdu>> {
        let mut found = Vec::new();
        for some in users.chunks(TOGETHER) {
            let keys: Vec<RuleKey> = some.iter().map(|user| member_key(user)).collect();
            found.extend(self.held(&keys).await?.0.into_values().map(|(_, pdu)| pdu));
        }
        Ok(found)
    }
}

fn member_key(user: &UserId) -> RuleKey {
    (StateEventType::RoomMember, user.to_string())
}

impl Left<'_> {
    fn is_mighty(&self, user: &UserId) -> bool {
        self.power.of(user) >= UserPowerLevel::Int(int!(100))
    }

    fn default(&self) -> i64 {
        self.content.get("users_default").and_then(Value::as_i64).unwrap_or(0)
    }

    /// Those with a level of their own.
    fn named(&self) -> Vec<OwnedUserId> {
        let users = self.content.get("users").and_then(Value::as_object).into_iter().flatten();
        users.filter_map(|(user, _)| UserId::parse(user).ok()).collect()
    }

    /// Who has this membership, unless it is the leaver or an external, or has all power already.
    fn heir(&self, member: &Pdu) -> Option<Heir> {
        let user = UserId::parse(member.state_key()?).ok()?;
        let UserPowerLevel::Int(level) = self.power.of(&user) else { return None };
        let fit = user != self.leaver && !self.access.is_external(user.server_name());
        let since = member.origin_server_ts();
        fit.then_some(Heir { user, level: level.into(), since })
    }

    /// The level that the heirs get: the leaver's.
    fn level(&self) -> i64 {
        match self.power.of(self.leaver) {
            UserPowerLevel::Int(level) => level.into(),
            _ => ADMINISTRATOR,
        }
    }

    /// Everybody is an administrator, but for those who were put below all others.
    fn levels_for_all(&self) -> Map<String, Value> {
        let (mut content, default) = (self.content.clone(), self.default());
        if let Some(Value::Object(users)) = content.get_mut("users") {
            users.retain(|_, level| {
                level.as_i64().is_none_or(|level| level >= ADMINISTRATOR || level < default)
            });
        }
        content.insert("users_default".to_owned(), json!(ADMINISTRATOR));
        content
    }

    /// The heirs are administrators: those with most power first, then those who are in the room for longest, as many as
    /// an event can name. Members date from their last change of name.
    fn levels_with(&self, mut heirs: Vec<Heir>) -> Option<Map<String, Value>> {
        heirs.sort_by(|a, b| (-a.level, a.since, &a.user).cmp(&(-b.level, b.since, &b.user)));
        let mut content = self.content.clone();
        let mut bytes = serde_json::to_vec(&content).map_or(MOST_BYTES, |bytes| bytes.len());
        let users = content.entry("users").or_insert_with(|| json!({}));
        let level = self.level();
        for heir in &heirs {
            bytes += heir.user.as_str().len() + level.to_string().len() + 4;
            if bytes > MOST_BYTES {
                break;
            }
            users.as_object_mut()?.insert(heir.user.to_string(), json!(level));
        }
        (!heirs.is_empty()).then_some(content)
    }
}
