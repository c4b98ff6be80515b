//! `GET /_matrix/federation/v1/event/{eventId}`: one event.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::api::federation::event::get_event::v1::{Request, Response};

use crate::{Federation, Origin, refusal::Answer};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    let pdu = federation.rooms().event_for(&origin, &request.event_id).await?;
    let network = federation.network();
    Ok(Ruma(Response::new(network.server().to_owned(), network.timestamp(), pdu)))
}
