//! `PUT /_matrix/federation/v1/send_join/{roomId}/{eventId}`: a join; the answer is wrapped in `[200, …]`.

use axum::{Json, extract::State};
use ruma::api::federation::membership::create_join_event::v2::{Request, RoomState};

use crate::{Federation, Origin, refusal::Refusal, routes::federation::v2};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Result<Json<(u16, RoomState)>, Refusal> {
    let state = v2::send_join::accept(&federation, &origin, request).await?;
    Ok(Json((200, state)))
}
