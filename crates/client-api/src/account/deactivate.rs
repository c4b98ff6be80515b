//! `POST /account/deactivate`: closes the account and leaves its rooms.

use axum::extract::State;
use chappe_accounts::{Accounts, Erase};
use chappe_identity::IdentityService;
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::{
    UserId,
    api::client::account::{
        ThirdPartyIdRemovalStatus,
        deactivate::v3::{Request, Response},
    },
};

use crate::{
    error::Result,
    requester::Requester,
    uia::{Confirmed, Uia},
};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(uia): State<Uia>,
    State(rooms): State<Rooms>,
    State(service): State<IdentityService>,
    requester: Requester,
    Confirmed(request, body): Confirmed<Request>,
) -> Result<Ruma<Response>> {
    // An application service closes what is its alone, and nobody else's account.
    if !requester.appservice().is_some_and(|service| service.owns_user(requester.user())) {
        let operation = ("POST", "/account/deactivate");
        uia.ask(&requester, operation, &body, request.auth.as_ref()).await?;
    }
    let erase = if request.erase { Erase::Yes } else { Erase::No };
    let (user, named) = (requester.user(), request.id_server.as_deref());
    let elsewhere = is_bound_elsewhere(&accounts, &service, user, named).await?;
    accounts.deactivate(user, erase).await?;
    rooms.leave_all(user.to_owned());
    let unbound =
        if elsewhere { ThirdPartyIdRemovalStatus::NoSupport } else { ThirdPartyIdRemovalStatus::Success };
    Ok(Ruma(Response::new(unbound)))
}

/// Whether addresses of a user may still be bound once this server has forgotten them: other identity servers are asked
/// later, those where this server had them bound, and may refuse.
async fn is_bound_elsewhere(
    accounts: &Accounts,
    service: &IdentityService,
    user: &UserId,
    named: Option<&str>,
) -> Result<bool> {
    if accounts.bound_at(user).await?.iter().any(|server| !service.is_called(server)) {
        return Ok(true);
    }
    let another_is_named = named.is_some_and(|server| !service.is_called(server));
    Ok(another_is_named && !accounts.threepids(user).await?.is_empty())
}
