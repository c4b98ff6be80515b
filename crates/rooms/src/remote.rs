//! Memberships of local users in rooms of other servers: join, knock, leave; and invites of other servers' users.

mod follow;
mod handshake;
mod import;
mod insiders;
mod taking_back;

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use chappe_rules::{Pdu, build::with_signatures_of, policy::Door};
use chappe_store::{At, Json, Membership, Tx, members::UserRooms, out_of_band::OutOfBand, rooms::RoomIds};
use ruma::{
    OwnedEventId, OwnedServerName, RoomId, UserId, events::StateEventType,
    room_version_rules::RoomVersionRules,
};
use serde_json::{Map, Value, json, value::RawValue};

pub(crate) use self::taking_back::Joins;
use crate::{
    Actor, Draft, Error, Invitation, PeerError, Result, Rooms, Via,
    author::By,
    desk::{Desk, Source, content_of},
    receive::{Budget, Checked},
    send::{bypass_of, not_in_room},
    turn::ATTEMPTS,
};

/// Servers of one kind that are asked at most before giving up.
pub(crate) const MOST_SERVERS: usize = 8;
/// For how long other servers are told that an invite is turned down or a knock taken back: the user waits for it.
const TELLING: Duration = Duration::from_secs(10);
/// How many servers that do not answer are asked within that.
const ASKED_IN_TIME: u32 = 3;

impl Rooms {
    /// Joins through another server: first through those that are known to be `able` to let the user in.
    pub(crate) async fn join_remote(
        &self,
        actor: &Actor,
        room: &RoomId,
        able: Vec<OwnedServerName>,
        via: Via,
        content: Map<String, Value>,
    ) -> Result<()> {
        self.check_invited(actor, room).await?;
        let limit = Duration::from_secs(self.config().join_timeout_seconds);
        let (rooms, actor, room) = (self.clone(), actor.clone(), room.to_owned());
        // Goes on when the client hangs up: half a join would have to be done again.
        let bounded = async move {
            let joining = rooms.0.joins.of(&actor.user, &room);
            let work = async {
                let _under_way = joining.under_way.read().await;
                let servers = rooms.candidates(&actor.user, &room, able, via).await?;
                let join = |server| rooms.0.join_through(server, &actor.user, &room, &content, &joining);
                servers.ask(join).await?;
                joining.came_in();
                rooms.look_at_guest(&actor, &room).await
            };
            let done = Box::pin(rooms.0.world.timeout(limit, work)).await;
            let done = done.unwrap_or(Err(Error::Unreachable));
            if let Err(error) = &done {
                rooms.end_join(error, joining, &actor.user, &room).await;
            }
            // Also where the time was up just when the room had come in.
            rooms.complete_if_partial(&room).await;
            done
        };
        self.0.world.spawn("remote join", bounded).await.unwrap_or(Err(Error::Unreachable))
    }

    pub(crate) async fn knock_remote(
        &self,
        actor: &Actor,
        room: &RoomId,
        via: Via,
        reason: Option<String>,
    ) -> Result<()> {
        let limit = Duration::from_secs(self.config().join_timeout_seconds);
        let (rooms, user, room) = (self.clone(), actor.user.clone(), room.to_owned());
        // Goes on when the client hangs up: the others may know of the knock already.
        let bounded = async move {
            let work = async {
                let servers = rooms.candidates(&user, &room, Vec::new(), via).await?;
                let content = rooms.0.member_content(&user, "knock", reason.as_deref()).await?;
                servers.ask(|server| rooms.0.knock_through(server, &user, &room, &content)).await
            };
            Box::pin(rooms.0.world.timeout(limit, work)).await.unwrap_or(Err(Error::Unreachable))
        };
        self.0.world.spawn("remote knock", bounded).await.unwrap_or(Err(Error::Unreachable))
    }

    /// Turns an invite down or takes a knock back. The other servers are told if one can be reached in time; the user is
    /// out in any case, but for [`Error::Retry`]: invited anew meanwhile, or in the room.
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
        let (rooms, user, room) = (self.clone(), actor.user.clone(), room.to_owned());
        // Goes on when the client hangs up: the invite would come back.
        let work = async move { rooms.turn_down(&user, &room, outside, reason).await };
        self.0.world.spawn("remote leave", work).await.unwrap_or(Err(Error::Retry))
    }

    async fn turn_down(
        &self,
        user: &UserId,
        room: &RoomId,
        outside: At<Json<OutOfBand>>,
        reason: Option<String>,
    ) -> Result<()> {
        let mut content = Map::from_iter([("membership".to_owned(), json!("leave"))]);
        if let Some(reason) = reason {
            content.insert("reason".to_owned(), json!(reason));
        }
        let content = &content;
        let telling = async {
            let servers = self.candidates(user, room, Vec::new(), Vec::new()).await?;
            let patience = servers.share_of(TELLING);
            servers.ask(|server| self.0.leave_through(server, user, room, content, patience)).await
        };
        let told = Box::pin(self.0.world.timeout(TELLING, telling)).await;
        let (server, made) = match told.unwrap_or(Err(Error::Unreachable)) {
            Ok(told) => told,
            Err(error) => {
                tracing::info!(%room, %user, %error, "nobody could be told that the invite is turned down");
                let leave = self.0.refuse(user, room, &outside.value.0, content)?;
                return self.put_leave(user, room, outside, &leave).await;
            }
        };
        self.put_leave(user, room, outside, &made.pdu).await?;
        let (rooms, user, room) = (self.clone(), user.to_owned(), room.to_owned());
        // The user is out by now: nobody waits for what the room here makes of it.
        drop(self.0.world.spawn("leave of a followed room", async move {
            if let Err(error) = rooms.0.follow_leave(&server, made).await {
                tracing::info!(%room, %user, %error, "the room here does not know that the user is out");
            }
        }));
        Ok(())
    }

    /// Puts the leave in place of the invite or knock, unless something else has taken that place meanwhile.
    async fn put_leave(
        &self,
        user: &UserId,
        room: &RoomId,
        mut read: At<Json<OutOfBand>>,
        leave: &Pdu,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            match self.0.end_outside(user, room, &read, leave).await {
                Err(Error::Retry) => {}
                done => return done,
            }
            match self.0.store.read().out_of_band(user, room).await? {
                Some(now) if now.value.0.kind() == Some(Membership::Leave) => return Ok(()),
                // The same invite, told once more.
                Some(now) if now.value.0 == read.value.0 => read = now,
                _ => break,
            }
        }
        Err(Error::Retry)
    }

    /// Servers that may know the room: those `able` to let the user in, those that invited and those named; and the one
    /// in its name, those that list it and those in it.
    async fn candidates(
        &self,
        user: &UserId,
        room: &RoomId,
        mut able: Vec<OwnedServerName>,
        via: Via,
    ) -> Result<Candidates> {
        let reader = self.0.store.read();
        let mut is_strict = !via.is_empty();
        let mut named = Vec::new();
        if let Some(outside) = reader.out_of_band(user, room).await? {
            // Who invited knows of it.
            named.extend(outside.value.0.via);
        }
        named.extend(via);
        let mut others: Vec<OwnedServerName> =
            room.server_name().map(ToOwned::to_owned).into_iter().collect();
        others.extend(self.listed_at(room));
        if let Some(nid) = reader.room_nid(room).await? {
            let mut servers = reader.room_servers(nid).await?;
            // Whoever is in the room itself knows better than the client who may help.
            is_strict &= !servers.iter().any(|(server, _)| server == self.server());
            servers.sort_by_key(|(_, joined)| Reverse(*joined));
            others.extend(servers.into_iter().map(|(server, _)| server));
        }
        let mut seen = BTreeSet::new();
        for servers in [&mut able, &mut named, &mut others] {
            servers.retain(|server| server != self.server() && seen.insert(server.clone()));
            servers.truncate(MOST_SERVERS);
        }
        let first = [able, named].concat();
        let groups = if is_strict { vec![first, others] } else { vec![[first, others].concat()] };
        let is_nobody = groups.iter().all(Vec::is_empty);
        if is_nobody { Err(Error::NotFound("room")) } else { Ok(Candidates(groups)) }
    }

    /// Invites another server's user: that server sees and signs the invite first.
    pub(crate) async fn invite_remote(
        &self,
        actor: &Actor,
        room: &RoomId,
        target: &UserId,
        content: Map<String, Value>,
    ) -> Result<OwnedEventId> {
        let (rooms, actor, room, target) = (self.clone(), actor.clone(), room.to_owned(), target.to_owned());
        // Goes on when the client hangs up: the other server may have shown the invite already.
        let work = async move { rooms.invite_through(&actor, &room, &target, content).await };
        self.0.world.spawn("remote invite", work).await.unwrap_or(Err(Error::Retry))
    }

    async fn invite_through(
        &self,
        actor: &Actor,
        room: &RoomId,
        target: &UserId,
        content: Map<String, Value>,
    ) -> Result<OwnedEventId> {
        let (ours, rules, invitation) = self.draft_remote_invite(actor, room, target, content).await?;
        let version = invitation.room_version.to_string();
        let signed = match self.0.peers.invite(target.server_name(), room, ours.event_id(), invitation).await
        {
            // To clients it has another name than to servers.
            Err(PeerError::Refused { errcode, .. }) if errcode == "M_INCOMPATIBLE_ROOM_VERSION" => {
                return Err(Error::UnsupportedRoomVersion(version));
            }
            answer => answer?,
        };
        let signed = same_event(rules, &signed, &ours)?;
        let proven = self.0.check_one(rules, signed).await?;
        let checked = Checked::from_handshake(self.server(), proven);
        let mut budget = Budget::default();
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
            if is_closed_to(&desk, target).await? {
                return Err(Error::Forbidden("this room is for users of one server alone".to_owned()));
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

    /// Remembers an invite to a room that this server is not in, for a user who has not come in meanwhile.
    pub(crate) async fn note_outside(&self, user: &UserId, room: &RoomId, outside: OutOfBand) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let reader = self.0.store.read();
            let mut tx = Tx::new();
            if let Some(nid) = reader.room_nid(room).await? {
                let now = reader.user_room(user, nid).await?;
                if now.as_ref().is_some_and(|now| now.value.membership == Membership::Join) {
                    return Err(Error::Forbidden("this user is in the room".to_owned()));
                }
                tx.expect::<UserRooms>(&(user.to_owned(), nid), now.as_ref());
            } else {
                tx.expect_absent::<RoomIds>(&room.to_owned());
            }
            drop(reader);
            tx.put_out_of_band(user, room, &outside);
            match self.0.store.commit(tx).await {
                Ok(_) => return Ok(()),
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Retry)
    }
}

/// Whether a room is for the users of one server alone, and `user` is of another. Authorization asks this of who sends an event;
/// Synapse also of those whom a membership is of, and would not let them in.
///
/// Specification: client-server API, `m.room.create`, `m.federate`.
async fn is_closed_to(desk: &Desk<'_>, user: &UserId) -> Result<bool> {
    let Some(create) = desk.current(StateEventType::RoomCreate, "").await? else { return Ok(false) };
    let is_alone = content_of(&create).get("m.federate") == Some(&Value::Bool(false));
    Ok(is_alone && create.sender().server_name() != user.server_name())
}

/// What came back must be the event that was sent; of that, the signatures are taken.
pub(crate) fn same_event(rules: &RoomVersionRules, came: &RawValue, sent: &Pdu) -> Result<Pdu> {
    match Pdu::parse(rules, came.get().as_bytes()) {
        Ok(came) if came.event_id() == sent.event_id() => {
            with_signatures_of(rules, sent, &came).map_err(|error| Error::HostilePeer(error.to_string()))
        }
        _ => Err(Error::HostilePeer("another event came back than was sent".to_owned())),
    }
}

/// Servers that may help into a room or out of it, in groups: the next one is asked if nobody of the one before can be
/// reached. Where this server is not in the room, the word of those whom the client names stands.
struct Candidates(Vec<Vec<OwnedServerName>>);

impl Candidates {
    /// For how long one of them may be silent, so that the next ones are asked as well.
    fn share_of(&self, time: Duration) -> Duration {
        let asked = self.0.iter().flatten().zip(1..=ASKED_IN_TIME).map(|(_, count)| count).max();
        time / asked.unwrap_or(1)
    }

    async fn ask<'a, T, F>(&'a self, ask: impl Fn(&'a OwnedServerName) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        for servers in &self.0 {
            match first_that_works(servers, &ask).await {
                Err(Error::Unreachable) => {}
                answer => return answer,
            }
        }
        Err(Error::Unreachable)
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
