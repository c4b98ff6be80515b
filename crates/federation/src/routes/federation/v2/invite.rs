//! `PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`: an invite of a local user, to be signed.

use axum::extract::State;
use chappe_rooms::Invitation;
use chappe_web::Ruma;
use ruma::api::federation::membership::create_invite::v2::{Request, Response};

use crate::{Federation, Origin, peers::raw_state, refusal::Answer};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    federation.gate(&origin, &request.room_id).await?;
    let invitation = Invitation {
        room_version: request.room_version,
        event: request.event,
        room_state: request.invite_room_state.into_iter().map(raw_state).collect(),
    };
    let rooms = federation.rooms();
    let event = rooms.accept_invite(&origin, &request.room_id, &request.event_id, invitation).await?;
    Ok(Ruma(Response::new(event)))
}
