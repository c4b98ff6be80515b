//! `make_join`, `make_leave`, `make_knock`: templates of memberships for users of other servers.

use chappe_rules::{
    auth::allowed_by_state,
    build::{self, Place},
    policy::{Bypass, Door},
};
use chappe_store::EventNum;
use ruma::{RoomId, RoomVersionId, ServerName, UserId};
use serde_json::{Map, json, value::to_raw_value};

use crate::{
    Draft, Error, Result, Rooms, Template,
    author::{By, Prepared, refusal},
    desk::Desk,
    receive::allowed_by_acl,
};

impl Rooms {
    /// `make_join`: a template for `user` of `origin`, whose server knows `versions`.
    pub async fn make_join(
        &self,
        origin: &ServerName,
        room: &RoomId,
        user: &UserId,
        versions: &[RoomVersionId],
    ) -> Result<Template> {
        let desk = self.open_to_enter(origin, room, user).await?;
        if !versions.contains(&desk.head.version) {
            return Err(Error::IncompatibleRoomVersion(desk.head.version.clone()));
        }
        let mut content = Map::from_iter([("membership".to_owned(), json!("join"))]);
        if let Some(by) = self.authorise_join(user, room).await? {
            content.insert("join_authorised_via_users_server".to_owned(), json!(by));
        }
        desk.offer(user, Draft::member(user, content)).await
    }

    /// `make_leave`: for a user who is joined, invited or knocking.
    pub async fn make_leave(&self, origin: &ServerName, room: &RoomId, user: &UserId) -> Result<Template> {
        let desk = self.open_for(origin, room, user).await?;
        let content = Map::from_iter([("membership".to_owned(), json!("leave"))]);
        desk.offer(user, Draft::member(user, content)).await
    }

    /// `make_knock`: a template for `user` of `origin`, whose server knows `versions`.
    pub async fn make_knock(
        &self,
        origin: &ServerName,
        room: &RoomId,
        user: &UserId,
        versions: &[RoomVersionId],
    ) -> Result<Template> {
        let desk = self.open_to_enter(origin, room, user).await?;
        if !versions.contains(&desk.head.version) {
            return Err(Error::IncompatibleRoomVersion(desk.head.version.clone()));
        }
        let content = Map::from_iter([("membership".to_owned(), json!("knock"))]);
        desk.offer(user, Draft::member(user, content)).await
    }

    /// As [`Rooms::open_for`]; not while this server does not know who is in the room and who is banned.
    async fn open_to_enter(&self, origin: &ServerName, room: &RoomId, user: &UserId) -> Result<Desk<'_>> {
        let desk = self.open_for(origin, room, user).await?;
        if desk.head.partial { Err(Error::NotFound("room")) } else { Ok(desk) }
    }

    /// A room that this server is in, for a server that asks on behalf of its own user.
    async fn open_for(&self, origin: &ServerName, room: &RoomId, user: &UserId) -> Result<Desk<'_>> {
        if user.server_name() != origin {
            return Err(Error::Forbidden("the user is not of your server".to_owned()));
        }
        let desk = Desk::open(&self.0, room).await?;
        if !desk.is_here().await? {
            return Err(Error::NotFound("room"));
        }
        allowed_by_acl(&desk, origin).await?;
        Ok(desk)
    }
}

impl Desk<'_> {
    /// The template of a draft that the rules and the policy would let in.
    async fn offer(&self, user: &UserId, draft: Draft) -> Result<Template> {
        let by = By { sender: user, bypass: Bypass::None, door: Door::Offer };
        let Prepared { draft, auth_keys, held, access, .. } = self.prepare(by, draft).await?;
        let (prev_events, _) = self.heads().await?;
        let auth: Vec<EventNum> = auth_keys.iter().filter_map(|key| held.num(key)).collect();
        let auth_events = self.references(&auth).await?;
        let place = Place {
            rules: self.rules,
            room_id: Some(&self.room_id),
            sender: user,
            prev_events: &prev_events,
            auth_events: &auth_events,
            depth: self.head.depth + 1,
            origin_server_ts: self.inner.now(),
        };
        // Judged as if it were signed already; this event never leaves the function.
        let trial =
            build::build(&place, draft.clone(), &self.inner.server, &self.inner.key).map_err(refusal)?;
        allowed_by_state(self.rules, &trial, |kind, key| held.get(kind, key)).map_err(refusal)?;
        self.ask_access(by, &draft, &held, access.as_deref()).await?;
        let mut event = build::template(&place, draft);
        // Who offers it, as the specification wants it; whoever signs puts in its own name, or none.
        event.insert("origin".to_owned(), self.inner.server.as_str().into());
        let event = to_raw_value(&event).map_err(|e| Error::BadJson(e.to_string()))?;
        Ok(Template { room_version: Some(self.head.version.clone()), event })
    }
}
