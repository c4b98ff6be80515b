//! `GET /rooms/{roomId}/timestamp_to_event`: the event nearest to a time.

use axum::extract::State;
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::api::client::room::get_event_by_timestamp::v1::{Request, Response};

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    let (actor, room) = (requester.actor(), &request.room_id);
    let (event, ts) = rooms.timestamp_to_event(&actor, room, request.ts, request.dir).await?;
    Ok(Ruma(Response::new(event, ts)))
}
