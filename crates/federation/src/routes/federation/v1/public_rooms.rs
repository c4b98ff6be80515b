//! `GET` and `POST /_matrix/federation/v1/publicRooms`: the public rooms of this server.

use axum::extract::State;
use chappe_rooms::{PublicRooms, PublicRoomsRequest};
use chappe_web::Ruma;
use ruma::{
    UInt,
    api::federation::directory::{get_public_rooms, get_public_rooms_filtered},
};

use crate::{Federation, Origin, refusal::Answer};

pub(in crate::routes) async fn all(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<get_public_rooms::v1::Request>,
) -> Answer<get_public_rooms::v1::Response> {
    let (since, network) = (request.since, request.room_network);
    let wanted =
        PublicRoomsRequest { limit: limit(request.limit), since, network, ..PublicRoomsRequest::default() };
    let PublicRooms { chunk, next_batch, prev_batch, total } =
        federation.rooms().public_rooms_for(&origin, &wanted).await?;
    let mut response = get_public_rooms::v1::Response::new();
    (response.chunk, response.next_batch, response.prev_batch) = (chunk, next_batch, prev_batch);
    response.total_room_count_estimate = total.map(UInt::new_saturating);
    Ok(Ruma(response))
}

pub(in crate::routes) async fn filtered(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<get_public_rooms_filtered::v1::Request>,
) -> Answer<get_public_rooms_filtered::v1::Response> {
    let (since, filter, network) = (request.since, request.filter, request.room_network);
    let wanted = PublicRoomsRequest { server: None, limit: limit(request.limit), since, filter, network };
    let PublicRooms { chunk, next_batch, prev_batch, total } =
        federation.rooms().public_rooms_for(&origin, &wanted).await?;
    let mut response = get_public_rooms_filtered::v1::Response::new();
    (response.chunk, response.next_batch, response.prev_batch) = (chunk, next_batch, prev_batch);
    response.total_room_count_estimate = total.map(UInt::new_saturating);
    Ok(Ruma(response))
}

/// 0 stands for no limit; the rest comes with the next pages.
fn limit(asked: Option<UInt>) -> Option<u64> {
    asked.map(u64::from).filter(|limit| *limit > 0)
}
