//! `GET /_matrix/federation/v1/state_ids/{roomId}`: the state before an event, in event ids.

use axum::extract::State;
use ruma::api::federation::event::get_room_state_ids::v1::{Request, Response};

use crate::{
    Federation, Origin,
    answers::{Kind, LongAnswer},
};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> LongAnswer {
    federation.gate(&origin, &request.room_id).await?;
    let turn = federation.turn(Kind::State, &origin).await?;
    let state = federation.rooms().state_ids_for(&origin, &request.room_id, &request.event_id).await?;
    federation.in_turn(turn, Response::new(state.auth_chain, state.state))
}
