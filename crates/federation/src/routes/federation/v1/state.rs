//! `GET /_matrix/federation/v1/state/{roomId}`: the state before an event, in full.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::api::federation::event::get_room_state::v1::{Request, Response};

use crate::{Federation, Origin, refusal::Answer};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    federation.gate(&origin, &request.room_id).await?;
    let state = federation.rooms().state_for(&origin, &request.room_id, &request.event_id).await?;
    Ok(Ruma(Response::new(state.auth_chain, state.state)))
}
