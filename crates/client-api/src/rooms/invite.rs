//! `POST /rooms/{roomId}/invite`: ask somebody in, by user id or by e-mail address.

use axum::extract::State;
use chappe_identity::{Email, IdentityService};
use chappe_rooms::{AddressInvite, Change, Rooms};
use chappe_web::Ruma;
use ruma::{
    api::client::membership::{
        Invite3pid,
        invite_user::v3::{InvitationRecipient, Request, Response},
    },
    thirdparty::Medium,
};

use crate::{
    error::Result,
    rates::Limits,
    requester::{Acting, Requester},
};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(service): State<IdentityService>,
    State(limits): State<Limits>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    limits.user("invite", &requester, |rates| rates.invite)?;
    let (actor, room) = (requester.actor(), &request.room_id);
    match request.recipient {
        InvitationRecipient::UserId(invited) => {
            rooms.change(&actor, room, &invited.user_id, Change::Invite, invited.reason).await?;
        }
        InvitationRecipient::ThirdPartyId(invited) => {
            let invite = address_invite(&service, &limits, &requester, &invited).await?;
            rooms.invite_address(&actor, room, &invite).await?;
        }
        _ => return Err(chappe_web::Error::invalid_param("Nobody that can be invited").into()),
    }
    Ok(Ruma(Response::new()))
}

/// The invitation of an address in the form that rooms take, by the identity server that the client names.
pub(super) async fn address_invite(
    service: &IdentityService,
    limits: &Limits,
    requester: &Requester,
    invited: &Invite3pid,
) -> Result<AddressInvite> {
    limits.user("address_invite", requester, |rates| rates.address_invite)?;
    if invited.medium != Medium::Email {
        return Err(chappe_web::Error::forbidden("Only e-mail addresses can be invited").into());
    }
    let address = Email::parse(&invited.address).map_err(chappe_identity::Error::from)?;
    let server = service.server_for(requester.user(), &invited.id_server, &invited.id_access_token).await?;
    Ok(AddressInvite { address, server })
}
