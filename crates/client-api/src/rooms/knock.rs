//! `POST /knock/{roomIdOrAlias}`: ask to be invited.

use axum::extract::State;
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::api::client::knock::knock_room::v3::{Request, Response};

use crate::{directory::find, error::Result, rates::Limits, requester::Acting};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    limits.user("join", &requester, |rates| rates.join)?;
    let (room, via) = find(&rooms, &request.room_id_or_alias, request.via).await?;
    rooms.knock(&requester.actor(), &room, via, request.reason).await?;
    Ok(Ruma(Response::new(room)))
}
