//! What a room tells of itself to those who are not in it.

use std::sync::Arc;

use chappe_rules::Pdu;
use chappe_store::{Membership, RoomNid, StateRef, state::StateKey};
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, UserId,
    events::room::member::MembershipState,
    room::{JoinRuleKind, RoomSummary},
};
use serde_json::{Map, Value, json};

use crate::{
    Error, Inner, Result, Rooms,
    desk::Desk,
    read::view::{Event, View},
};

/// A room in a few words.
#[derive(Clone, Debug)]
pub struct Summary {
    /// As clients and servers get it.
    pub room: RoomSummary,
    /// Rooms whose members may join, if it is restricted.
    pub allowed: Vec<OwnedRoomId>,
    /// Whether users of other servers may enter at all.
    pub federated: bool,
}

/// How long after a redaction summaries are not kept, in milliseconds: by then it is committed, and nobody looks at the room
/// as it was before.
pub(super) const UNSETTLED_MS: u64 = 10 * 60 * 1_000;

/// The state a summary is made of; the order is that of `Parts`.
const PARTS: [&str; 9] = [
    "m.room.create",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.encryption",
];

impl Rooms {
    /// `GET /room_summary/{room}`: for those who may know of the room; [`Error::NotFound`] for others. With the asking
    /// user's membership, if there is one.
    pub async fn room_summary(
        &self,
        user: Option<&UserId>,
        room: &RoomId,
        via: &[OwnedServerName],
    ) -> Result<(RoomSummary, Option<MembershipState>)> {
        if let Some(view) = self.resident_view(room).await? {
            let summary = view.summary().await?;
            if !view.may_know(user, &summary).await? {
                return Err(Error::NotFound("room"));
            }
            let membership = match user {
                Some(user) => view.reader.membership(view.nid, user).await?,
                None => None,
            };
            let membership = membership.map(|(membership, _)| MembershipState::from(membership.as_str()));
            return Ok((summary.room.clone(), membership));
        }
        let summary = self.remote_summary(room, via).await?;
        if !self.may_know_remote(user, &summary).await? {
            return Err(Error::NotFound("room"));
        }
        let invite = match user {
            Some(user) => self.0.store.read().out_of_band(user, room).await?,
            None => None,
        };
        Ok((summary.room, invite.map(|at| MembershipState::from(at.value.0.membership.as_str()))))
    }

    /// A view of a room this server is in.
    pub(crate) async fn resident_view(&self, room: &RoomId) -> Result<Option<View<'_>>> {
        let view = match self.view(room).await {
            Ok(view) => view,
            Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let here = view.reader.server_joined(view.nid, self.server()).await?;
        Ok(Some(view).filter(|_| here))
    }

    pub(crate) async fn remote_summary(&self, room: &RoomId, via: &[OwnedServerName]) -> Result<Summary> {
        let others = via.iter().filter(|server| **server != self.0.server);
        for server in others.take(self.0.config().backfill_servers) {
            match self.0.peers.hierarchy(server, room, true).await {
                Ok(answer) if answer.room.summary.room_id == room => {
                    return Ok(Summary::of(answer.room.summary));
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%server, %room, %error, "no summary"),
            }
        }
        Err(Error::NotFound("room"))
    }

    /// Whether a user may know of a room that another server told of. Externals know of what they are asked into.
    pub(crate) async fn may_know_remote(&self, user: Option<&UserId>, summary: &Summary) -> Result<bool> {
        let external = self.is_external(self.server());
        if summary.is_open() && !external {
            return Ok(true);
        }
        let Some(user) = user else { return Ok(false) };
        let reader = self.0.store.read();
        let asked = reader.out_of_band(user, &summary.room.room_id).await?.and_then(|at| at.value.0.kind());
        if matches!(asked, Some(Membership::Invite | Membership::Knock)) {
            return Ok(true);
        }
        drop(reader);
        Ok(!external && self.is_in_one_of(user, &summary.allowed).await?)
    }

    pub(crate) async fn is_in_one_of(&self, user: &UserId, rooms: &[OwnedRoomId]) -> Result<bool> {
        let reader = self.0.store.read();
        for room in rooms {
            let Some(nid) = reader.room_nid(room).await? else { continue };
            if matches!(reader.membership(nid, user).await?, Some((Membership::Join, _))) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Summary {
    pub(crate) fn of(room: RoomSummary) -> Self {
        let join_rule = serde_json::to_value(&room).unwrap_or_default();
        let allowed = join_rule.get("allowed_room_ids").cloned().unwrap_or_default();
        Self { allowed: serde_json::from_value(allowed).unwrap_or_default(), room, federated: true }
    }

    /// Whether anybody may know of the room: everybody may join, ask to join, or read it.
    pub(crate) fn is_open(&self) -> bool {
        let kind = JoinRuleKind::from(self.room.join_rule.as_str());
        self.room.world_readable
            || matches!(kind, JoinRuleKind::Public | JoinRuleKind::Knock | JoinRuleKind::KnockRestricted)
    }
}

impl Inner {
    /// What a room tells of itself by a state, if that was worked out before and follows from the state alone.
    pub(crate) fn known_summary(&self, (nid, state): (RoomNid, StateRef)) -> Option<Arc<Summary>> {
        self.summaries.get(&nid).filter(|(at, _)| *at == state).map(|(_, summary)| summary)
    }

    fn keep_summary(&self, nid: RoomNid, summary: (StateRef, Arc<Summary>)) {
        let retold = self.retold.lock();
        let since = retold.get(&nid).map(|at| self.world.now().saturating_sub(*at));
        if since.is_none_or(|since| since > UNSETTLED_MS) {
            self.summaries.insert(nid, summary);
        }
    }
}

impl Desk<'_> {
    /// Notes that what the room tells of itself changes though its state does not: it is redacted, or no longer.
    pub(crate) fn retell(&self, pdu: &Pdu) {
        if pdu.state_key() != Some("") || !PARTS.contains(&&*pdu.kind().to_string()) {
            return;
        }
        let now = self.inner.world.now();
        let mut retold = self.inner.retold.lock();
        retold.retain(|_, at| now.saturating_sub(*at) <= UNSETTLED_MS);
        retold.insert(self.nid, now);
        self.inner.summaries.remove(&self.nid);
    }
}

impl View<'_> {
    /// The room's summary now; kept for as long as its state stays the same.
    pub(crate) async fn summary(&self) -> Result<Arc<Summary>> {
        if let Some(summary) = self.inner.known_summary((self.nid, self.head.state)) {
            return Ok(summary);
        }
        let keys: Vec<StateKey> = PARTS.iter().map(|kind| StateKey::new(kind, "")).collect();
        let parts = self.state_events_at(self.head.state, &keys).await?;
        let summary = Arc::new(self.summary_of(&parts)?);
        self.inner.keep_summary(self.nid, (self.head.state, summary.clone()));
        Ok(summary)
    }

    fn summary_of(&self, parts: &[Option<Event>]) -> Result<Summary> {
        let content = |i: usize| -> Map<String, Value> {
            parts[i].as_ref().and_then(|event| event.pdu.content_as()).unwrap_or_default()
        };
        let text = |i: usize, field: &str| {
            let value = content(i).get(field).and_then(Value::as_str).map(str::to_owned);
            value.filter(|text| !text.is_empty())
        };
        let join_rules = content(5);
        let allowed: Vec<OwnedRoomId> = parts[5]
            .as_ref()
            .and_then(|event| crate::membership::restricted::allowed_rooms(&event.pdu))
            .unwrap_or_default();
        let mut summary = Map::new();
        let mut put = |field: &str, value: Option<String>| {
            if let Some(value) = value {
                summary.insert(field.to_owned(), value.into());
            }
        };
        put("room_type", text(0, "type"));
        put("name", text(1, "name"));
        put("topic", text(2, "topic"));
        put("avatar_url", text(3, "url"));
        put(
            "canonical_alias",
            text(4, "alias").filter(|alias| <&ruma::RoomAliasId>::try_from(&**alias).is_ok()),
        );
        put("encryption", text(8, "algorithm"));
        put("room_version", Some(self.head.version.to_string()));
        put("room_id", Some(self.room_id.to_string()));
        let rule = join_rules.get("join_rule").and_then(Value::as_str).unwrap_or("invite");
        put("join_rule", Some(rule.to_owned()));
        summary.insert("allowed_room_ids".to_owned(), json!(allowed));
        summary.insert("num_joined_members".to_owned(), self.head.joined.into());
        let world_readable = text(6, "history_visibility").as_deref() == Some("world_readable");
        summary.insert("world_readable".to_owned(), world_readable.into());
        let guests = text(7, "guest_access").as_deref() == Some("can_join");
        summary.insert("guest_can_join".to_owned(), guests.into());
        let room = serde_json::from_value(Value::Object(summary))
            .map_err(|_| Error::BadState("the room's state cannot be summed up".to_owned()))?;
        let federated = content(0).get("m.federate").and_then(Value::as_bool) != Some(false);
        Ok(Summary { room, allowed, federated })
    }

    /// Whether a user may know of this room: it is open, the user is in it or asked into it, or may join by being in
    /// another room. Externals know of what they are in or asked into, and of nothing else.
    pub(crate) async fn may_know(&self, user: Option<&UserId>, summary: &Summary) -> Result<bool> {
        let external = self.inner.is_external(&self.inner.server);
        if summary.is_open() && !external {
            return Ok(true);
        }
        let Some(user) = user else { return Ok(false) };
        let membership = self.reader.membership(self.nid, user).await?.map(|(membership, _)| membership);
        if matches!(membership, Some(Membership::Join | Membership::Invite | Membership::Knock)) {
            return Ok(true);
        }
        if external || membership == Some(Membership::Ban) {
            return Ok(false);
        }
        for room in &summary.allowed {
            let Some(nid) = self.reader.room_nid(room).await? else { continue };
            if matches!(self.reader.membership(nid, user).await?, Some((Membership::Join, _))) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
