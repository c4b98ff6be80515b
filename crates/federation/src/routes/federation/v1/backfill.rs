//! `GET /_matrix/federation/v1/backfill/{roomId}`: older events.

use axum::extract::State;
use ruma::api::federation::backfill::get_backfill::v1::{Request, Response};

use crate::{
    Federation, Origin,
    answers::{Kind, LongAnswer},
};

/// Events given at once.
const MOST: u16 = 100;

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> LongAnswer {
    federation.gate(&origin, &request.room_id).await?;
    let turn = federation.turn(Kind::History, &origin).await?;
    let limit = u16::try_from(u64::from(request.limit)).unwrap_or(u16::MAX).min(MOST);
    let from: Vec<_> = request.v.into_iter().take(20).collect();
    let pdus = federation.rooms().backfill_for(&origin, &request.room_id, &from, limit).await?;
    let network = federation.network();
    federation.in_turn(turn, Response::new(network.server().to_owned(), network.timestamp(), pdus))
}
