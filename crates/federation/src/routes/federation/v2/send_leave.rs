//! `PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}`: a leave, signed by its server.

use axum::extract::State;
use chappe_rooms::SignedMember;
use chappe_web::Ruma;
use ruma::{
    ServerName,
    api::federation::membership::create_leave_event::v2::{Request, Response},
};

use crate::{
    Federation, Origin,
    refusal::{Answer, Refusal},
};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    accept(&federation, &origin, request).await?;
    Ok(Ruma(Response::new()))
}

/// The same for the answer of version 1.
pub(in crate::routes) async fn accept(
    federation: &Federation,
    origin: &ServerName,
    request: Request,
) -> Result<(), Refusal> {
    federation.gate(origin, &request.room_id).await?;
    let member = SignedMember { event_id: request.event_id, pdu: request.pdu };
    Ok(federation.rooms().accept_leave(origin, &request.room_id, member).await?)
}
