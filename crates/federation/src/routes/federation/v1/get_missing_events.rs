//! `POST /_matrix/federation/v1/get_missing_events/{roomId}`: events between others.

use axum::extract::State;
use chappe_rooms::Gap;
use ruma::api::federation::event::get_missing_events::v1::{Request, Response};

use crate::{
    Federation, Origin,
    answers::{Kind, LongAnswer},
};

/// Events given at once.
const MOST: u16 = 50;

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> LongAnswer {
    federation.gate(&origin, &request.room_id).await?;
    let turn = federation.turn(Kind::History, &origin).await?;
    let gap = Gap {
        earliest: request.earliest_events.into_iter().take(50).collect(),
        latest: request.latest_events.into_iter().take(50).collect(),
        limit: u16::try_from(u64::from(request.limit)).unwrap_or(u16::MAX).min(MOST),
        min_depth: request.min_depth,
    };
    let events = federation.rooms().missing_events_for(&origin, &request.room_id, gap).await?;
    federation.in_turn(turn, Response::new(events))
}
