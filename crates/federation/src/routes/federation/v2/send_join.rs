//! `PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`: a join, signed by its server; the answer is the room's state.

use axum::extract::State;
use chappe_rooms::{Extent, SignedMember};
use chappe_web::Ruma;
use ruma::{
    ServerName,
    api::federation::membership::create_join_event::v2::{Request, Response, RoomState},
};

use crate::{
    Federation, Origin,
    refusal::{Answer, Refusal},
};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    Ok(Ruma(Response::new(accept(&federation, &origin, request).await?)))
}

/// The same for the answer of version 1.
pub(in crate::routes) async fn accept(
    federation: &Federation,
    origin: &ServerName,
    request: Request,
) -> Result<RoomState, Refusal> {
    federation.gate(origin, &request.room_id).await?;
    let extent = if request.omit_members { Extent::WithoutMembers } else { Extent::Whole };
    let member = SignedMember { event_id: request.event_id, pdu: request.pdu };
    let answer = federation.rooms().accept_join(origin, &request.room_id, member, extent).await?;
    let mut state = RoomState::new();
    state.auth_chain = answer.auth_chain;
    state.state = answer.state;
    state.event = answer.event;
    state.members_omitted = answer.members_omitted;
    state.servers_in_room = answer.servers_in_room;
    Ok(state)
}
