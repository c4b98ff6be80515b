//! `PUT /_matrix/federation/v1/3pid/onbind`: an identity server says that an address is a local user's now, and which
//! invites waited for it.

use axum::extract::State;
use chappe_rooms::BoundInvite;
use chappe_web::{Error, Ruma};
use http::StatusCode;
use ruma::{
    api::federation::thirdparty::{
        bind_callback::v1::{Request, Response, ThirdPartyInvite as Waiting},
        exchange_invite,
    },
    events::room::member::ThirdPartyInvite,
};

use crate::{
    Federation,
    refusal::{Answer, Refusal},
};

/// Invites dealt with at once.
const MOST: usize = 50;

/// Nobody has signed this request. What counts is the identity server's signature in each invite, and it is the inviting
/// user's server, in the room, that checks it against the room.
pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Ruma(request): Ruma<Request>,
) -> Answer<Response> {
    federation.local(&request.mxid)?;
    if federation.accounts().user(&request.mxid).await?.is_none() {
        return Err(Refusal::not_found());
    }
    if request.invites.len() > MOST {
        return Err(Error::invalid_param("Too many invites at once").into());
    }
    let mut unreached = false;
    for invite in request.invites.into_iter().filter(|invite| invite.mxid == request.mxid) {
        unreached |= !hand_on(&federation, invite).await?;
    }
    if unreached {
        let why = "The server of an inviting user was not reached";
        return Err(Error::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", why).into());
    }
    Ok(Ruma(Response::new()))
}

/// Has an invite made, here or by the server of whoever invites; false if that was not reached.
async fn hand_on(federation: &Federation, invite: Waiting) -> Result<bool, Refusal> {
    let network = federation.network();
    let room = invite.room_id.clone();
    let done = if invite.sender.server_name() == network.server() {
        let signed = serde_json::from_str(invite.signed.json().get())
            .map_err(|error| Error::bad_json(error.to_string()))?;
        let bound = BoundInvite { sender: invite.sender, invited: invite.mxid, signed };
        federation.rooms().exchange_invite(&room, bound).await
    } else {
        let peer = invite.sender.server_name().to_owned();
        // The room knows what the invited is to be called.
        let third_party = ThirdPartyInvite::new(String::new(), invite.signed);
        let request = exchange_invite::v1::Request::with_third_party_invite(
            invite.room_id,
            invite.sender,
            invite.mxid,
            third_party,
        );
        let request = request.map_err(|error| Error::bad_json(error.to_string()))?;
        network.request(&peer, request, network.brief()).await.map(drop).map_err(chappe_rooms::Error::from)
    };
    match done {
        Ok(()) => Ok(true),
        Err(chappe_rooms::Error::Unreachable) => Ok(false),
        Err(error) => {
            tracing::info!(%room, %error, "an invite that waited for an address came to nothing");
            Ok(true)
        }
    }
}
