//! From a draft to an event: authorized, built, signed, and put at the live end of the room.

use std::sync::Arc;

use chappe_rules::{
    Pdu,
    access::Access,
    auth::{StateKey as RuleKey, allowed_by_state, auth_types},
    build::{self, Place, Reference},
    outsiders,
    policy::{Bypass, Candidate, Door},
};
use chappe_store::EventNum;
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedEventId, UInt, UserId,
    canonical_json::try_from_json_map,
    events::{StateEventType, TimelineEventType},
};
use serde_json::value::to_raw_value;

use crate::{
    Draft, Error, Inner, Result,
    desk::{Desk, Held, Placing, Source},
};

/// In whose name an event is made, and through which door of the policy it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct By<'a> {
    pub(crate) sender: &'a UserId,
    pub(crate) bypass: Bypass,
    pub(crate) door: Door,
}

/// Whether the room's policy server has to sign an event before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    First,
    Nobody,
}

/// An event that was made.
#[derive(Clone, Debug)]
pub(crate) struct Authored {
    pub(crate) event_id: OwnedEventId,
    pub(crate) num: EventNum,
}

/// A draft with everything that judging it needs.
pub(crate) struct Prepared {
    pub(crate) draft: build::Draft,
    pub(crate) auth_keys: Vec<RuleKey>,
    pub(crate) held: Held,
    pub(crate) access: Option<Arc<Access>>,
    timestamp: MilliSecondsSinceUnixEpoch,
}

pub(crate) fn create_key() -> RuleKey {
    (StateEventType::RoomCreate, String::new())
}

/// What the rules' refusals mean for a client.
pub(crate) fn refusal(error: chappe_rules::Error) -> Error {
    match error {
        chappe_rules::Error::Forbidden(reason) => Error::Forbidden(reason),
        chappe_rules::Error::Malformed(what) if what.contains("large") || what.contains("65") => {
            Error::TooLarge(what)
        }
        other => Error::BadJson(other.to_string()),
    }
}

impl Inner {
    /// The time, as events carry it.
    pub(crate) fn now(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::try_from(self.world.now()).unwrap_or(UInt::MAX))
    }
}

pub(crate) fn canonical(draft: &Draft) -> Result<CanonicalJsonObject> {
    try_from_json_map(draft.content.clone())
        .map_err(|error| Error::BadJson(format!("content is not canonical JSON: {error}")))
}

impl Desk<'_> {
    /// Reads what making `draft` an event needs: one look at the state.
    pub(crate) async fn prepare(&self, by: By<'_>, draft: Draft) -> Result<Prepared> {
        let timestamp = draft.timestamp.unwrap_or(self.now);
        let content = canonical(&draft)?;
        let draft = build::Draft {
            kind: draft.kind,
            state_key: draft.state_key,
            content,
            redacts: draft.redacts,
            sticky_ms: draft.sticky_ms,
        };
        let raw = to_raw_value(&draft.content).map_err(|error| Error::BadJson(error.to_string()))?;
        let auth_keys = auth_types(self.rules, &draft.kind, by.sender, draft.state_key.as_deref(), &raw)
            .map_err(refusal)?;
        let mut keys = auth_keys.clone();
        let access = self.inner.access();
        let candidate = candidate(by, &draft);
        keys.extend(access.iter().flat_map(|access| access.state_needed(&candidate)));
        keys.extend(outsiders::replaced(&candidate));
        if draft.kind != TimelineEventType::RoomCreate {
            keys.push(create_key());
        }
        if self.may_have_policy_server() {
            keys.push(chappe_rules::policy_server::state_key());
        }
        keys.sort();
        keys.dedup();
        let held = self.held(&keys).await?;
        Ok(Prepared { draft, auth_keys, held, access, timestamp })
    }

    /// Makes `draft` an event of the room, judged by the rules and the policy at the current state.
    pub(crate) async fn author(&mut self, by: By<'_>, draft: Draft) -> Result<Authored> {
        let prepared = self.prepare(by, draft).await?;
        self.author_prepared(by, prepared, Asking::First).await
    }

    /// As [`Desk::author`], for what follows from another event: the room's policy server has seen that one, and whoever
    /// receives this may ask about it.
    pub(crate) async fn author_unasked(&mut self, by: By<'_>, draft: Draft) -> Result<Authored> {
        let prepared = self.prepare(by, draft).await?;
        self.author_prepared(by, prepared, Asking::Nobody).await
    }

    async fn author_prepared(&mut self, by: By<'_>, prepared: Prepared, asking: Asking) -> Result<Authored> {
        let auth: Vec<(EventNum, Pdu)> =
            prepared.auth_keys.iter().filter_map(|key| prepared.held.0.get(key).cloned()).collect();
        let (pdu, prev) = self.build(by, &prepared, &auth).await?;
        self.judge_own(by, &pdu, &prepared).await?;
        let pdu = match asking {
            Asking::First => {
                self.learn_of_no_policy_server(&prepared.held).await?;
                self.as_policy_wants(pdu, &prepared.held).await?
            }
            Asking::Nobody => pdu,
        };
        if *pdu.kind() == TimelineEventType::RoomCreate {
            self.name(pdu.room_id());
        }
        let event_id = pdu.event_id().to_owned();
        let auth = auth.into_iter().map(|(num, _)| num).collect();
        let num = self
            .append(Placing { pdu, auth, prev, missing: Vec::new(), stored: None, source: Source::Here })
            .await?;
        Ok(Authored { event_id, num })
    }

    async fn build(
        &self,
        by: By<'_>,
        prepared: &Prepared,
        auth: &[(EventNum, Pdu)],
    ) -> Result<(Pdu, Vec<EventNum>)> {
        let (prev_events, prev) = self.heads().await?;
        let auth_events: Vec<Reference> =
            auth.iter().map(|(_, pdu)| Reference::to(self.rules, pdu)).collect();
        let makes_room = prepared.draft.kind == TimelineEventType::RoomCreate;
        let unnamed = makes_room && self.rules.authorization.room_create_event_id_as_room_id;
        let place = Place {
            rules: self.rules,
            room_id: (!unnamed).then_some(&*self.room_id),
            sender: by.sender,
            prev_events: &prev_events,
            auth_events: &auth_events,
            depth: self.head.depth + 1,
            origin_server_ts: prepared.timestamp,
        };
        let pdu = build::build(&place, prepared.draft.clone(), &self.inner.server, &self.inner.key);
        Ok((pdu.map_err(refusal)?, prev))
    }

    async fn judge_own(&self, by: By<'_>, pdu: &Pdu, prepared: &Prepared) -> Result<()> {
        if *pdu.kind() == TimelineEventType::RoomCreate && !self.head.extremities.is_empty() {
            return Err(Error::Forbidden("a room is created once".to_owned()));
        }
        let allowed = allowed_by_state(self.rules, pdu, |kind, key| prepared.held.get(kind, key));
        allowed.map_err(|error| match (by.door, refusal(error)) {
            (Door::Create, Error::Forbidden(reason)) => Error::InvalidRoomState(reason),
            (_, error) => error,
        })?;
        self.ask_access(by, &prepared.draft, &prepared.held, prepared.access.as_deref()).await
    }
}

pub(crate) fn candidate<'a>(by: By<'a>, draft: &'a build::Draft) -> Candidate<'a> {
    Candidate {
        kind: &draft.kind,
        state_key: draft.state_key.as_deref(),
        sender: by.sender,
        content: &draft.content,
        redacts: draft.redacts.as_deref(),
    }
}
