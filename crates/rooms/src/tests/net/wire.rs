//! How servers of one process ask each other, and what comes in between.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use chappe_accounts::NewUser;
use chappe_rules::{
    Pdu,
    build::SigningKey,
    check::{KeyRing, ServerKey},
    version,
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedServerName, RoomAliasId, RoomId, RoomVersionId,
    ServerName, UInt, UserId,
    api::{
        Direction,
        federation::{directory::get_public_rooms_filtered, space::get_hierarchy},
    },
};
use serde_json::{Value, value::RawValue};

use super::{Net, user};
use crate::{
    AliasTarget, BoundInvite, Error, Extent, Gap, Invitation, JoinAnswer, KeysWanted, Occasion, PeerError,
    Peers, PublicRoomsRequest, Purpose, Rooms, SignedMember, StateEvents, StateIds, Template,
};

/// A server's way to the others.
pub(super) struct Wire {
    pub(super) from: OwnedServerName,
    pub(super) net: Net,
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err asks for")]
fn refused(error: Error) -> PeerError {
    let (status, errcode) = match error {
        Error::NotFound(_) => (404, "M_NOT_FOUND"),
        Error::UnableToAuthoriseJoin => (400, "M_UNABLE_TO_AUTHORISE_JOIN"),
        Error::UnableToGrantJoin => (400, "M_UNABLE_TO_GRANT_JOIN"),
        _ => (403, "M_FORBIDDEN"),
    };
    let (errcode, error) = (errcode.to_owned(), error.to_string());
    PeerError::Refused { status, errcode, error, room_version: None }
}

impl Wire {
    fn to(&self, to: &ServerName) -> Result<Rooms, PeerError> {
        self.net.reach(&self.from, to)
    }

    fn twisted(&self, template: Template) -> Template {
        let said = self.net.twist_version.lock().clone();
        let template = Template { room_version: said.or(template.room_version), ..template };
        let Some(twist) = self.net.twist_template.lock().clone() else { return template };
        let event = twist(serde_json::from_str(template.event.get()).unwrap());
        Template { event: serde_json::value::to_raw_value(&event).unwrap(), ..template }
    }
}

#[async_trait]
impl Peers for Wire {
    fn takes_part(&self, server: &ServerName) -> bool {
        !self.is_closed() && !self.net.unlisted.lock().contains(&(self.from.clone(), server.to_owned()))
    }

    fn is_closed(&self) -> bool {
        self.net.closed.lock().contains(&self.from)
    }

    async fn until_open(&self) {
        loop {
            let opened = self.net.opened.notified();
            if !self.is_closed() {
                return;
            }
            opened.await;
        }
    }

    async fn is_away(&self, server: &ServerName) -> bool {
        self.net.down.lock().contains(server)
    }

    async fn keys(&self, wanted: &KeysWanted) -> KeyRing {
        self.net.comes_to("keys").await;
        let keys = self.net.keys.lock();
        let known = wanted.keys().filter_map(|server| Some((server.clone(), keys.get(server)?)));
        let until = MilliSecondsSinceUnixEpoch(UInt::MAX);
        let ring = |key: &Arc<SigningKey>| {
            BTreeMap::from([(key.id().to_owned(), ServerKey { public: key.public_key(), until })])
        };
        known.map(|(server, key)| (server, ring(key))).collect()
    }

    async fn make_join(
        &self,
        to: &ServerName,
        room: &RoomId,
        user: &UserId,
        versions: &[RoomVersionId],
    ) -> Result<Template, PeerError> {
        let template = self.to(to)?.make_join(&self.from, room, user, versions).await.map_err(refused)?;
        Ok(self.twisted(template))
    }

    async fn exchange_invite(&self, room: &RoomId, bound: BoundInvite) -> Result<(), PeerError> {
        let to = bound.sender.server_name().to_owned();
        self.to(&to)?.exchange_invite(room, bound).await.map_err(refused)
    }

    async fn send_join(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        pdu: Box<RawValue>,
        extent: Extent,
    ) -> Result<JoinAnswer, PeerError> {
        if *self.net.partial_only.lock() && extent == Extent::Whole {
            return Err(PeerError::Unreachable(to.to_owned()));
        }
        let member = SignedMember { event_id: event.to_owned(), pdu };
        let extent = if *self.net.partial_joins.lock() { extent } else { Extent::Whole };
        let resident = self.to(to)?;
        let join = resident.accept_join(&self.from, room, member).await.map_err(refused)?;
        self.net.comes_to("join_answer").await;
        // The answer may be lost.
        self.to(to)?;
        let answer = resident.join_answer(&join, extent).await.map_err(refused)?;
        let twist = self.net.twist.lock().clone();
        Ok(twist.map_or_else(|| answer.clone(), |twist| twist(answer.clone())))
    }

    async fn make_leave(&self, to: &ServerName, room: &RoomId, user: &UserId) -> Result<Template, PeerError> {
        self.net.comes_to("make_leave").await;
        self.to(to)?.make_leave(&self.from, room, user).await.map_err(refused)
    }

    async fn send_leave(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        pdu: Box<RawValue>,
    ) -> Result<(), PeerError> {
        let member = SignedMember { event_id: event.to_owned(), pdu };
        self.to(to)?.accept_leave(&self.from, room, member).await.map_err(refused)
    }

    async fn make_knock(
        &self,
        to: &ServerName,
        room: &RoomId,
        user: &UserId,
        versions: &[RoomVersionId],
    ) -> Result<Template, PeerError> {
        self.to(to)?.make_knock(&self.from, room, user, versions).await.map_err(refused)
    }

    async fn send_knock(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        pdu: Box<RawValue>,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        let member = SignedMember { event_id: event.to_owned(), pdu };
        self.to(to)?.accept_knock(&self.from, room, member).await.map_err(refused)
    }

    async fn invite(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        invitation: Invitation,
    ) -> Result<Box<RawValue>, PeerError> {
        self.net.comes_to("invite").await;
        let peer = self.to(to)?;
        signed_up(&peer, &invitation.event).await;
        let meet = self.net.invites_meet.lock().clone();
        if let Some(meet) = meet {
            meet.wait().await;
        }
        peer.accept_invite(&self.from, room, event, invitation).await.map_err(refused)
    }

    async fn policy_signature(
        &self,
        to: &ServerName,
        pdu: Box<RawValue>,
        _: Purpose,
    ) -> Result<String, PeerError> {
        let peer = self.to(to)?;
        let judge = self.net.policy.lock().get(to).cloned();
        match judge {
            Some(judge) => judge(serde_json::from_str(pdu.get()).unwrap()),
            None => match peer.sign_for_room(&self.from, &pdu).await {
                Err(Error::PolicyServer(refusal)) => Err(refusal),
                answer => answer.map_err(refused),
            },
        }
    }

    async fn missing_events(
        &self,
        to: &ServerName,
        room: &RoomId,
        gap: Gap,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        *self.net.gaps.lock() += 1;
        let answer = self.to(to)?.missing_events_for(&self.from, room, gap).await.map_err(refused);
        let meanwhile = self.net.meanwhile.lock().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile.await;
        }
        answer
    }

    async fn backfill(
        &self,
        to: &ServerName,
        room: &RoomId,
        from: &[OwnedEventId],
        limit: u16,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        self.to(to)?.backfill_for(&self.from, room, from, limit).await.map_err(refused)
    }

    async fn state_ids(&self, to: &ServerName, room: &RoomId, at: &EventId) -> Result<StateIds, PeerError> {
        *self.net.states.lock() += 1;
        if self.net.silent.lock().contains(to) {
            return Err(PeerError::Unreachable(to.to_owned()));
        }
        if self.net.untold.lock().contains(&(to.to_owned(), at.to_owned())) {
            return Err(refused(Error::NotFound("event")));
        }
        let mut told = self.to(to)?.state_ids_for(&self.from, room, at).await.map_err(refused)?;
        let untold = self.net.untold.lock();
        told.state.retain(|event| !untold.contains(&(to.to_owned(), event.clone())));
        Ok(told)
    }

    async fn state(
        &self,
        to: &ServerName,
        room: &RoomId,
        at: &EventId,
        _: Occasion,
    ) -> Result<StateEvents, PeerError> {
        let mut told = self.to(to)?.state_for(&self.from, room, at).await.map_err(refused)?;
        let hidden = self.net.hidden.lock();
        let is_hidden = |raw: &RawValue| {
            let rules = version::rules(&RoomVersionId::V11).unwrap();
            hidden.contains(Pdu::parse(rules, raw.get().as_bytes()).unwrap().event_id())
        };
        told.state.retain(|raw| hidden.is_empty() || !is_hidden(raw));
        Ok(told)
    }

    async fn event(&self, to: &ServerName, event: &EventId) -> Result<Box<RawValue>, PeerError> {
        self.net.events.lock().push((to.to_owned(), event.to_owned()));
        if self.net.hidden.lock().contains(event) {
            return Err(refused(Error::NotFound("event")));
        }
        self.to(to)?.event_for(&self.from, event).await.map_err(refused)
    }

    async fn event_auth(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        self.to(to)?.event_auth_for(&self.from, room, event).await.map_err(refused)
    }

    async fn alias(&self, alias: &RoomAliasId) -> Result<AliasTarget, PeerError> {
        if self.net.silent.lock().contains(alias.server_name()) {
            std::future::pending::<()>().await;
        }
        self.to(alias.server_name())?.alias_for(&self.from, alias).await.map_err(refused)
    }

    async fn hierarchy(
        &self,
        to: &ServerName,
        room: &RoomId,
        suggested_only: bool,
    ) -> Result<get_hierarchy::v1::Response, PeerError> {
        self.net.comes_to("hierarchy").await;
        self.to(to)?.hierarchy_for(&self.from, room, suggested_only).await.map_err(refused)
    }

    async fn public_rooms(
        &self,
        to: &ServerName,
        request: get_public_rooms_filtered::v1::Request,
    ) -> Result<get_public_rooms_filtered::v1::Response, PeerError> {
        let own = PublicRoomsRequest { since: request.since, filter: request.filter, ..Default::default() };
        let page = self.to(to)?.public_rooms(&own).await.map_err(refused)?;
        let mut answer = get_public_rooms_filtered::v1::Response::new();
        answer.chunk = page.chunk;
        Ok(answer)
    }

    async fn timestamp_to_event(
        &self,
        to: &ServerName,
        room: &RoomId,
        ts: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<(OwnedEventId, MilliSecondsSinceUnixEpoch), PeerError> {
        self.to(to)?.timestamp_to_event_for(&self.from, room, ts, direction).await.map_err(refused)
    }
}

/// Whoever is invited in these tests has an account.
async fn signed_up(rooms: &Rooms, invite: &RawValue) {
    let invite: Value = serde_json::from_str(invite.get()).unwrap();
    let invited = user(invite["state_key"].as_str().unwrap());
    if rooms.0.accounts.user(&invited).await.unwrap().is_none() {
        let localpart = Some(invited.localpart().to_owned());
        rooms.0.accounts.create_user(NewUser { localpart, ..NewUser::default() }).await.unwrap();
    }
}
