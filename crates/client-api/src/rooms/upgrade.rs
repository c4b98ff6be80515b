//! `POST /rooms/{roomId}/upgrade`: a new room takes over.

use std::sync::Arc;

use axum::extract::State;
use chappe_rooms::Rooms;
use chappe_web::{RateLimiter, Ruma};
use ruma::api::client::room::upgrade_room::v3::{Request, Response};

use crate::{Config, error::Result, rates::by_user, requester::Acting};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(config): State<Arc<Config>>,
    State(limiter): State<RateLimiter>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    by_user(&limiter, "join", requester.user(), config.rates.join)?;
    let (version, creators) = (request.new_version, request.additional_creators);
    Ok(Ruma(Response::new(rooms.upgrade(&requester.actor(), &request.room_id, version, creators).await?)))
}
