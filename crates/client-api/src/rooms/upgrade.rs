//! `POST /rooms/{roomId}/upgrade`: a new room takes over.

use axum::extract::State;
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::api::client::room::upgrade_room::v3::{Request, Response};

use crate::{error::Result, rates::Limits, requester::Acting};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    limits.user("join", &requester, |rates| rates.join)?;
    let (version, creators) = (request.new_version, request.additional_creators);
    Ok(Ruma(Response::new(rooms.upgrade(&requester.actor(), &request.room_id, version, creators).await?)))
}
