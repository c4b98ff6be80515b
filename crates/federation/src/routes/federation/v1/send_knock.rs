//! `PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId}`: a knock, signed by its server.

use axum::extract::State;
use chappe_rooms::SignedMember;
use chappe_web::Ruma;
use ruma::{
    api::federation::membership::{
        RawStrippedState,
        create_knock_event::v1::{Request, Response},
    },
    serde::Raw,
};

use crate::{Federation, Origin, refusal::Answer};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    federation.gate(&origin, &request.room_id).await?;
    let member = SignedMember { event_id: request.event_id, pdu: request.pdu };
    let state = federation.rooms().accept_knock(&origin, &request.room_id, member).await?;
    let state = state.into_iter().map(|event| RawStrippedState::from(Raw::from_json(event)));
    Ok(Ruma(Response::new(state.collect())))
}
