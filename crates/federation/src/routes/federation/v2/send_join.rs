//! `PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`: a join, signed by its server; the answer is the room's state.

use axum::extract::State;
use chappe_rooms::{Extent, SignedMember};
use ruma::{
    ServerName,
    api::federation::membership::create_join_event::v2::{Request, Response, RoomState},
};

use crate::{
    Federation, Origin,
    answers::{Kind, LongAnswer, Turn},
    refusal::Refusal,
};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> LongAnswer {
    let (state, turn) = accept(&federation, &origin, request).await?;
    federation.in_turn(turn, Response::new(state))
}

/// The same for the answer of version 1.
pub(in crate::routes) async fn accept(
    federation: &Federation,
    origin: &ServerName,
    request: Request,
) -> Result<(RoomState, Turn), Refusal> {
    federation.gate(origin, &request.room_id).await?;
    let extent = if request.omit_members { Extent::WithoutMembers } else { Extent::Whole };
    let member = SignedMember { event_id: request.event_id, pdu: request.pdu };
    let join = federation.rooms().accept_join(origin, &request.room_id, member).await?;
    // Not before: whom the join makes wait for other servers keeps nobody from an answer. Sent again, it is answered.
    let turn = federation.turn(Kind::Join, origin).await?;
    let answer = federation.rooms().join_answer(&join, extent).await?;
    let mut state = RoomState::new();
    state.auth_chain = answer.auth_chain;
    state.state = answer.state;
    state.event = answer.event;
    state.members_omitted = answer.members_omitted;
    state.servers_in_room = answer.servers_in_room;
    Ok((state, turn))
}
