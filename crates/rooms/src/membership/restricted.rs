//! Joins of restricted rooms: who may, and in whose name this server lets them in.

use chappe_rules::Pdu;
use chappe_store::Membership;
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId,
    events::{StateEventType, room::power_levels::UserPowerLevel},
};
use serde::Deserialize;

use crate::{Error, Result, Rooms, desk::Desk, remote::MOST_SERVERS};

#[derive(Deserialize)]
struct JoinRules {
    join_rule: String,
    #[serde(default)]
    allow: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Allow {
    #[serde(rename = "type")]
    kind: String,
    room_id: Option<OwnedRoomId>,
}

/// The rooms whose members may join; `None` if the room is not restricted.
pub(crate) fn allowed_rooms(join_rules: &Pdu) -> Option<Vec<OwnedRoomId>> {
    let rules: JoinRules = join_rules.content_as()?;
    if !matches!(rules.join_rule.as_str(), "restricted" | "knock_restricted") {
        return None;
    }
    let rooms = rules.allow.into_iter().filter_map(|entry| serde_json::from_value::<Allow>(entry).ok());
    Some(rooms.filter(|allow| allow.kind == "m.room_membership").filter_map(|allow| allow.room_id).collect())
}

impl Rooms {
    /// Whether joining `room` needs an authorising user, and who of this server that is. `None`: it does not.
    ///
    /// [`Error::UnableToGrantJoin`] when nobody here may invite, [`Error::UnableToAuthoriseJoin`] when this server is not
    /// in all of the rooms that count or does not know yet who else is, [`Error::Forbidden`] when the conditions are known not to
    /// hold.
    pub(crate) async fn authorise_join(&self, user: &UserId, room: &RoomId) -> Result<Option<OwnedUserId>> {
        let desk = Desk::open(&self.0, room).await?;
        if !desk.rules.authorization.restricted_join_rule {
            return Ok(None);
        }
        let Some(join_rules) = desk.current(StateEventType::RoomJoinRules, "").await? else {
            return Ok(None);
        };
        let Some(rooms) = allowed_rooms(&join_rules) else { return Ok(None) };
        let now = desk.reader.membership(desk.nid, user).await?.map(|(membership, _)| membership);
        if matches!(now, Some(Membership::Join | Membership::Invite)) {
            return Ok(None);
        }
        if now == Some(Membership::Ban) {
            return Err(Error::Forbidden("you are banned from this room".to_owned()));
        }
        self.check_conditions(&desk, user, &rooms).await?;
        let authoriser = self.who_may_invite(&desk).await?;
        authoriser.map(Some).ok_or(Error::UnableToGrantJoin)
    }

    async fn check_conditions(&self, desk: &Desk<'_>, user: &UserId, rooms: &[OwnedRoomId]) -> Result<()> {
        let is_ours = user.server_name() == self.server();
        let (mut knows_one, mut lacks_one) = (rooms.is_empty(), false);
        for room in rooms {
            let known = match desk.reader.room_nid(room).await? {
                Some(nid) if desk.reader.server_joined(nid, self.server()).await? => Some(nid),
                _ => None,
            };
            // Of a room whose members are still to come only those of this server are known.
            let whole = match known {
                Some(nid) => is_ours || !desk.reader.room_head(nid).await?.partial,
                None => false,
            };
            let Some(nid) = known.filter(|_| whole) else {
                lacks_one = true;
                continue;
            };
            knows_one = true;
            if matches!(desk.reader.membership(nid, user).await?, Some((Membership::Join, _))) {
                return Ok(());
            }
        }
        // A user of this server is in no room that it is not in.
        if knows_one && (is_ours || !lacks_one) {
            return Err(Error::Forbidden(
                "you are not in any of the rooms whose members may join".to_owned(),
            ));
        }
        Err(Error::UnableToAuthoriseJoin)
    }

    /// A joined user of this server who may invite.
    pub(crate) async fn who_may_invite(&self, desk: &Desk<'_>) -> Result<Option<OwnedUserId>> {
        let Some(power) = desk.power_at(desk.state.current()).await? else { return Ok(None) };
        let needed = UserPowerLevel::Int(power.to_invite());
        let may = |user: &UserId| user.server_name() == self.server() && power.of(user) >= needed;
        // Those with a level of their own are few, the members may be many.
        for user in power.named().into_iter().filter(|user| may(user)) {
            if matches!(desk.reader.membership(desk.nid, &user).await?, Some((Membership::Join, _))) {
                return Ok(Some(user));
            }
        }
        Ok(desk.reader.find_member(desk.nid, Membership::Join, may).await?)
    }

    /// Other servers of joined users who may invite, as far as those have a level of their own.
    pub(crate) async fn who_else_may_invite(&self, room: &RoomId) -> Result<Vec<OwnedServerName>> {
        let desk = Desk::open(&self.0, room).await?;
        let Some(power) = desk.power_at(desk.state.current()).await? else { return Ok(Vec::new()) };
        let needed = UserPowerLevel::Int(power.to_invite());
        let mut servers: Vec<OwnedServerName> = Vec::new();
        for user in power.named().into_iter().filter(|user| power.of(user) >= needed) {
            let server = user.server_name();
            if server == self.server() || servers.iter().any(|known| known == server) {
                continue;
            }
            if matches!(desk.reader.membership(desk.nid, &user).await?, Some((Membership::Join, _))) {
                servers.push(server.to_owned());
            }
            if servers.len() == MOST_SERVERS {
                break;
            }
        }
        Ok(servers)
    }
}

impl Desk<'_> {
    /// Whether a user is in the room and may invite.
    pub(crate) async fn may_invite(&self, user: &UserId) -> Result<bool> {
        let Some(power) = self.power_at(self.state.current()).await? else { return Ok(false) };
        let is_in = matches!(self.reader.membership(self.nid, user).await?, Some((Membership::Join, _)));
        Ok(is_in && power.of(user) >= UserPowerLevel::Int(power.to_invite()))
    }
}
