//! `GET /_matrix/federation/v1/timestamp_to_event/{roomId}`: the event nearest to a time.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::api::federation::event::get_event_by_timestamp::v1::{Request, Response};

use crate::{Federation, Origin, refusal::Answer};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    federation.gate(&origin, &request.room_id).await?;
    let rooms = federation.rooms();
    let found = rooms.timestamp_to_event_for(&origin, &request.room_id, request.ts, request.dir).await?;
    Ok(Ruma(Response::new(found.0, found.1)))
}
