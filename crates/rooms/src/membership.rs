//! Join, invite, leave, kick, ban, unban, knock, forget: for local users, in local and remote rooms.

mod address;
mod guests;
pub(crate) mod restricted;

use chappe_accounts::Welcome;
use chappe_store::{
    At, Json, LogEntry, Membership,
    blocks::BlockedRooms,
    members::{RoomServers, UserRoom, UserRooms},
    out_of_band::{OutOfBand, OutOfBands},
    rooms::DoomedRooms,
};
use ruma::{OwnedServerName, RoomId, UserId};
use serde_json::{Map, Value, json};

pub use self::address::AddressInvite;
use crate::{Actor, Draft, Error, Result, Rooms, desk::Desk, oversight, send::not_in_room, turn::Job};

/// Servers to ask when this server is not in the room.
pub type Via = Vec<OwnedServerName>;

/// Where a membership of a restricted room says who let the user in.
pub(crate) const AUTHORISED_BY: &str = "join_authorised_via_users_server";
/// Where an invite says whose address was invited: the server does, once somebody has it, and no client.
pub(crate) const THIRD_PARTY: &str = "third_party_invite";

/// What one user does to another's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Invite; another server's user is asked through that server first.
    Invite,
    /// Remove a joined, invited or knocking user.
    Kick,
    /// Remove and keep out.
    Ban,
    /// Lift a ban.
    Unban,
}

/// What this server knows of a local user in a room.
pub(crate) struct Standpoint {
    /// Whether this server is in the room.
    pub(crate) here: bool,
    /// The user's membership there.
    pub(crate) membership: Option<At<UserRoom>>,
    /// Whether it may be another one: memberships of the room are still being fetched, or an invite came of which the room
    /// knows nothing here, as where this server is out of it and has not heard.
    pub(crate) unsure: bool,
    /// Whether operators keep this server's users out of the room.
    pub(crate) blocked: bool,
}

impl Standpoint {
    fn check_block(&self) -> Result<()> {
        if self.blocked { Err(oversight::blocked()) } else { Ok(()) }
    }

    pub(crate) fn is(&self, membership: Membership) -> bool {
        self.membership.is_some_and(|at| at.value.membership == membership)
    }
}

impl Rooms {
    pub(crate) async fn standpoint(&self, user: &UserId, room: &RoomId) -> Result<Standpoint> {
        let reader = self.0.store.read();
        let Some(nid) = reader.room_nid(room).await? else {
            let id = [room.to_owned()];
            let (blocks, dooms) = reader.get_both::<BlockedRooms, DoomedRooms>(&id, &id).await?;
            if dooms.iter().any(Option::is_some) {
                // It may come back once everything of it is gone.
                return Err(Error::Retry);
            }
            let blocked = blocks.iter().any(Option::is_some);
            return Ok(Standpoint { here: false, membership: None, unsure: false, blocked });
        };
        let (counts, blocks) = reader
            .get_both::<RoomServers, BlockedRooms>(&[(nid, self.0.server.clone())], &[room.to_owned()])
            .await?;
        let here = counts.into_iter().flatten().any(|count| count > 0);
        let (own, outside) = reader
            .get_both::<UserRooms, OutOfBands>(
                &[(user.to_owned(), nid)],
                &[(user.to_owned(), room.to_owned())],
            )
            .await?;
        let membership = own.into_iter().flatten().next();
        let is_invite = |at: At<Json<OutOfBand>>| at.value.0.kind() == Some(Membership::Invite);
        let unsure = outside.into_iter().flatten().any(is_invite)
            || (here && membership.is_none() && reader.room_head(nid).await?.partial);
        let blocked = blocks.iter().any(Option::is_some);
        Ok(Standpoint { here, membership, unsure, blocked })
    }

    /// Joins `actor` to the room, through `via` if this server is not in it. Joining twice is fine. What the client `said`
    /// beside that becomes part of the membership: the reason, fields of its own.
    pub async fn join(&self, actor: &Actor, room: &RoomId, via: Via, said: Map<String, Value>) -> Result<()> {
        let at = self.standpoint(&actor.user, room).await?;
        if at.here && at.is(Membership::Join) {
            return Ok(());
        }
        at.check_block()?;
        let first_time = !at.is(Membership::Leave) && !at.is(Membership::Ban);
        self.admit_guest(actor, room, &or_its_own(&via, room)).await?;
        let mut content = self.0.join_content(&actor.user, said).await?;
        content.remove(THIRD_PARTY);
        self.enter(actor, room, via, content, &at).await?;
        if first_time {
            self.inherit_settings(&actor.user, room).await;
        }
        Ok(())
    }

    async fn enter(
        &self,
        actor: &Actor,
        room: &RoomId,
        via: Via,
        mut content: Map<String, Value>,
        at: &Standpoint,
    ) -> Result<()> {
        if !at.here || at.unsure {
            return self.join_remote(actor, room, Vec::new(), via, content).await;
        }
        match self.authorise_join(&actor.user, room).await {
            Ok(None) => {}
            Ok(Some(by)) => {
                content.insert(AUTHORISED_BY.to_owned(), json!(by));
            }
            // Another server in the room may be able to.
            Err(error @ (Error::UnableToGrantJoin | Error::UnableToAuthoriseJoin)) => {
                let able = self.who_else_may_invite(room).await?;
                return match self.join_remote(actor, room, able, via, content).await {
                    Err(Error::NotFound(_)) => Err(error),
                    joined => joined,
                };
            }
            Err(error) => return Err(error),
        }
        let joining = self.submit_member(actor, room, &actor.user, content);
        self.0.joins.hold(&actor.user, room, joining).await
    }

    /// Puts into a membership that `actor` writes for itself what is the server's to say: who let the user in. Where this
    /// is an entry and not a change of name, a guest must be let in as well.
    pub(crate) async fn complete_own_join(
        &self,
        actor: &Actor,
        room: &RoomId,
        content: &mut Map<String, Value>,
    ) -> Result<()> {
        content.remove(AUTHORISED_BY);
        let at = self.standpoint(&actor.user, room).await?;
        if at.is(Membership::Join) {
            return Ok(());
        }
        at.check_block()?;
        self.admit_guest(actor, room, &[]).await?;
        if let Some(by) = self.authorise_join(&actor.user, room).await? {
            content.insert(AUTHORISED_BY.to_owned(), json!(by));
        }
        Ok(())
    }

    pub(crate) async fn submit_member(
        &self,
        actor: &Actor,
        room: &RoomId,
        target: &UserId,
        content: Map<String, Value>,
    ) -> Result<()> {
        self.submit(room, Job::new(actor, Draft::member(target, content))).await.map(drop)
    }

    /// Leaves, rejects an invite or takes back a knock. [`Error::NoticeRoom`] for an invite of the server's own.
    pub async fn leave(&self, actor: &Actor, room: &RoomId, reason: Option<String>) -> Result<()> {
        self.check_leave(&actor.user, room).await?;
        self.depart_from(actor, room, reason).await
    }

    /// The same, whoever invited: for those who go for good.
    pub(crate) async fn depart_from(
        &self,
        actor: &Actor,
        room: &RoomId,
        reason: Option<String>,
    ) -> Result<()> {
        let at = self.standpoint(&actor.user, room).await?;
        // The room itself knows best, and its event takes away what else was noted; but a noted invite may be newer than a
        // membership that is none yet.
        let is_asked = at.is(Membership::Invite) || at.is(Membership::Knock);
        let takes_part = at.here && (at.is(Membership::Join) || (is_asked && !at.unsure));
        if !takes_part && let Some(outside) = self.0.store.read().out_of_band(&actor.user, room).await? {
            return self.leave_remote(actor, room, outside, reason).await;
        }
        let Some(now) = at.membership else { return Err(not_in_room()) };
        match now.value.membership {
            Membership::Leave => Ok(()),
            Membership::Ban => Err(Error::Forbidden("you are banned from this room".to_owned())),
            _ => {
                let mut content = Map::from_iter([("membership".to_owned(), json!("leave"))]);
                if let Some(reason) = reason {
                    content.insert("reason".to_owned(), json!(reason));
                }
                self.submit_member(actor, room, &actor.user, content).await
            }
        }
    }

    /// Asks to be invited.
    pub async fn knock(&self, actor: &Actor, room: &RoomId, via: Via, reason: Option<String>) -> Result<()> {
        let at = self.standpoint(&actor.user, room).await?;
        at.check_block()?;
        if !at.here {
            return self.knock_remote(actor, room, via, reason).await;
        }
        let content = self.0.member_content(&actor.user, "knock", reason.as_deref()).await?;
        let knocking = self.submit_member(actor, room, &actor.user, content);
        self.0.joins.hold(&actor.user, room, knocking).await
    }

    /// Invites, kicks, bans or unbans `target`.
    pub async fn change(
        &self,
        actor: &Actor,
        room: &RoomId,
        target: &UserId,
        change: Change,
        reason: Option<String>,
    ) -> Result<()> {
        let said = reason.map(|reason| ("reason".to_owned(), json!(reason)));
        self.change_saying(actor, room, target, change, said.into_iter().collect()).await
    }

    /// The same; what the client `said` beside it becomes part of the membership: the reason, [`crate::REDACT_EVENTS`].
    pub async fn change_saying(
        &self,
        actor: &Actor,
        room: &RoomId,
        target: &UserId,
        change: Change,
        said: Map<String, Value>,
    ) -> Result<()> {
        let done = self.change_unveiled(actor, room, target, change, said).await;
        self.veiled(actor, room, done).await
    }

    async fn change_unveiled(
        &self,
        actor: &Actor,
        room: &RoomId,
        target: &UserId,
        change: Change,
        said: Map<String, Value>,
    ) -> Result<()> {
        let desk = Desk::open(&self.0, room).await?;
        let mut now = desk.reader.membership(desk.nid, target).await?.map(|(membership, _)| membership);
        let unsure = now.is_none() && desk.head.partial;
        drop(desk);
        if unsure && matches!(change, Change::Kick | Change::Unban) {
            let (view, _) = self.whole_view(actor, room).await?;
            now = view.reader.membership(view.nid, target).await?.map(|(membership, _)| membership);
        }
        let content = match change {
            Change::Invite => {
                self.check_block(room).await?;
                self.check_welcome(&actor.user, target).await?;
                let reason = said.get("reason").and_then(Value::as_str);
                let content = self.0.invite_content(target, reason, false).await?;
                if target.server_name() != self.server() {
                    return self.invite_remote(actor, room, target, content).await.map(drop);
                }
                content
            }
            Change::Kick if matches!(now, None | Some(Membership::Leave | Membership::Ban)) => {
                return Err(Error::Forbidden("this user is not in the room".to_owned()));
            }
            Change::Unban if now != Some(Membership::Ban) => {
                return Err(Error::Forbidden("this user is not banned".to_owned()));
            }
            Change::Kick | Change::Unban => plain("leave", said),
            Change::Ban => plain("ban", said),
        };
        self.submit_member(actor, room, target, content).await
    }

    /// Refuses an invite that a local user has said it does not want.
    pub(crate) async fn check_welcome(&self, sender: &UserId, invited: &UserId) -> Result<()> {
        if invited.server_name() != self.server() || self.speaks_for_server(sender) {
            return Ok(());
        }
        self.ask_for(invited).await?;
        let reader = self.0.store.read();
        let filter = self.0.accounts.invite_filter(&reader, invited).await.unwrap_or_default();
        match filter.welcome(sender) {
            Welcome::Blocked => Err(Error::InviteBlocked),
            Welcome::Shown | Welcome::Hidden => Ok(()),
        }
    }

    /// Has the application service that a local user would belong to make that user, if nobody has the name.
    pub(crate) async fn ask_for(&self, user: &UserId) -> Result<()> {
        let accounts = &self.0.accounts;
        let covered = accounts.appservices().cover_user(user);
        if covered && accounts.user(user).await.map_err(|_| Error::Retry)?.is_none() {
            self.0.services.has_user(user).await;
        }
        Ok(())
    }

    /// Takes a left room out of the user's lists. [`Error::BadState`] while the user is in it.
    pub async fn forget(&self, user: &UserId, room: &RoomId) -> Result<()> {
        let reader = self.0.store.read();
        let is_in = || Error::BadState("you must leave the room before you can forget it".to_owned());
        let mut tx = chappe_store::Tx::new();
        if let Some(outside) = reader.out_of_band(user, room).await? {
            let now = match reader.room_nid(room).await? {
                Some(nid) => reader.user_room(user, nid).await?.map(|at| (nid, at)),
                None => None,
            };
            let is_joined = now.is_some_and(|(_, at)| at.value.membership == Membership::Join);
            if is_joined || outside.value.0.kind() != Some(Membership::Leave) {
                return Err(is_in());
            }
            tx.expect_out_of_band(user, room, &outside).delete_out_of_band(user, room);
            tx.log(LogEntry::OutOfBandMembership { user: user.to_owned(), room: room.to_owned() });
            // What the room says is older, as after an earlier stay.
            if let Some((nid, at)) = now {
                tx.forget_room(nid, user, &at);
                tx.log(LogEntry::Member { room: nid.0, user: user.to_owned() });
            }
        } else {
            let nid = reader.room_nid(room).await?.ok_or(Error::NotFound("room"))?;
            let at = reader.user_room(user, nid).await?.ok_or(Error::NotFound("room"))?;
            if !matches!(at.value.membership, Membership::Leave | Membership::Ban) {
                return Err(is_in());
            }
            tx.forget_room(nid, user, &at);
            tx.log(LogEntry::Member { room: nid.0, user: user.to_owned() });
        }
        drop(reader);
        self.0.store.commit(tx).await?;
        Ok(())
    }
}

/// Whom to ask about a room: those named, or for want of them the server in the room's id.
fn or_its_own(via: &[OwnedServerName], room: &RoomId) -> Via {
    if via.is_empty() {
        return room.server_name().map(ToOwned::to_owned).into_iter().collect();
    }
    via.to_vec()
}

fn plain(membership: &str, mut said: Map<String, Value>) -> Map<String, Value> {
    said.insert("membership".to_owned(), json!(membership));
    said
}
