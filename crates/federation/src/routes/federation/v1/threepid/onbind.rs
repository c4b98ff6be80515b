//! `PUT /_matrix/federation/v1/3pid/onbind`: an identity server says that an address is a local user's now, and which
//! invites waited for it.

use axum::extract::{FromRequest, FromRequestParts, Request as Incoming, State};
use chappe_rooms::{BoundInvite, Error as RoomError, Peers};
use chappe_web::{Error, Origin as Address, Ruma};
use http::{Method, StatusCode};
use ruma::api::federation::thirdparty::bind_callback::v1::{Request, Response, ThirdPartyInvite as Waiting};

use crate::{
    Federation,
    refusal::{Answer, Refusal},
};

/// Invites dealt with at once.
const MOST: usize = 50;

/// Nobody has signed this request. What counts is the identity server's signature in each invite, and it is the inviting
/// user's server, in the room, that checks it against the room. So it is counted by where it comes from, and by whom it has
/// asked; and it does not tell who has an account here.
pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    request: Incoming,
) -> Answer<Response> {
    let (network, rates) = (federation.network(), federation.network().config().rates.clone());
    let (mut parts, body) = request.into_parts();
    let Ok(address) = Address::from_request_parts(&mut parts, &federation).await;
    network.count("bound addresses", &address.subject(), rates.bound)?;
    let Ruma(mut request) =
        Ruma::<Request>::from_request(Incoming::from_parts(parts, body), &federation).await?;
    federation.local(&request.mxid)?;
    check(&request)?;
    let elsewhere = |invite: &Waiting| invite.sender.server_name() != network.server();
    for _ in request.invites.iter().filter(|invite| elsewhere(invite)) {
        network.count("bound addresses", &address.subject(), rates.bound)?;
    }
    let asked = request.invites.len();
    request.invites.retain(|invite| {
        let to = invite.sender.server_name().as_str();
        !elsewhere(invite) || network.count("invites of bound addresses", to, rates.bound_invites).is_ok()
    });
    let all = request.invites.len() == asked;
    if hand_all_on(&federation, request).await? && all {
        return Ok(Ruma(Response::new()));
    }
    let why = "The server of an inviting user was not reached";
    Err(Error::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", why).into())
}

/// The same for identity servers that post it, as the first one did and still does.
pub(in crate::routes) async fn posted(
    State(federation): State<Federation>,
    mut request: Incoming,
) -> Answer<Response> {
    *request.method_mut() = Method::PUT;
    handler(State(federation), request).await
}

fn check(request: &Request) -> Result<(), Error> {
    if request.invites.len() > MOST { Err(Error::invalid_param("Too many invites at once")) } else { Ok(()) }
}

/// Has every invite of the user made; false if a server that has to was not reached.
pub(crate) async fn hand_all_on(federation: &Federation, request: Request) -> Result<bool, Refusal> {
    check(&request)?;
    let mut reached = true;
    for invite in request.invites.into_iter().filter(|invite| invite.mxid == request.mxid) {
        reached &= hand_on(federation, invite).await?;
    }
    Ok(reached)
}

/// Has an invite made, here or by the server of whoever invites; false if that was not reached, or could not do it now.
async fn hand_on(federation: &Federation, invite: Waiting) -> Result<bool, Refusal> {
    let network = federation.network();
    let room = invite.room_id;
    let signed = serde_json::from_str(invite.signed.json().get())
        .map_err(|error| Error::bad_json(error.to_string()))?;
    let user = federation.accounts().user(&invite.mxid).await?;
    let bound = BoundInvite { sender: invite.sender, invited: invite.mxid, signed };
    let done = if bound.sender.server_name() != network.server() {
        // It asks here whether there is such a user.
        network.exchange_invite(&room, bound).await.map_err(RoomError::from)
    } else if user.is_some_and(|user| user.deactivated.is_none()) {
        federation.rooms().exchange_invite(&room, bound).await
    } else {
        Err(RoomError::NotFound("user"))
    };
    if let Err(error) = &done {
        tracing::info!(%room, %error, "an invite that waited for an address was not made");
    }
    Ok(is_settled(&done))
}

/// Whether there is nothing more to do about an invite: it was made, or never will be.
fn is_settled(done: &Result<(), RoomError>) -> bool {
    !matches!(done, Err(RoomError::Unreachable | RoomError::Retry | RoomError::Store(_)))
}

#[cfg(test)]
mod tests {
    use super::{RoomError, is_settled};

    #[test]
    fn what_may_go_well_another_time_is_not_settled() {
        let damaged = RoomError::Store(chappe_store::Error::Corrupt("x"));
        for passing in [RoomError::Unreachable, RoomError::Retry, damaged] {
            assert!(!is_settled(&Err(passing)));
        }
        assert!(is_settled(&Ok(())) && is_settled(&Err(RoomError::NotFound("room"))));
        assert!(is_settled(&Err(RoomError::Forbidden("no".to_owned()))));
    }
}
