//! `PUT /_matrix/federation/v1/3pid/onbind`: an identity server says that an address is a local user's now, and which
//! invites waited for it.

use axum::extract::{FromRequest, State};
use chappe_rooms::{BoundInvite, Peers};
use chappe_web::{Error, Ruma};
use http::{Method, StatusCode};
use ruma::api::federation::thirdparty::bind_callback::v1::{Request, Response, ThirdPartyInvite as Waiting};

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
    if hand_all_on(&federation, request).await? {
        return Ok(Ruma(Response::new()));
    }
    let why = "The server of an inviting user was not reached";
    Err(Error::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", why).into())
}

/// The same for identity servers that post it, as the first one did and still does.
pub(in crate::routes) async fn posted(
    State(federation): State<Federation>,
    mut request: axum::extract::Request,
) -> Answer<Response> {
    *request.method_mut() = Method::PUT;
    let request = Ruma::from_request(request, &federation).await?;
    handler(State(federation), request).await
}

/// Has every invite of the user made; false if a server that has to was not reached.
pub(crate) async fn hand_all_on(federation: &Federation, request: Request) -> Result<bool, Refusal> {
    if federation.accounts().user(&request.mxid).await?.is_none() {
        return Err(Refusal::not_found());
    }
    if request.invites.len() > MOST {
        return Err(Error::invalid_param("Too many invites at once").into());
    }
    let mut reached = true;
    for invite in request.invites.into_iter().filter(|invite| invite.mxid == request.mxid) {
        reached &= hand_on(federation, invite).await?;
    }
    Ok(reached)
}

/// Has an invite made, here or by the server of whoever invites; false if that was not reached.
async fn hand_on(federation: &Federation, invite: Waiting) -> Result<bool, Refusal> {
    let network = federation.network();
    let room = invite.room_id;
    let signed = serde_json::from_str(invite.signed.json().get())
        .map_err(|error| Error::bad_json(error.to_string()))?;
    let bound = BoundInvite { sender: invite.sender, invited: invite.mxid, signed };
    let done = if bound.sender.server_name() == network.server() {
        federation.rooms().exchange_invite(&room, bound).await
    } else {
        network.exchange_invite(&room, bound).await.map_err(chappe_rooms::Error::from)
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
