//! `GET /_matrix/federation/v1/make_leave/{roomId}/{userId}`: a template for leaving or for turning an invite down.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::api::federation::membership::prepare_leave_event::v1::{Request, Response};

use crate::{Federation, Origin, refusal::Answer};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    federation.gate(&origin, &request.room_id).await?;
    let template = federation.rooms().make_leave(&origin, &request.room_id, &request.user_id).await?;
    Ok(Ruma(Response::new(template.room_version, template.event)))
}
