//! What `rooms` needs from other servers, over the signed client.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use chappe_rooms::{
    AliasTarget, BoundInvite, Extent, Gap, Invitation, JoinAnswer, KeysWanted, Occasion, PeerError, Peers,
    Purpose, StateEvents, StateIds, Template,
};
use chappe_rules::check::KeyRing as Known;
use http::Method;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedServerName, RoomAliasId, RoomId, RoomVersionId,
    ServerName, UserId,
    api::{
        Direction,
        federation::{
            authorization::get_event_authorization,
            backfill::get_backfill,
            directory::get_public_rooms_filtered,
            event::{get_event, get_event_by_timestamp, get_missing_events, get_room_state},
            membership::{
                RawStrippedState, create_invite, create_join_event, create_knock_event, create_leave_event,
                prepare_join_event, prepare_knock_event, prepare_leave_event,
            },
            policy::sign_event,
            query::get_room_information,
            space::get_hierarchy,
        },
    },
};
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use serde_json::{json, value::RawValue};

use crate::{
    Network,
    directories::MAX_ROOMS,
    keys::{Haste, old_keys},
    network::segment,
};

/// The longest answer of a policy server, in bytes.
const MAX_SIGNATURES: u64 = 64 << 10;

/// The longest answer about the rooms of a space, in bytes: a page of them is asked for room by room.
const MAX_HIERARCHY_BYTES: u64 = 2 << 20;

/// The longest answer that holds some events, in bytes: a hundred of them may be as long as an event can be.
const MAX_EVENTS: u64 = 8 << 20;

type Answer<T> = Result<T, PeerError>;

impl Network {
    /// Keys to check events; those of before are told of this server.
    async fn looked_for(&self, wanted: &KeysWanted, haste: Haste) -> Known {
        let mut wanted = wanted.clone();
        let ours = wanted.remove(self.server()).is_some();
        let mut known = self.keys().look_for(&wanted, haste).await;
        if ours {
            known.insert(self.server().to_owned(), old_keys(&self.config()));
        }
        known
    }
}

#[async_trait]
impl Peers for Network {
    fn takes_part(&self, server: &ServerName) -> bool {
        self.allowed().permits(server)
    }

    fn may_take_part(&self, server: &ServerName) -> bool {
        self.allowed().may_permit(server)
    }

    fn is_closed(&self) -> bool {
        self.allowed().is_closed()
    }

    async fn until_open(&self) {
        self.allowed().until_open().await;
    }

    fn members(&self) -> Option<Vec<OwnedServerName>> {
        self.allowed().members()
    }

    async fn is_away(&self, server: &ServerName) -> bool {
        self.backoff().wait_until(server).await.is_ok_and(|until| until > 0)
    }

    async fn keys(&self, wanted: &KeysWanted) -> Known {
        self.looked_for(wanted, Haste::Told).await
    }

    async fn keys_for_join(&self, wanted: &KeysWanted) -> Known {
        self.looked_for(wanted, Haste::Join).await
    }

    async fn make_join(
        &self,
        to: &ServerName,
        room: &RoomId,
        user: &UserId,
        versions: &[RoomVersionId],
    ) -> Answer<Template> {
        let mut request = prepare_join_event::v1::Request::new(room.to_owned(), user.to_owned());
        request.ver = versions.to_vec();
        let answer = self.request(to, request, self.brief().insisting()).await?;
        Ok(Template { room_version: answer.room_version, event: answer.event })
    }

    /// By hand: the body names the room once more (server-server API, "Third-party invites"), and some servers insist.
    async fn exchange_invite(&self, room: &RoomId, bound: BoundInvite) -> Answer<()> {
        let BoundInvite { sender, invited, signed } = bound;
        // The room knows what the invited is to be called.
        let third_party = json!({ "display_name": "", "signed": signed });
        let content = json!({ "membership": "invite", "third_party_invite": third_party });
        let body = json!({
            "type": "m.room.member", "room_id": room, "sender": sender, "state_key": invited, "content": content,
        });
        let uri = format!("/_matrix/federation/v1/exchange_third_party_invite/{}", segment(room.as_str()));
        let http = self.signed(sender.server_name(), Method::PUT, &uri, body.to_string().into())?;
        self.exchange(sender.server_name(), http, self.brief()).await.map(drop)
    }

    async fn send_join(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        pdu: Box<RawValue>,
        extent: Extent,
    ) -> Answer<JoinAnswer> {
        let mut request = create_join_event::v2::Request::new(room.to_owned(), event.to_owned(), pdu);
        request.omit_members = extent == Extent::WithoutMembers;
        let (answer, held) = self.request_held(to, request, self.long().insisting()).await?;
        let state = answer.room_state;
        Ok(JoinAnswer {
            auth_chain: state.auth_chain,
            state: state.state,
            event: state.event,
            servers_in_room: state.servers_in_room,
            members_omitted: state.members_omitted,
            held,
        })
    }

    async fn make_leave(&self, to: &ServerName, room: &RoomId, user: &UserId) -> Answer<Template> {
        let request = prepare_leave_event::v1::Request::new(room.to_owned(), user.to_owned());
        let answer = self.request(to, request, self.brief().insisting()).await?;
        Ok(Template { room_version: answer.room_version, event: answer.event })
    }

    async fn send_leave(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        pdu: Box<RawValue>,
    ) -> Answer<()> {
        let request = create_leave_event::v2::Request::new(room.to_owned(), event.to_owned(), pdu);
        self.request(to, request, self.brief().insisting()).await.map(drop)
    }

    async fn make_knock(
        &self,
        to: &ServerName,
        room: &RoomId,
        user: &UserId,
        versions: &[RoomVersionId],
    ) -> Answer<Template> {
        let mut request = prepare_knock_event::v1::Request::new(room.to_owned(), user.to_owned());
        request.ver = versions.to_vec();
        let answer = self.request(to, request, self.brief().insisting()).await?;
        Ok(Template { room_version: Some(answer.room_version), event: answer.event })
    }

    async fn send_knock(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        pdu: Box<RawValue>,
    ) -> Answer<Vec<Box<RawValue>>> {
        let request = create_knock_event::v1::Request::new(room.to_owned(), event.to_owned(), pdu);
        let answer = self.request(to, request, self.brief().insisting()).await?;
        Ok(answer.knock_room_state.into_iter().map(raw_state).collect())
    }

    async fn invite(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
        invitation: Invitation,
    ) -> Answer<Box<RawValue>> {
        let Invitation { room_version, event: pdu, room_state } = invitation;
        let state = room_state.into_iter().map(|raw| serde_json::from_str(raw.get())).collect();
        let state: Vec<RawStrippedState> =
            Result::map_err(state, |error: serde_json::Error| PeerError::Malformed(error.to_string()))?;
        let (room, event) = (room.to_owned(), event.to_owned());
        let request = create_invite::v2::Request::new(room, event, room_version, pdu, state);
        Ok(self.request(to, request, self.brief().insisting()).await?.event)
    }

    async fn policy_signature(
        &self,
        to: &ServerName,
        pdu: Box<RawValue>,
        purpose: Purpose,
    ) -> Answer<String> {
        let call = match purpose {
            Purpose::Sending => self.brief().insisting(),
            Purpose::Receiving => self.brief(),
        };
        let answer = self.request(to, sign_event::v1::Request::new(pdu), call.up_to(MAX_SIGNATURES)).await?;
        let signature = answer.ed25519_signature(to).map(str::to_owned);
        signature.ok_or_else(|| PeerError::Malformed("no signature of the policy server".to_owned()))
    }

    async fn missing_events(&self, to: &ServerName, room: &RoomId, gap: Gap) -> Answer<Vec<Box<RawValue>>> {
        let Gap { earliest, latest, limit, min_depth } = gap;
        let mut request = get_missing_events::v1::Request::new(room.to_owned(), earliest, latest);
        request.limit = limit.into();
        request.min_depth = min_depth;
        Ok(self.request(to, request, self.brief().up_to(MAX_EVENTS)).await?.events)
    }

    async fn backfill(
        &self,
        to: &ServerName,
        room: &RoomId,
        from: &[OwnedEventId],
        limit: u16,
    ) -> Answer<Vec<Box<RawValue>>> {
        let request = get_backfill::v1::Request::new(room.to_owned(), from.to_vec(), limit.into());
        Ok(self.request(to, request, self.brief().up_to(MAX_EVENTS)).await?.pdus)
    }

    /// By hand: one id that is none would make ruma refuse all of them.
    async fn state_ids(&self, to: &ServerName, room: &RoomId, at: &EventId) -> Answer<StateIds> {
        let (room, at) = (segment(room.as_str()), segment(at.as_str()));
        let uri = format!("/_matrix/federation/v1/state_ids/{room}?event_id={at}");
        let http = self.signed(to, Method::GET, &uri, Bytes::new())?;
        let answer = self.exchange(to, http, self.state()).await?;
        let told: ToldIds =
            serde_json::from_slice(answer.body()).map_err(|error| PeerError::Malformed(error.to_string()))?;
        Ok(StateIds { state: told.pdu_ids, auth_chain: told.auth_chain_ids })
    }

    async fn state(
        &self,
        to: &ServerName,
        room: &RoomId,
        at: &EventId,
        occasion: Occasion,
    ) -> Answer<StateEvents> {
        let request = get_room_state::v1::Request::new(at.to_owned(), room.to_owned());
        let call = match occasion {
            Occasion::OwnAccord => self.long(),
            Occasion::Received => self.state(),
        };
        let (answer, held) = self.request_held(to, request, call).await?;
        Ok(StateEvents { state: answer.pdus, auth_chain: answer.auth_chain, held })
    }

    async fn event(&self, to: &ServerName, event: &EventId) -> Answer<Box<RawValue>> {
        Ok(self.request(to, get_event::v1::Request::new(event.to_owned()), self.brief()).await?.pdu)
    }

    async fn event_auth(
        &self,
        to: &ServerName,
        room: &RoomId,
        event: &EventId,
    ) -> Answer<Vec<Box<RawValue>>> {
        let request = get_event_authorization::v1::Request::new(room.to_owned(), event.to_owned());
        Ok(self.request(to, request, self.state()).await?.auth_chain)
    }

    async fn alias(&self, alias: &RoomAliasId) -> Answer<AliasTarget> {
        let request = get_room_information::v1::Request::new(alias.to_owned());
        let answer = self.request(alias.server_name(), request, self.brief().insisting()).await?;
        Ok(AliasTarget { room_id: answer.room_id, servers: answer.servers })
    }

    async fn hierarchy(
        &self,
        to: &ServerName,
        room: &RoomId,
        suggested_only: bool,
    ) -> Answer<get_hierarchy::v1::Response> {
        let mut request = get_hierarchy::v1::Request::new(room.to_owned());
        request.suggested_only = suggested_only;
        self.request(to, request, self.brief().up_to(MAX_HIERARCHY_BYTES)).await
    }

    async fn public_rooms(
        &self,
        to: &ServerName,
        request: get_public_rooms_filtered::v1::Request,
    ) -> Answer<get_public_rooms_filtered::v1::Response> {
        self.request(to, request, self.brief().up_to(MAX_ROOMS).insisting()).await
    }

    async fn listed(
        &self,
        to: &ServerName,
        request: get_public_rooms_filtered::v1::Request,
    ) -> Answer<get_public_rooms_filtered::v1::Response> {
        self.listed_rooms(to, request).await
    }

    async fn timestamp_to_event(
        &self,
        to: &ServerName,
        room: &RoomId,
        ts: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Answer<(OwnedEventId, MilliSecondsSinceUnixEpoch)> {
        let request = get_event_by_timestamp::v1::Request::new(room.to_owned(), ts, direction);
        let answer = self.request(to, request, self.brief()).await?;
        Ok((answer.event_id, answer.origin_server_ts))
    }
}

/// The answer about a state in event ids (server-server API, `GET /_matrix/federation/v1/state_ids/{roomId}`).
#[derive(Deserialize)]
struct ToldIds {
    #[serde(deserialize_with = "event_ids")]
    pdu_ids: Vec<OwnedEventId>,
    #[serde(deserialize_with = "event_ids")]
    auth_chain_ids: Vec<OwnedEventId>,
}

/// The event ids of a list, without what is none: in rooms of versions 1 and 2 other servers hold events with ids that nobody
/// here can ask for.
fn event_ids<'de, D: Deserializer<'de>>(list: D) -> Result<Vec<OwnedEventId>, D::Error> {
    struct Ids;

    impl<'de> Visitor<'de> for Ids {
        type Value = Vec<OwnedEventId>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of event ids")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut ids = Vec::new();
            while let Some(entry) = list.next_element::<&RawValue>()? {
                ids.extend(serde_json::from_str::<OwnedEventId>(entry.get()).ok());
            }
            Ok(ids)
        }
    }

    list.deserialize_seq(Ids)
}

#[expect(deprecated, reason = "servers before specification 1.16 send stripped events")]
pub(crate) fn raw_state(state: RawStrippedState) -> Box<RawValue> {
    match state {
        RawStrippedState::Stripped(event) => event.into_json(),
        RawStrippedState::Pdu(pdu) => pdu,
        _ => RawValue::from_string("{}".to_owned()).expect("an empty object is JSON"),
    }
}
