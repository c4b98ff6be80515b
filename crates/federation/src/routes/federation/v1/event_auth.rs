//! `GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}`: the auth chain of an event.

use axum::extract::State;
use ruma::api::federation::authorization::get_event_authorization::v1::{Request, Response};

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
    let chain = federation.rooms().event_auth_for(&origin, &request.room_id, &request.event_id).await?;
    federation.in_turn(turn, Response::new(chain))
}
