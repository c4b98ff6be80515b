//! `PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`: an invite of a local user, to be signed.

use axum::extract::State;
use chappe_rooms::Invitation;
use chappe_web::{Error, Ruma};
use ruma::{
    EventId, OwnedUserId, RoomId, RoomVersionId, ServerName,
    api::federation::membership::{
        create_invite::v2::Response, create_leave_event::v2::Request as WholeBody,
    },
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Federation, Origin,
    refusal::{Answer, Refusal},
};

/// The body. What the room's state is told in is no more than a hint in old rooms, and may be missing.
#[derive(Deserialize)]
struct Body {
    room_version: RoomVersionId,
    event: Box<RawValue>,
    invite_room_state: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Invited {
    state_key: OwnedUserId,
}

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<WholeBody>,
) -> Answer<Response> {
    let body = serde_json::from_str(request.pdu.get());
    let Body { room_version, event, invite_room_state } =
        body.map_err(|error| Error::unreadable_json(&error))?;
    let told = invite_room_state.and_then(|told| serde_json::from_str(told.get()).ok());
    let invitation = Invitation { room_version, event, room_state: told.unwrap_or_default() };
    let event = accept(&federation, &origin, (&request.room_id, &request.event_id), invitation).await?;
    Ok(Ruma(Response::new(event)))
}

/// The same for version 1.
pub(in crate::routes) async fn accept(
    federation: &Federation,
    origin: &ServerName,
    (room, event): (&RoomId, &EventId),
    invitation: Invitation,
) -> Result<Box<RawValue>, Refusal> {
    federation.gate(origin, room).await?;
    let (network, rates) = (federation.network(), &federation.network().config().rates);
    network.count("invites", origin.as_str(), rates.invites)?;
    if let Ok(Invited { state_key }) = serde_json::from_str(invitation.event.get()) {
        network.count("invites to a user", state_key.as_str(), rates.invites_to_user)?;
    }
    Ok(federation.rooms().accept_invite(origin, room, event, invitation).await?)
}
