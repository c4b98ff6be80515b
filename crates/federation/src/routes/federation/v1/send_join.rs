//! `PUT /_matrix/federation/v1/send_join/{roomId}/{eventId}`: a join; the answer is wrapped in `[200, …]`.

use axum::extract::State;
use ruma::api::federation::membership::create_join_event::v2::Request;

use crate::{Federation, Origin, answers::LongAnswer, routes::federation::v2};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> LongAnswer {
    let (state, turn) = v2::send_join::accept(&federation, &origin, request).await?;
    federation.json_in_turn(turn, &(200, state))
}
