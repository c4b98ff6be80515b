//! `POST /rooms/{roomId}/invite`: ask somebody in.

use std::sync::Arc;

use axum::extract::State;
use chappe_rooms::{Change, Rooms};
use chappe_web::{RateLimiter, Ruma};
use ruma::api::client::membership::invite_user::v3::{InvitationRecipient, Request, Response};

use crate::{Config, error::Result, rates::by_user, requester::Acting};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(config): State<Arc<Config>>,
    State(limiter): State<RateLimiter>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    by_user(&limiter, "invite", requester.user(), config.rates.invite)?;
    let InvitationRecipient::UserId(invited) = request.recipient else {
        let error = "Addresses are invited through the identity service of this network";
        return Err(chappe_web::Error::forbidden(error).into());
    };
    let (actor, room) = (requester.actor(), &request.room_id);
    rooms.change(&actor, room, &invited.user_id, Change::Invite, invited.reason).await?;
    Ok(Ruma(Response::new()))
}
