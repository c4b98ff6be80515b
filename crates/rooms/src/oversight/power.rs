//! Power in a room for somebody of this server, out of that of somebody of this server.

use chappe_store::Membership;
use ruma::{
    OwnedUserId, RoomId, UserId,
    events::{StateEventType, TimelineEventType, room::power_levels::UserPowerLevel},
};
use serde_json::{Map, Value, json};

use crate::{Actor, Change, Draft, Error, Result, Rooms, Standing, desk::content_of};

/// The level given where the giver's has no number: that of an administrator by custom.
const USUAL: i64 = 100;

/// A joined user of this server with power.
pub(crate) struct Mighty {
    pub(crate) user: OwnedUserId,
    pub(crate) level: UserPowerLevel,
}

impl Rooms {
    /// The joined user of this server with the most power in a room.
    pub(crate) async fn mightiest_local(&self, room: &RoomId) -> Result<Option<Mighty>> {
        let view = self.view(room).await?;
        let Some(power) = view.power().await? else { return Ok(None) };
        let is_ours = |user: &UserId| user.server_name() == self.0.server;
        let named = power.named();
        let mut ours = Vec::new();
        for user in named.iter().filter(|user| is_ours(user)) {
            if matches!(view.reader.membership(view.nid, user).await?, Some((Membership::Join, _))) {
                ours.push(user.clone());
            }
        }
        // All others have the same level.
        let other = |user: &UserId| is_ours(user) && !named.contains(user);
        ours.extend(view.reader.find_member(view.nid, Membership::Join, other).await?);
        let mighty = ours.into_iter().map(|user| Mighty { level: power.of(&user), user });
        // The first of those who are alike: the answer does not change from one time to the next.
        Ok(mighty.reduce(|best, next| if next.level > best.level { next } else { best }))
    }

    /// Gives `user` the most power that somebody of this server has in the room and can give, and invites the user if
    /// there is no other way in. [`Error::Forbidden`] where nobody of this server may change the power levels.
    pub async fn empower(&self, room: &RoomId, user: &UserId) -> Result<()> {
        let nobody = || Error::Forbidden("no user of this server may change the power levels".to_owned());
        let giver = self.mightiest_local(room).await?.ok_or_else(nobody)?;
        let view = self.view(room).await?;
        let power = view.power().await?.ok_or_else(nobody)?;
        let needed = power.to_send(&TimelineEventType::RoomPowerLevels, Some(""));
        if giver.level < UserPowerLevel::Int(needed) {
            return Err(nobody());
        }
        let has_all = power.of(user) == UserPowerLevel::Infinite;
        let level = match giver.level {
            UserPowerLevel::Int(level) => i64::from(level),
            _ => i64::from(needed).max(USUAL),
        };
        let levels = view.current(StateEventType::RoomPowerLevels, "").await?;
        let levels = levels.map(|event| content_of(&event.pdu));
        let rule = view.current_content::<Map<String, Value>>(StateEventType::RoomJoinRules).await?;
        let membership = view.reader.membership(view.nid, user).await?.map(|(membership, _)| membership);
        drop(view);
        let actor = Actor { standing: Standing::Administrator, ..Actor::user(&giver.user) };
        if giver.user != user && !has_all {
            let content = with_level(levels, &giver.user, user, level);
            let draft = Draft::state(TimelineEventType::RoomPowerLevels, "", content);
            self.send(&actor, room, draft, None).await?;
        }
        let is_open = rule.and_then(|rule| rule.get("join_rule").cloned()) == Some(json!("public"));
        if is_open || matches!(membership, Some(Membership::Join | Membership::Invite)) {
            return Ok(());
        }
        self.change(&actor, room, user, Change::Invite, None).await
    }
}

/// Power levels in which `user` has `level`. Where the room has none yet, its giver keeps what it had.
fn with_level(
    levels: Option<Map<String, Value>>,
    giver: &UserId,
    user: &UserId,
    level: i64,
) -> Map<String, Value> {
    let mut content =
        levels.unwrap_or_else(|| Map::from_iter([("users".to_owned(), json!({ giver.as_str(): level }))]));
    let users = content.entry("users").or_insert_with(|| json!({}));
    if let Value::Object(users) = users {
        users.insert(user.to_string(), json!(level));
    }
    content
}
