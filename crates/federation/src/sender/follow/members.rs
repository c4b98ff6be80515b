//! Who comes and goes: which servers are told of a user's devices, and of whom is not heard any more.

use std::collections::BTreeSet;

use chappe_store::{
    Error, EventNum, Json, Membership, Position, Reader, RoomNid,
    accounts_keys::RemoteLists,
    events::EventMetas,
    members::{RoomMembers, RoomServers},
    state::StateKey,
};
use ruma::{OwnedServerName, OwnedUserId, UserId};
use serde::Deserialize;

use super::Sender;

/// Users whose lists are doubted in one commit.
const USERS_AT_ONCE: usize = 500;
/// Rooms of a remote user that are looked at.
const ROOMS: usize = 20;

impl Sender {
    /// A membership changed, and with it perhaps which servers tell each other of a user's devices.
    pub(super) async fn follow_member(
        &self,
        nid: RoomNid,
        (event, at): (EventNum, Position),
        member: &OwnedUserId,
    ) -> Result<(), Error> {
        let reader = self.0.network.store().read();
        let joined = reader.membership(nid, member).await?.is_some_and(|(is, _)| is == Membership::Join);
        if !joined {
            return self.stop_tracking(&reader, nid, (member, at)).await;
        }
        if !has_come(&reader, nid, event, member).await? {
            return Ok(());
        }
        if member.server_name() == self.0.network.server() {
            return self.introduce_in(&reader, nid, member).await;
        }
        self.0.arrivals.note(member, self.0.network.world().instant());
        // Who was gone and is back before that was seen here may have changed devices meanwhile.
        self.doubt_unmet(nid, std::slice::from_ref(member), at).await?;
        self.send_sticky(nid, member.server_name()).await
    }

    /// A membership changed otherwise than by an event of the timeline.
    pub(super) async fn follow_resolved(
        &self,
        nid: RoomNid,
        member: &OwnedUserId,
        at: Position,
    ) -> Result<(), Error> {
        if member.server_name() != self.0.network.server() {
            return self.doubt_unmet(nid, std::slice::from_ref(member), at).await;
        }
        let reader = self.0.network.store().read();
        // Whoever only forgot the room changed nothing in it.
        let now = reader.user_room(member, nid).await?.filter(|now| now.position >= at);
        let Some(now) = now.map(|now| now.value) else { return Ok(()) };
        if now.membership != Membership::Join {
            return self.stop_tracking(&reader, nid, (member, at)).await;
        }
        let meta = match reader.event_meta(nid, now.num).await {
            // Its room was purged meanwhile.
            Err(Error::Gone) => return Ok(()),
            meta => meta?,
        };
        // An event that got its place in the timeline then has an entry of its own.
        if meta.position >= at && meta.ordinal.is_some() {
            return Ok(());
        }
        self.introduce_in(&reader, nid, member).await
    }

    /// Tells the other servers in a room of a local user.
    async fn introduce_in(&self, reader: &Reader<'_>, nid: RoomNid, member: &UserId) -> Result<(), Error> {
        let others = self.others_in(nid).await?;
        if others.is_empty() {
            return Ok(());
        }
        // While it is not known who is there, only those are introduced of whose devices somebody may have kept something.
        if reader.room_head(nid).await?.partial && !self.is_announced(member).await? {
            return Ok(());
        }
        self.introduce(member, &others).await
    }

    /// A room has all its members: servers that did not seem to be in it missed what happened to the devices of ours.
    pub(super) async fn catch_up_devices(
        &self,
        nid: RoomNid,
        missed: &[OwnedServerName],
    ) -> Result<(), Error> {
        if missed.is_empty() {
            return Ok(());
        }
        let members = self.0.network.store().read().members(nid, Membership::Join).await?;
        for (user, _) in members {
            if user.server_name() == self.0.network.server() && self.is_announced(&user).await? {
                self.introduce(&user, missed).await?;
            }
        }
        Ok(())
    }

    /// Those of some remote users with whom this server shared another room before something happened: then it heard of all
    /// that they changed, or doubts it already. One scan for each, and three look-ups for all.
    async fn met(
        &self,
        reader: &Reader<'_>,
        nid: RoomNid,
        users: &[OwnedUserId],
        at: Position,
    ) -> Result<BTreeSet<OwnedUserId>, Error> {
        let us = self.0.network.server();
        let mut shared = Vec::new();
        for user in users {
            let others = reader.remote_rooms(user, ROOMS).await?.into_iter().filter(|other| *other != nid);
            shared.extend(others.map(|other| (other, Membership::Join, user.clone())));
        }
        let rooms: BTreeSet<RoomNid> = shared.iter().map(|(room, ..)| *room).collect();
        let ours: Vec<_> = rooms.iter().map(|room| (*room, us.to_owned())).collect();
        let counts = reader.get_many::<RoomServers>(&ours).await?;
        let here = rooms.into_iter().zip(counts).filter(|(_, count)| count.is_some_and(|count| count > 0));
        let here: BTreeSet<RoomNid> = here.map(|(room, _)| room).collect();
        shared.retain(|(room, ..)| here.contains(room));
        let nums = reader.get_many::<RoomMembers>(&shared).await?;
        let joined = shared.into_iter().zip(nums);
        let joined = joined.filter_map(|((room, _, user), num)| Some((user, (room, num?))));
        let (users, joins): (Vec<OwnedUserId>, Vec<(RoomNid, EventNum)>) = joined.unzip();
        let metas = reader.get_many::<EventMetas>(&joins).await?;
        let met = users.into_iter().zip(metas);
        let met = met.filter(|(_, meta)| meta.as_ref().is_some_and(|meta| meta.position < at));
        Ok(met.map(|(user, _)| user).collect())
    }

    /// Somebody left a room: what is kept of a remote user's devices cannot be relied on any more.
    async fn stop_tracking(
        &self,
        reader: &Reader<'_>,
        nid: RoomNid,
        (member, at): (&OwnedUserId, Position),
    ) -> Result<(), Error> {
        let us = self.0.network.server();
        if member.server_name() != us {
            return self.doubt_unmet(nid, std::slice::from_ref(member), at).await;
        }
        if reader.server_joined(nid, us).await? {
            return Ok(());
        }
        self.doubt_members(nid, at).await
    }

    /// This server came into a room or is no longer there: of the devices of others in it may have been missed what changed.
    pub(super) async fn doubt_members(&self, nid: RoomNid, at: Position) -> Result<(), Error> {
        let us = self.0.network.server();
        let members = self.0.network.store().read().members(nid, Membership::Join).await?;
        let others = members.into_iter().map(|(user, _)| user).filter(|user| user.server_name() != us);
        let others: Vec<OwnedUserId> = others.collect();
        for some in others.chunks(USERS_AT_ONCE) {
            self.doubt_unmet(nid, some, at).await?;
        }
        Ok(())
    }

    /// No longer believes what is kept of the devices of remote users, those aside of whom another room told all the while.
    async fn doubt_unmet(&self, nid: RoomNid, users: &[OwnedUserId], at: Position) -> Result<(), Error> {
        let reader = self.0.network.store().read();
        let lists = reader.get_many::<RemoteLists>(users).await?;
        let believed = users.iter().zip(lists);
        let believed = believed.filter(|(_, list)| list.as_ref().is_some_and(|Json(list)| !list.stale));
        let mut doubted: Vec<OwnedUserId> = believed.map(|(user, _)| user.clone()).collect();
        let met = self.met(&reader, nid, &doubted, at).await?;
        doubted.retain(|user| !met.contains(user));
        drop(reader);
        match self.0.accounts.doubt_known(&doubted).await {
            Err(chappe_accounts::Error::Store(error)) => Err(error),
            // The log is followed again from before this.
            Err(chappe_accounts::Error::Busy) => Err(Error::Conflict),
            _ => Ok(()),
        }
    }
}

/// Whether a membership event is that of somebody who was not in the room before it.
async fn has_come(
    reader: &Reader<'_>,
    nid: RoomNid,
    event: EventNum,
    member: &UserId,
) -> Result<bool, Error> {
    let before = match reader.event_meta(nid, event).await {
        // Its room was purged meanwhile.
        Err(Error::Gone) => return Ok(false),
        meta => meta?.before,
    };
    let key = [StateKey::new("m.room.member", member)];
    let Some(before) = reader.state_at(nid, before, &key).await?.pop().flatten() else { return Ok(true) };
    let pdu = reader.pdu(nid, before).await?;
    let was = serde_json::from_str::<Was>(&pdu.json).map(|was| was.content.membership);
    Ok(!was.is_ok_and(|was| was == "join"))
}

/// As much of a membership event as is asked for.
#[derive(Deserialize)]
struct Was {
    content: WasContent,
}

#[derive(Deserialize)]
struct WasContent {
    membership: String,
}
