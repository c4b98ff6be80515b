//! `POST /knock/{roomIdOrAlias}`: ask to be invited.

use std::sync::Arc;

use axum::extract::State;
use chappe_rooms::Rooms;
use chappe_web::{RateLimiter, Ruma};
use ruma::api::client::knock::knock_room::v3::{Request, Response};

use crate::{Config, directory::find, error::Result, rates::by_user, requester::Acting};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(config): State<Arc<Config>>,
    State(limiter): State<RateLimiter>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    by_user(&limiter, "join", requester.user(), config.rates.join)?;
    let (room, via) = find(&rooms, &request.room_id_or_alias, request.via).await?;
    rooms.knock(&requester.actor(), &room, via, request.reason).await?;
    Ok(Ruma(Response::new(room)))
}
