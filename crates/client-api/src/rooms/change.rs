//! `POST /rooms/{roomId}/kick`, `/ban` and `/unban`: what one member does to another.

use axum::extract::State;
use chappe_rooms::{Change, Rooms};
use chappe_web::Ruma;
use ruma::api::client::membership::{ban_user, kick_user, unban_user};

use crate::{error::Result, requester::Acting};

pub(super) async fn kick(
    State(rooms): State<Rooms>,
    requester: Acting,
    Ruma(request): Ruma<kick_user::v3::Request>,
) -> Result<Ruma<kick_user::v3::Response>> {
    let (actor, room, user) = (requester.actor(), &request.room_id, &request.user_id);
    rooms.change(&actor, room, user, Change::Kick, request.reason).await?;
    Ok(Ruma(kick_user::v3::Response::new()))
}

pub(super) async fn ban(
    State(rooms): State<Rooms>,
    requester: Acting,
    Ruma(request): Ruma<ban_user::v3::Request>,
) -> Result<Ruma<ban_user::v3::Response>> {
    let (actor, room, user) = (requester.actor(), &request.room_id, &request.user_id);
    rooms.change(&actor, room, user, Change::Ban, request.reason).await?;
    Ok(Ruma(ban_user::v3::Response::new()))
}

pub(super) async fn unban(
    State(rooms): State<Rooms>,
    requester: Acting,
    Ruma(request): Ruma<unban_user::v3::Request>,
) -> Result<Ruma<unban_user::v3::Response>> {
    let (actor, room, user) = (requester.actor(), &request.room_id, &request.user_id);
    rooms.change(&actor, room, user, Change::Unban, request.reason).await?;
    Ok(Ruma(unban_user::v3::Response::new()))
}
