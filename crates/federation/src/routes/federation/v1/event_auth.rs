//! `GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}`: the auth chain of an event.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::api::federation::authorization::get_event_authorization::v1::{Request, Response};

use crate::{Federation, Origin, refusal::Answer};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    federation.gate(&origin, &request.room_id).await?;
    let chain = federation.rooms().event_auth_for(&origin, &request.room_id, &request.event_id).await?;
    Ok(Ruma(Response::new(chain)))
}
