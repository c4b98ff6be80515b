//! `POST /rooms/{roomId}/invite`: ask somebody in.

use axum::extract::State;
use chappe_rooms::{Change, Rooms};
use chappe_web::Ruma;
use ruma::api::client::membership::invite_user::v3::{InvitationRecipient, Request, Response};

use crate::{error::Result, rates::Limits, requester::Acting};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    limits.user("invite", &requester, |rates| rates.invite)?;
    let InvitationRecipient::UserId(invited) = request.recipient else {
        let error = "Addresses are invited through the identity service of this network";
        return Err(chappe_web::Error::forbidden(error).into());
    };
    let (actor, room) = (requester.actor(), &request.room_id);
    rooms.change(&actor, room, &invited.user_id, Change::Invite, invited.reason).await?;
    Ok(Ruma(Response::new()))
}
