//! `POST /createRoom`: a new room.

use axum::extract::State;
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::api::client::room::create_room::v3::{Request, Response};

use crate::{error::Result, rates::Limits, requester::Acting};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    limits.user("join", &requester, |rates| rates.join)?;
    Ok(Ruma(Response::new(rooms.create(&requester.actor(), request).await?)))
}
