//! `PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`: an invite of a local user, to be signed.

use axum::extract::State;
use chappe_rooms::Invitation;
use chappe_web::Ruma;
use ruma::{
    EventId, OwnedUserId, RoomId, ServerName,
    api::federation::membership::create_invite::v2::{Request, Response},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Federation, Origin,
    peers::raw_state,
    refusal::{Answer, Refusal},
};

#[derive(Deserialize)]
struct Invited {
    state_key: OwnedUserId,
}

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    let invitation = Invitation {
        room_version: request.room_version,
        event: request.event,
        room_state: request.invite_room_state.into_iter().map(raw_state).collect(),
    };
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
