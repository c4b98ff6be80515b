//! `GET /_matrix/federation/v1/make_knock/{roomId}/{userId}`: a template for a knock.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::{
    RoomVersionId,
    api::federation::membership::prepare_knock_event::v1::{Request, Response},
};

use crate::{Federation, Origin, refusal::Answer};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    federation.gate(&origin, &request.room_id).await?;
    let rooms = federation.rooms();
    let template = rooms.make_knock(&origin, &request.room_id, &request.user_id, &request.ver).await?;
    let version = template.room_version.unwrap_or(RoomVersionId::V1);
    Ok(Ruma(Response::new(version, template.event)))
}
