//! `POST /rooms/{roomId}/join` and `POST /join/{roomIdOrAlias}`: enter a room.

use std::sync::Arc;

use axum::extract::State;
use chappe_rooms::Rooms;
use chappe_web::{RateLimiter, Ruma};
use ruma::api::client::membership::{join_room_by_id, join_room_by_id_or_alias};

use super::server_of;
use crate::{Config, directory::find, error::Result, rates::by_user, requester::Acting};

pub(super) async fn by_id(
    State(rooms): State<Rooms>,
    State(config): State<Arc<Config>>,
    State(limiter): State<RateLimiter>,
    requester: Acting,
    Ruma(request): Ruma<join_room_by_id::v3::Request>,
) -> Result<Ruma<join_room_by_id::v3::Response>> {
    by_user(&limiter, "join", requester.user(), config.rates.join)?;
    let via = server_of(&request.room_id);
    rooms.join(&requester.actor(), &request.room_id, via, request.reason).await?;
    Ok(Ruma(join_room_by_id::v3::Response::new(request.room_id)))
}

pub(super) async fn by_id_or_alias(
    State(rooms): State<Rooms>,
    State(config): State<Arc<Config>>,
    State(limiter): State<RateLimiter>,
    requester: Acting,
    Ruma(request): Ruma<join_room_by_id_or_alias::v3::Request>,
) -> Result<Ruma<join_room_by_id_or_alias::v3::Response>> {
    by_user(&limiter, "join", requester.user(), config.rates.join)?;
    let (room, via) = find(&rooms, &request.room_id_or_alias, request.via).await?;
    rooms.join(&requester.actor(), &room, via, request.reason).await?;
    Ok(Ruma(join_room_by_id_or_alias::v3::Response::new(room)))
}
