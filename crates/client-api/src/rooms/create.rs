//! `POST /createRoom`: a new room.

use std::sync::Arc;

use axum::extract::State;
use chappe_rooms::Rooms;
use chappe_web::{RateLimiter, Ruma};
use ruma::api::client::room::create_room::v3::{Request, Response};

use crate::{Config, error::Result, rates::by_user, requester::Acting};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(config): State<Arc<Config>>,
    State(limiter): State<RateLimiter>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    by_user(&limiter, "join", requester.user(), config.rates.join)?;
    Ok(Ruma(Response::new(rooms.create(&requester.actor(), request).await?)))
}
