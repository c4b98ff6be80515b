//! `GET /_matrix/federation/v1/make_join/{roomId}/{userId}`: a template for a join.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::api::federation::membership::prepare_join_event::v1::{Request, Response};

use crate::{Federation, Origin, refusal::Answer};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    federation.gate(&origin, &request.room_id).await?;
    let rooms = federation.rooms();
    let template = rooms.make_join(&origin, &request.room_id, &request.user_id, &request.ver).await?;
    let mut response = Response::new(template.event);
    response.room_version = template.room_version;
    Ok(Ruma(response))
}
