//! `PUT /_matrix/federation/v1/invite/{roomId}/{eventId}`: the invite to a room of version 1 or 2, which this server does
//! not take part in; newer rooms invite by version 2 of this endpoint.

use axum::extract::State;
use chappe_rooms::Error;
use ruma::api::federation::membership::create_leave_event::v2::Request as WholeEvent;

use crate::{Federation, Origin, refusal::Refusal};

pub(in crate::routes) async fn handler(
    State(_): State<Federation>,
    Origin { .. }: Origin<WholeEvent>,
) -> Refusal {
    Error::UnsupportedRoomVersion("1".to_owned()).into()
}
