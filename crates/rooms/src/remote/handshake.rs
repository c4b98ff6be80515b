//! The asking halves of the handshakes: a template is a hint, the event is always made afresh.

use std::time::Duration;

use chappe_rules::{
    Pdu,
    build::{self, Offer},
    version::known,
};
use chappe_store::out_of_band::OutOfBand;
use parking_lot::Mutex;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedServerName, RoomId, RoomVersionId, UserId,
    canonical_json::try_from_json_map, events::TimelineEventType, room_version_rules::RoomVersionRules,
};
use serde_json::{Map, Value, json};

use super::{TELLING, same_event};
use crate::{Error, Extent, Inner, Result, Template, desk::rules_of};

/// A membership event made from a peer's template.
pub(super) struct Made {
    pub(super) pdu: Pdu,
    pub(super) version: RoomVersionId,
    pub(super) rules: &'static RoomVersionRules,
}

/// The last server that has accepted a join, or that was sent one and has not answered yet.
pub(super) type Accepted = Mutex<Option<OwnedServerName>>;

/// The version that a peer says a room has must be the one that it has here: made by other rules, the same event has another
/// id, and other signatures count.
pub(super) fn check_version(said: &RoomVersionId, known: &RoomVersionId) -> Result<()> {
    if said == known {
        return Ok(());
    }
    Err(Error::HostilePeer("the room has another version than was said".to_owned()))
}

impl Inner {
    pub(super) async fn join_through(
        &self,
        server: &OwnedServerName,
        user: &UserId,
        room: &RoomId,
        content: &Map<String, Value>,
        accepted: &Accepted,
    ) -> Result<()> {
        match self.try_join_through(server, user, room, content, accepted).await {
            // What the room is to this server changed while the answer came.
            Err(Error::Retry) => self.try_join_through(server, user, room, content, accepted).await,
            done => done,
        }
    }

    async fn try_join_through(
        &self,
        server: &OwnedServerName,
        user: &UserId,
        room: &RoomId,
        content: &Map<String, Value>,
        accepted: &Accepted,
    ) -> Result<()> {
        let template = self.peers.make_join(server, room, user, &known()).await?;
        let Made { pdu, version, rules } = self.make_member(&template, user, room, content)?;
        let here = self.known_version(room).await?;
        if let Some(here) = &here {
            check_version(&version, here)?;
        }
        // Of a room that is followed already the state is not needed at all. One that was left comes in with all members:
        // it may have been left before they came, and what is here of it rests on that.
        let is_new = here.is_none();
        let followed = !is_new && self.is_followed_room(room).await?;
        let partial = self.config().partial_joins && (followed || is_new);
        let extent = if partial { Extent::WithoutMembers } else { Extent::Whole };
        // Where the time is up before the whole answer is there, it may have been accepted.
        let before = accepted.lock().replace(server.clone());
        let answer = self.peers.send_join(server, room, pdu.event_id(), pdu.to_raw(), extent).await;
        if answer.is_err() {
            *accepted.lock() = before;
        }
        let answer = answer?;
        let signed = answer.event.as_deref().and_then(|raw| Pdu::parse(rules, raw.get().as_bytes()).ok());
        let join = if answer.event.is_some() { same_event(signed, &pdu)? } else { pdu.clone() };
        // The answer took its time: what the room is to this server is asked again.
        if self.is_followed_room(room).await?
            && self.follow_join(server, &version, join.clone(), accepted).await?
        {
            return Ok(());
        }
        if answer.members_omitted && !partial {
            return Err(Error::HostilePeer("memberships were left out, which was not asked for".to_owned()));
        }
        if answer.members_omitted && followed {
            return Err(Error::Retry);
        }
        let comes_in = self.import_join(server, &version, rules, pdu, answer).await?;
        let done = comes_in || self.follow_join(server, &version, join, accepted).await?;
        if done { Ok(()) } else { Err(Error::Retry) }
    }

    /// The version of a room that this server knows.
    async fn known_version(&self, room: &RoomId) -> Result<Option<RoomVersionId>> {
        let reader = self.store.read();
        match reader.room_nid(room).await? {
            Some(nid) => Ok(Some(reader.room_head(nid).await?.version)),
            None => Ok(None),
        }
    }

    /// Has a user leave a room that does not come in: the others believe that the user is in.
    pub(super) async fn take_back_join(&self, accepted: &Accepted, user: &UserId, room: &RoomId) {
        let server = accepted.lock().take();
        let Some(server) = server else { return };
        if self.seems_joined(room, user).await.unwrap_or_default() {
            return;
        }
        let content = Map::from_iter([("membership".to_owned(), json!("leave"))]);
        if let Err(error) = self.leave_through(&server, user, room, &content, TELLING).await {
            tracing::warn!(%room, %user, %error, "a room that is not entered could not be left at once");
        }
    }

    pub(super) async fn knock_through(
        &self,
        server: &OwnedServerName,
        user: &UserId,
        room: &RoomId,
        content: &Map<String, Value>,
    ) -> Result<()> {
        let template = self.peers.make_knock(server, room, user, &known()).await?;
        let made = self.make_member(&template, user, room, content)?;
        let state = self.peers.send_knock(server, room, made.pdu.event_id(), made.pdu.to_raw()).await?;
        let outside = OutOfBand {
            membership: "knock".to_owned(),
            event: made.pdu.to_raw(),
            event_id: made.pdu.event_id().to_string(),
            state: self.told_at_knock(made.rules, room, &state).await,
            version: Some(made.version.to_string()),
            via: vec![server.clone()],
            number: None,
        };
        let mut tx = chappe_store::Tx::new();
        tx.put_out_of_band(user, room, &outside);
        self.store.commit(tx).await?;
        Ok(())
    }

    /// Leaves through a server that offers a template within `patience`. Whoever was sent the leave is waited for: made once more
    /// through another server, it could end what came after the first one.
    pub(super) async fn leave_through(
        &self,
        server: &OwnedServerName,
        user: &UserId,
        room: &RoomId,
        content: &Map<String, Value>,
        patience: Duration,
    ) -> Result<Pdu> {
        let template = self.world.timeout(patience, self.peers.make_leave(server, room, user)).await;
        let template = template.ok_or(Error::Unreachable)??;
        let made = self.make_member(&template, user, room, content)?;
        self.peers.send_leave(server, room, made.pdu.event_id(), made.pdu.to_raw()).await?;
        Ok(made.pdu)
    }

    /// The leave of a user whose invite or knock nobody could be told about: it follows that and goes nowhere.
    pub(super) fn refuse(
        &self,
        user: &UserId,
        room: &RoomId,
        outside: &OutOfBand,
        content: &Map<String, Value>,
    ) -> Result<Pdu> {
        let version = outside.version.as_deref().unwrap_or("1");
        let version = RoomVersionId::try_from(version)
            .map_err(|_| Error::UnsupportedRoomVersion(version.to_owned()))?;
        let rules = rules_of(&version)?;
        let corrupt = || Error::Store(chappe_store::Error::Corrupt("out-of-band membership"));
        let id = EventId::parse(&outside.event_id).map_err(|_| corrupt())?;
        let before = Pdu::restore(rules, id, outside.event.get()).map_err(|_| corrupt())?;
        let last = build::Reference::to(rules, &before);
        let content =
            try_from_json_map(content.clone()).map_err(|error| Error::BadJson(error.to_string()))?;
        let draft = build::Draft::state(TimelineEventType::RoomMember, user.as_str(), content);
        let place = build::Place {
            rules,
            room_id: Some(room),
            sender: user,
            prev_events: std::slice::from_ref(&last),
            auth_events: std::slice::from_ref(&last),
            depth: before.depth() + 1,
            origin_server_ts: self.now(),
        };
        build::build(&place, draft, &self.server, &self.key)
            .map_err(|error| Error::BadJson(error.to_string()))
    }

    /// Makes our own event: of the template only its place and, for a restricted join, who authorises it.
    pub(super) fn make_member(
        &self,
        template: &Template,
        user: &UserId,
        room: &RoomId,
        content: &Map<String, Value>,
    ) -> Result<Made> {
        let version = template.room_version.clone().unwrap_or(RoomVersionId::V1);
        let rules = rules_of(&version)?;
        let hostile = |error: chappe_rules::Error| Error::HostilePeer(error.to_string());
        let offer = Offer::read(rules, &template.event).map_err(hostile)?;
        let mut content: CanonicalJsonObject =
            try_from_json_map(content.clone()).map_err(|error| Error::BadJson(error.to_string()))?;
        let joins = content.get("membership").and_then(|m| m.as_str()) == Some("join");
        if let Some(by) = offer.authorised_by.as_ref().filter(|_| joins) {
            let by = CanonicalJsonValue::String(by.to_string());
            content.insert("join_authorised_via_users_server".to_owned(), by);
        }
        let draft = build::Draft::state(TimelineEventType::RoomMember, user.as_str(), content);
        let place = offer.place(rules, room, user, self.now());
        let pdu = build::build(&place, draft, &self.server, &self.key).map_err(hostile)?;
        Ok(Made { pdu, version, rules })
    }
}
