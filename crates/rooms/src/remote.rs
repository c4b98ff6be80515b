//! Memberships of local users in rooms of other servers: join, knock, leave; and invites of other servers' users.

mod follow;
mod handshake;
mod import;
mod insiders;

use chappe_rules::{Pdu, policy::Door};
use chappe_store::{At, Json, Membership, Tx, out_of_band::OutOfBand};
use ruma::{OwnedEventId, OwnedServerName, RoomId, UserId, room_version_rules::RoomVersionRules};
use serde_json::{Map, Value, json};

use crate::{
    Actor, Draft, Error, Invitation, PeerError, Result, Rooms, Via,
    author::By,
    desk::{Desk, Source},
    policy_server,
    receive::{Budget, Checked},
    send::{bypass_of, not_in_room},
    turn::ATTEMPTS,
};

/// Servers that are asked at most before giving up.
const MOST_SERVERS: usize = 8;

impl Rooms {
    pub(crate) async fn join_remote(
        &self,
        actor: &Actor,
        room: &RoomId,
        via: Via,
        content: Map<String, Value>,
    ) -> Result<()> {
        self.check_invited(actor, room).await?;
        let limit = std::time::Duration::from_secs(self.config().join_timeout_seconds);
        let (rooms, actor, room) = (self.clone(), actor.clone(), room.to_owned());
        // Goes on when the client hangs up: half a join would have to be done again.
        let bounded = async move {
            let work = async {
                let servers = rooms.candidates(&actor.user, &room, via).await?;
                servers.ask(|server| rooms.0.join_through(server, &actor.user, &room, &content)).await?;
                rooms.look_at_guest(&actor, &room).await
            };
            let done = Box::pin(rooms.0.world.timeout(limit, work)).await;
            // Also where the time was up just when the room had come in.
            rooms.complete_if_partial(&room).await;
            done
        };
        self.0.world.spawn("remote join", bounded).await.ok().flatten().unwrap_or(Err(Error::Unreachable))
    }

    pub(crate) async fn knock_remote(
        &self,
        actor: &Actor,
        room: &RoomId,
        via: Via,
        reason: Option<String>,
    ) -> Result<()> {
        let servers = self.candidates(&actor.user, room, via).await?;
        let content = self.0.member_content(&actor.user, "knock", reason.as_deref()).await?;
        let user = &*actor.user;
        servers.ask(|server| self.0.knock_through(server, user, room, &content)).await
    }

    /// Turns an invite down or takes a knock back. The other servers are told if one can be reached; the user is out
    /// in any case.
    pub(crate) async fn leave_remote(
        &self,
        actor: &Actor,
        room: &RoomId,
        outside: At<Json<OutOfBand>>,
        reason: Option<String>,
    ) -> Result<()> {
        if outside.value.0.kind() == Some(Membership::Leave) {
            return Ok(());
        }
        let mut content = Map::from_iter([("membership".to_owned(), json!("leave"))]);
        if let Some(reason) = reason {
            content.insert("reason".to_owned(), json!(reason));
        }
        let servers = self.candidates(&actor.user, room, Vec::new()).await?;
        let (user, content) = (&*actor.user, &content);
        let told = servers.ask(|server| self.0.leave_through(server, user, room, content)).await;
        let pdu = match told {
            Ok(pdu) => pdu,
            Err(error) => {
                tracing::info!(%room, %user, %error, "nobody could be told that the invite is turned down");
                self.0.refuse(user, room, &outside.value.0, content)?
            }
        };
        let left = OutOfBand {
            membership: "leave".to_owned(),
            event_id: pdu.event_id().to_string(),
            event: pdu.to_raw(),
            ..outside.value.0
        };
        let mut tx = Tx::new();
        tx.put_out_of_band(&actor.user, room, &left);
        self.0.store.commit(tx).await?;
        Ok(())
    }

    /// Servers that may know the room: those named and those that invited; and, for want of them, those in it, the
    /// one in its name and those that list it.
    async fn candidates(&self, user: &UserId, room: &RoomId, via: Via) -> Result<Candidates> {
        let reader = self.0.store.read();
        let (mut named, mut others) = (Vec::new(), Vec::new());
        if let Some(outside) = reader.out_of_band(user, room).await? {
            // Who invited knows of it.
            named.extend(outside.value.0.via);
        }
        named.extend(via);
        if let Some(nid) = reader.room_nid(room).await? {
            others.extend(reader.room_servers(nid).await?.into_iter().map(|(server, _)| server));
        }
        others.extend(room.server_name().map(ToOwned::to_owned));
        others.extend(self.listed_at(room));
        let mut seen = std::collections::BTreeSet::new();
        for servers in [&mut named, &mut others] {
            servers.retain(|server| server != self.server() && seen.insert(server.clone()));
            servers.truncate(MOST_SERVERS);
        }
        let nobody = named.is_empty() && others.is_empty();
        if nobody { Err(Error::NotFound("room")) } else { Ok(Candidates { named, others }) }
    }

    /// Invites another server's user: that server sees and signs the invite first.
    pub(crate) async fn invite_remote(
        &self,
        actor: &Actor,
        room: &RoomId,
        target: &UserId,
        content: Map<String, Value>,
    ) -> Result<OwnedEventId> {
        let (ours, rules, invitation) = self.draft_remote_invite(actor, room, target, content).await?;
        let signed = self.0.peers.invite(target.server_name(), room, ours.event_id(), invitation).await?;
        let signed = same_event(Pdu::parse(rules, signed.get().as_bytes()).ok(), &ours)?;
        let signed = policy_server::keep_signature(rules, &ours, signed);
        let proven = self.0.check_one(rules, signed).await?;
        let checked = Checked::from_handshake(self.server(), proven);
        let mut budget = Budget { events: 0, states: 0, fill: false };
        let mut complete = checked.complete_as(&self.0, &mut budget, Source::Here).await?;
        // Asked again: others may have been invited meanwhile.
        complete.door = (Door::Local, bypass_of(actor));
        match self.0.settle(&complete).await? {
            crate::receive::Verdict::Accepted => Ok(ours.event_id().to_owned()),
            _ => Err(Error::Forbidden("the room changed while the user was invited".to_owned())),
        }
    }

    /// The invite as the other server is to see it, and what that server is told of the room. Nothing is committed: the
    /// invite takes its place once the other server has agreed.
    async fn draft_remote_invite(
        &self,
        actor: &Actor,
        room: &RoomId,
        target: &UserId,
        content: Map<String, Value>,
    ) -> Result<(Pdu, &'static RoomVersionRules, Invitation)> {
        let now = self.0.now();
        let by = By { sender: &actor.user, bypass: bypass_of(actor), door: Door::Local };
        for _ in 0..ATTEMPTS {
            let mut desk = Desk::open(&self.0, room).await?;
            desk.now = now;
            if !desk.is_here().await? {
                return Err(not_in_room());
            }
            let unasked = match desk.author(by, Draft::member(target, content.clone())).await {
                Ok(authored) => {
                    let ours = desk.pdus(&[authored.num]).await?.pop().ok_or(Error::Retry)?;
                    let room_state = desk.introduction_for_peers(&[&actor.user]).await?;
                    let room_version = desk.head.version.clone();
                    let invitation = Invitation { room_version, event: ours.to_raw(), room_state };
                    return Ok((ours, desk.rules, invitation));
                }
                Err(Error::Unasked(unasked)) => unasked,
                Err(error) => return Err(error),
            };
            drop(desk);
            self.0.ask_policy_server(&unasked).await?;
        }
        Err(Error::Retry)
    }

    /// Remembers an invite to a room that this server is not in.
    pub(crate) async fn note_outside(&self, user: &UserId, room: &RoomId, outside: OutOfBand) -> Result<()> {
        let mut tx = Tx::new();
        tx.put_out_of_band(user, room, &outside);
        self.0.store.commit(tx).await?;
        Ok(())
    }
}

/// What came back must be the event that was sent, with signatures added at most.
pub(crate) fn same_event(came: Option<Pdu>, sent: &Pdu) -> Result<Pdu> {
    match came {
        Some(pdu) if pdu.event_id() == sent.event_id() => Ok(pdu),
        _ => Err(Error::HostilePeer("another event came back than was sent".to_owned())),
    }
}

/// Servers that may help into a room or out of it.
struct Candidates {
    /// Whom the user or the invite names.
    named: Vec<OwnedServerName>,
    /// Who is asked if none of those can be reached: a refusal of theirs stands.
    others: Vec<OwnedServerName>,
}

impl Candidates {
    async fn ask<'a, T, F>(&'a self, ask: impl Fn(&'a OwnedServerName) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        match first_that_works(&self.named, &ask).await {
            Err(Error::Unreachable) => first_that_works(&self.others, &ask).await,
            answer => answer,
        }
    }
}

/// Asks servers in turn, until one helps or says no for all of them. The refusal of one that could be reached tells more than
/// another's silence.
async fn first_that_works<'a, T, F>(
    servers: &'a [OwnedServerName],
    ask: impl Fn(&'a OwnedServerName) -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut worst = Error::Unreachable;
    for server in servers {
        match ask(server).await {
            Ok(done) => return Ok(done),
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => {
                tracing::info!(%server, %error, "server did not help");
                if weight(&error) > weight(&worst) {
                    worst = error;
                }
            }
        }
    }
    Err(worst)
}

/// Whether no other server is worth asking. What another server forbids it forbids for itself alone: it may not have heard yet
/// that the room is open, or that this server belongs to the network.
fn is_final(error: &Error) -> bool {
    match error {
        Error::Store(_)
        | Error::Retry
        | Error::Outsiders(_)
        | Error::Forbidden(_)
        | Error::UnsupportedRoomVersion(_) => true,
        Error::Peer(PeerError::Refused { errcode, .. }) => errcode == "M_INCOMPATIBLE_ROOM_VERSION",
        _ => false,
    }
}

/// How much an answer tells: one without a reason may come from a server that knows nothing of the room.
fn weight(error: &Error) -> u8 {
    match error {
        Error::Unreachable => 0,
        Error::Peer(PeerError::Refused { errcode, .. }) if errcode != "M_UNKNOWN" => 2,
        _ => 1,
    }
}
