//! The asking halves of the handshakes: a template is a hint, the event is always made afresh.

use std::time::Duration;

use chappe_rules::{
    Pdu,
    build::{self, Offer},
    version::known,
};
use chappe_store::{
    At, Json, Membership, Tx,
    out_of_band::{OutOfBand, OutOfBands},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedServerName, RoomId, RoomVersionId, UserId,
    canonical_json::try_from_json_map, events::TimelineEventType, room_version_rules::RoomVersionRules,
};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{same_event, taking_back::Joining};
use crate::{Error, Extent, Inner, PeerError, Result, Template, desk::rules_of, turn::ATTEMPTS};

/// A membership event made from a peer's template.
pub(super) struct Made {
    pub(super) pdu: Pdu,
    pub(super) version: RoomVersionId,
    pub(super) rules: &'static RoomVersionRules,
}

/// What a template says that it is.
#[derive(Deserialize)]
struct Offered {
    #[serde(rename = "type")]
    kind: Option<String>,
    room_id: Option<String>,
    sender: Option<String>,
    state_key: Option<String>,
    content: Option<Said>,
}

#[derive(Deserialize)]
struct Said {
    membership: Option<String>,
}

/// Refuses the template of another event than was asked for, and one that does not say of which it is.
///
/// Specification: server-server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms (Rejecting Invites)".
fn check_offered(
    template: &RawValue,
    (user, room): (&UserId, &RoomId),
    membership: Option<&str>,
) -> Result<()> {
    let offered: Offered = serde_json::from_str(template.get())
        .map_err(|_| Error::HostilePeer("the template that was offered cannot be read".to_owned()))?;
    let said = offered.content.and_then(|content| content.membership);
    let is_meant = [
        (offered.kind.as_deref(), Some("m.room.member")),
        (offered.room_id.as_deref(), Some(room.as_str())),
        (offered.sender.as_deref(), Some(user.as_str())),
        (offered.state_key.as_deref(), Some(user.as_str())),
        (said.as_deref(), membership),
    ];
    if is_meant.iter().all(|(offered, asked)| offered == asked) {
        return Ok(());
    }
    Err(Error::HostilePeer("the template that was offered is of another event".to_owned()))
}

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
        joining: &Joining,
    ) -> Result<()> {
        match self.try_join_through(server, user, room, content, joining).await {
            // What the room is to this server changed while the answer came.
            Err(Error::Retry) => self.try_join_through(server, user, room, content, joining).await,
            done => done,
        }
    }

    async fn try_join_through(
        &self,
        server: &OwnedServerName,
        user: &UserId,
        room: &RoomId,
        content: &Map<String, Value>,
        joining: &Joining,
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
        self.note_sent(server, user, room).await?;
        let answer = self.peers.send_join(server, room, pdu.event_id(), pdu.to_raw(), extent).await;
        if matches!(answer, Err(PeerError::Refused { .. })) {
            joining.refused_by(server);
        }
        let answer = answer?;
        let join = match &answer.event {
            Some(raw) => same_event(rules, raw, &pdu)?,
            None => pdu.clone(),
        };
        // The answer took its time: what the room is to this server is asked again.
        if self.is_followed_room(room).await?
            && self.follow_join(server, &version, join.clone(), joining).await?
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
        let done = comes_in || self.follow_join(server, &version, join, joining).await?;
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

    pub(super) async fn knock_through(
        &self,
        server: &OwnedServerName,
        user: &UserId,
        room: &RoomId,
        content: &Map<String, Value>,
    ) -> Result<()> {
        let template = self.peers.make_knock(server, room, user, &known()).await?;
        let made = self.make_member(&template, user, room, content)?;
        let before = self.store.read().out_of_band(user, room).await?;
        let state = self.peers.send_knock(server, room, made.pdu.event_id(), made.pdu.to_raw()).await?;
        let knock = OutOfBand {
            membership: "knock".to_owned(),
            event: made.pdu.to_raw(),
            event_id: made.pdu.event_id().to_string(),
            state: Vec::new(),
            version: Some(made.version.to_string()),
            via: vec![server.clone()],
            number: None,
        };
        self.note_knock(user, room, &knock, before.as_ref()).await?;
        let state = self.told_at_knock(made.rules, room, &state).await;
        let knock = OutOfBand { state, ..knock };
        // Looking for keys took its time: what has become of the knock meanwhile stays.
        match self.store.read().out_of_band(user, room).await? {
            Some(now) if now.value.0 == knock && !knock.state.is_empty() => {
                let mut tx = Tx::new();
                tx.expect_out_of_band(user, room, &now).put_out_of_band(user, room, &knock);
                match self.store.commit(tx).await {
                    Ok(_) | Err(chappe_store::Error::Conflict) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Remembers a knock that was sent, unless it was answered with an invite already.
    async fn note_knock(
        &self,
        user: &UserId,
        room: &RoomId,
        knock: &OutOfBand,
        before: Option<&At<Json<OutOfBand>>>,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let now = self.store.read().out_of_band(user, room).await?;
            let is_invite = now.as_ref().is_some_and(|now| now.value.0.kind() == Some(Membership::Invite));
            if is_invite && now.as_ref() != before {
                return Ok(());
            }
            let mut tx = Tx::new();
            tx.expect::<OutOfBands>(&(user.to_owned(), room.to_owned()), now.as_ref());
            tx.put_out_of_band(user, room, knock);
            match self.store.commit(tx).await {
                Ok(_) => return Ok(()),
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Retry)
    }

    /// Leaves through a server that offers a template within `patience`. Whoever was sent the leave is waited for: made once more
    /// through another server, it could end what came after the first one. Gives that server, and the leave.
    pub(super) async fn leave_through(
        &self,
        server: &OwnedServerName,
        user: &UserId,
        room: &RoomId,
        content: &Map<String, Value>,
        patience: Duration,
    ) -> Result<(OwnedServerName, Made)> {
        let template = self.world.timeout(patience, self.peers.make_leave(server, room, user)).await;
        let template = template.ok_or(Error::Unreachable)??;
        let made = self.make_member(&template, user, room, content)?;
        self.peers.send_leave(server, room, made.pdu.event_id(), made.pdu.to_raw()).await?;
        Ok((server.clone(), made))
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
        let membership = content.get("membership").and_then(Value::as_str);
        check_offered(&template.event, (user, room), membership)?;
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
