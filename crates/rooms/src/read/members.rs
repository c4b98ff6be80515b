//! `/members` and `/joined_members`.

use std::collections::BTreeMap;

use chappe_rules::{client::Form, visibility::membership};
use chappe_store::{EventNum, Membership, StateRef};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Actor, Error, Result, Rooms,
    read::{
        token::sync_position,
        view::{Event, View},
    },
    visible::Access,
};

/// Which members are asked for.
#[derive(Clone, Debug, Default)]
pub struct MembersRequest<'a> {
    /// As of this token; none: now, or when the user left.
    pub at: Option<&'a str>,
    /// Only this membership.
    pub membership: Option<MembershipState>,
    /// Not this membership.
    pub not_membership: Option<MembershipState>,
}

/// A joined member's profile in a room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Profile {
    /// `displayname`.
    #[serde(rename = "displayname", default, deserialize_with = "lenient")]
    pub display_name: Option<String>,
    /// `avatar_url`.
    #[serde(default, deserialize_with = "lenient")]
    pub avatar_url: Option<String>,
}

fn lenient<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(value.as_str().map(str::to_owned))
}

impl Rooms {
    /// `GET /rooms/{roomId}/members`: member events.
    pub async fn members(
        &self,
        actor: &Actor,
        room: &RoomId,
        request: &MembersRequest<'_>,
    ) -> Result<Vec<Box<RawValue>>> {
        let (view, access) = self.whole_view(actor, room).await?;
        let newest = access.state(view.head.state);
        let at = match request.at {
            Some(token) => view.state_before(&actor.user, token, access).await?,
            None => newest,
        };
        // Whoever left was in the room until then.
        let veil = (at != newest).then_some((&*actor.user, at));
        let nums = view.member_nums(at, request.membership.as_ref()).await?;
        let is_wanted = |event: &Event| {
            let is = membership(Some(&event.pdu));
            request.membership.as_ref().is_none_or(|wanted| is == *wanted)
                && request.not_membership.as_ref().is_none_or(|unwanted| is != *unwanted)
        };
        let render =
            |event: Event| is_wanted(&event).then(|| view.render_one(&event, Form::Full)).transpose();
        view.load_each(&nums, veil, render).await
    }

    /// `GET /rooms/{roomId}/joined_members`: for members alone.
    pub async fn joined_members(
        &self,
        actor: &Actor,
        room: &RoomId,
    ) -> Result<BTreeMap<OwnedUserId, Profile>> {
        let (view, access) = self.whole_view(actor, room).await?;
        if access != Access::Joined {
            return Err(Error::Forbidden("you are not a member of this room".to_owned()));
        }
        let members = view.reader.members(view.nid, Membership::Join).await?;
        let nums: Vec<EventNum> = members.iter().map(|(_, num)| *num).collect();
        let profile = |event: Event| Ok(Some(event.pdu.content_as::<Profile>().unwrap_or_default()));
        let profiles = view.load_each(&nums, None, profile).await?;
        Ok(members.into_iter().map(|(user, _)| user).zip(profiles).collect())
    }

    /// `GET /joined_rooms`: the rooms a user is joined to.
    pub async fn joined_rooms(&self, user: &UserId) -> Result<Vec<OwnedRoomId>> {
        let reader = self.0.store.read();
        let mut rooms = Vec::new();
        for (nid, at) in reader.user_rooms(user).await? {
            if at.value.membership == Membership::Join {
                rooms.push(reader.room_id(nid).await?);
            }
        }
        Ok(rooms)
    }
}

fn no_history() -> Error {
    Error::Forbidden("you may not see what the room was like then".to_owned())
}

impl View<'_> {
    /// The state just before the place a token stands for, no later and no earlier than the user may see.
    async fn state_before(&self, user: &UserId, token: &str, access: Access) -> Result<StateRef> {
        let place = self.place(token).await?.0;
        if place >= access.end().min(self.head.next_live) {
            return Ok(access.state(self.head.state));
        }
        if let Some(before) = self.reader.timeline_back(self.nid, place, 1).await?.first() {
            let event = self.load_one(before.num).await?;
            let after = event.meta.after;
            if !self.visible_or_untold(user, vec![event]).await?.is_empty() {
                return Ok(self.state_noted(token).await?.unwrap_or(after));
            }
            // Before their time here; this is where it began, as far as is known.
            let (_, own) = self.reader.membership(self.nid, user).await?.ok_or_else(no_history)?;
            return Ok(self.reader.event_meta(self.nid, own).await?.after);
        }
        // At the very beginning: a room made here has nobody before its creator's join, one joined elsewhere has.
        let first = self.reader.timeline_forward(self.nid, place, 2).await?;
        let nums: Vec<EventNum> = first.iter().map(|row| row.num).collect();
        let metas = self.reader.event_metas(self.nid, &nums).await?;
        let seen = self.visible_or_untold(user, self.load(&nums).await?).await?;
        if seen.is_empty() {
            return Err(no_history());
        }
        let before = metas.first().ok_or(Error::NotFound("event at this token"))?.before;
        let joined = metas.last().map_or(before, |creator| creator.after);
        Ok(if before == StateRef::EMPTY { joined } else { before })
    }

    /// The state that was the current one at a sync token: the event before its place may have come by a fork, and tell of
    /// another. `None` where that was not noted, and where members were missing then.
    async fn state_noted(&self, token: &str) -> Result<Option<StateRef>> {
        let position = sync_position(token).filter(|position| self.head.whole_at() <= *position);
        let Some(position) = position else { return Ok(None) };
        Ok(self.reader.state_as_of(self.nid, position).await?)
    }

    async fn member_nums(&self, at: StateRef, wanted: Option<&MembershipState>) -> Result<Vec<EventNum>> {
        let wanted = wanted.and_then(|wanted| Membership::parse(wanted.as_str()));
        if let Some(wanted) = wanted.filter(|_| at == self.head.state) {
            let members = self.reader.members(self.nid, wanted).await?;
            return Ok(members.into_iter().map(|(_, num)| num).collect());
        }
        let members = self.reader.state_of_type(self.nid, at, "m.room.member").await?;
        Ok(members.into_iter().map(|(_, num)| num).collect())
    }
}
