//! What administrators ask of rooms, whether they are in them or not.

mod blocks;
mod evict;
pub(crate) mod heads;
mod history;
mod listing;
mod power;
mod purge;

use std::collections::BTreeSet;

use chappe_rules::client::Form;
use chappe_store::{
    Membership, RoomNid,
    members::{RoomMembers, RoomServers, UserRooms},
};
use ruma::{EventId, OwnedEventId, OwnedMxcUri, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Value, value::RawValue};

pub(crate) use self::blocks::refusal as blocked;
pub use self::{
    blocks::Block,
    evict::{Evicted, Replacement},
    heads::Head,
    listing::{Listed, RoomOrder, RoomPage, RoomQuery},
    purge::Force,
};
use crate::{Error, Result, Rooms};

/// Rooms or events looked at in one round trip.
const PAGE: usize = 500;
/// Where events name media.
const MEDIA: [&str; 5] =
    ["/url", "/info/thumbnail_url", "/file/url", "/info/thumbnail_file/url", "/avatar_url"];
/// What somebody says, in the widest sense.
const SAID: [&str; 4] = ["m.room.message", "m.room.encrypted", "m.room.member", "m.sticker"];

impl Rooms {
    /// A user's part in every room that this server knows, forgotten rooms included; for users of any server.
    pub async fn memberships(&self, user: &UserId) -> Result<Vec<(OwnedRoomId, Membership)>> {
        let reader = self.0.store.read();
        let mut found = Vec::new();
        if user.server_name() == self.0.server {
            for ((_, nid), at) in reader.scan_all::<UserRooms>(&user.to_owned()).await? {
                found.push((reader.room_id(nid).await?, at.value.membership));
            }
            return Ok(found);
        }
        let mut after = RoomNid(0);
        loop {
            let nids = reader.rooms_after(after, PAGE).await?;
            let Some(last) = nids.last() else { return Ok(found) };
            after = *last;
            let key = |nid: &RoomNid| Membership::ALL.map(|is| (*nid, is, user.to_owned()));
            let keys: Vec<(RoomNid, Membership, OwnedUserId)> = nids.iter().flat_map(key).collect();
            let rows = reader.get_many::<RoomMembers>(&keys).await?;
            for ((nid, membership, _), row) in keys.into_iter().zip(rows) {
                if row.is_some() {
                    found.push((reader.room_id(nid).await?, membership));
                }
            }
        }
    }

    /// The rooms in which a server has joined users.
    pub async fn shared_with(&self, server: &ServerName) -> Result<Vec<OwnedRoomId>> {
        let reader = self.0.store.read();
        let (mut found, mut after) = (Vec::new(), RoomNid(0));
        loop {
            let nids = reader.rooms_after(after, PAGE).await?;
            let Some(last) = nids.last() else { return Ok(found) };
            after = *last;
            let keys: Vec<_> = nids.into_iter().map(|nid| (nid, server.to_owned())).collect();
            let counts = reader.get_many::<RoomServers>(&keys).await?;
            for ((nid, _), count) in keys.into_iter().zip(counts) {
                if count.is_some_and(|count| count > 0) {
                    found.push(reader.room_id(nid).await?);
                }
            }
        }
    }

    /// The joined users of a room.
    pub async fn all_joined(&self, room: &RoomId) -> Result<Vec<OwnedUserId>> {
        let view = self.view(room).await?;
        let members = view.reader.members(view.nid, Membership::Join).await?;
        Ok(members.into_iter().map(|(user, _)| user).collect())
    }

    /// The newest messages and memberships that somebody sent to a room and that are not redacted, up to `limit`.
    pub async fn said_by(&self, room: &RoomId, user: &UserId, limit: usize) -> Result<Vec<OwnedEventId>> {
        let view = self.view(room).await?;
        let (mut found, mut before) = (Vec::new(), view.head.next_live);
        while found.len() < limit {
            let rows = view.reader.timeline_back(view.nid, before, PAGE).await?;
            let Some(last) = rows.last() else { break };
            before = last.ordinal;
            let nums: Vec<_> = rows.iter().map(|row| row.num).collect();
            let said = view.load_once(&nums).await?.into_iter().filter(|event| {
                event.pdu.sender() == user
                    && !event.is_redacted()
                    && SAID.contains(&event.pdu.kind().to_string().as_str())
            });
            found.extend(said.map(|event| event.pdu.event_id().to_owned()));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Whether every user of this server who was in a room has left and forgotten it.
    pub async fn is_forgotten(&self, room: &RoomId) -> Result<bool> {
        if !self.locals_in(room).await?.is_empty() {
            return Ok(false);
        }
        let view = self.view(room).await?;
        for is in [Membership::Leave, Membership::Ban] {
            for (user, _) in view.reader.members(view.nid, is).await? {
                let ours = user.server_name() == self.0.server;
                if ours && view.reader.forgotten(&user, view.nid).await?.is_none() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// An event of whichever room, as administrators see it.
    pub async fn any_event(&self, event: &EventId) -> Result<Option<Box<RawValue>>> {
        let Some((nid, num)) = self.0.store.read().event_address(event).await? else { return Ok(None) };
        let view = self.view_of(nid).await?;
        match view.load_one(num).await {
            Ok(event) if view.has_expired(&event) => Ok(None),
            Ok(event) => Ok(view.render_state(&[event], Form::Full)?.pop()),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The addresses of media that the events of a room name, as far as they are not encrypted.
    pub async fn media_in(&self, room: &RoomId) -> Result<BTreeSet<OwnedMxcUri>> {
        let view = self.view(room).await?;
        let (mut found, mut before) = (BTreeSet::new(), view.head.next_live);
        loop {
            let rows = view.reader.timeline_back(view.nid, before, PAGE).await?;
            let Some(last) = rows.last() else { return Ok(found) };
            before = last.ordinal;
            let nums: Vec<_> = rows.iter().map(|row| row.num).collect();
            for event in view.load_once(&nums).await? {
                let content: Value = serde_json::from_str(event.pdu.content().get()).unwrap_or_default();
                let named = MEDIA.iter().filter_map(|place| content.pointer(place)?.as_str());
                let named = named.map(OwnedMxcUri::from).filter(|address| address.is_valid());
                found.extend(named);
            }
        }
    }

    /// Users of this server with a membership in a room that is neither `leave` nor `ban`.
    pub(crate) async fn locals_in(&self, room: &RoomId) -> Result<Vec<(OwnedUserId, Membership)>> {
        let view = self.view(room).await?;
        let mut locals = Vec::new();
        for is in [Membership::Join, Membership::Invite, Membership::Knock] {
            let members = view.reader.members(view.nid, is).await?.into_iter();
            let ours = members.filter(|(user, _)| user.server_name() == self.0.server);
            locals.extend(ours.map(|(user, _)| (user, is)));
        }
        Ok(locals)
    }
}
