//! `GET /_matrix/federation/v1/backfill/{roomId}`: older events.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::api::federation::backfill::get_backfill::v1::{Request, Response};

use crate::{Federation, Origin, refusal::Answer};

/// Events given at once.
const MOST: u16 = 100;

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    federation.gate(&origin, &request.room_id).await?;
    let limit = u16::try_from(u64::from(request.limit)).unwrap_or(u16::MAX).min(MOST);
    let from: Vec<_> = request.v.into_iter().take(20).collect();
    let pdus = federation.rooms().backfill_for(&origin, &request.room_id, &from, limit).await?;
    let network = federation.network();
    Ok(Ruma(Response::new(network.server().to_owned(), network.timestamp(), pdus)))
}
