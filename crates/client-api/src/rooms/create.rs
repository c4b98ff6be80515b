//! `POST /createRoom`: a new room.

use axum::extract::State;
use chappe_identity::IdentityService;
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::api::client::room::create_room::v3::{Request, Response};

use super::invite::address_invite;
use crate::{error::Result, rates::Limits, requester::Acting};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(service): State<IdentityService>,
    State(limits): State<Limits>,
    requester: Acting,
    Ruma(mut request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    limits.user("join", &requester, |rates| rates.join)?;
    let addresses = std::mem::take(&mut request.invite_3pid);
    if request.invite.len() + addresses.len() > rooms.config().max_invites_at_creation {
        return Err(chappe_web::Error::invalid_param("too many invites at once").into());
    }
    // What is wrong with an address is told before there is a room.
    let mut invites = Vec::with_capacity(addresses.len());
    for invited in &addresses {
        invites.push(address_invite(&service, &limits, &requester, invited).await?);
    }
    let room = rooms.create_inviting(&requester.actor(), request, &invites).await?;
    Ok(Ruma(Response::new(room)))
}
