//! `POST /account/deactivate`: closes the account and leaves its rooms.

use axum::extract::State;
use chappe_accounts::{Accounts, Erase};
use chappe_rooms::Rooms;
use chappe_web::{Ruma, WithBody};
use ruma::api::client::account::{
    ThirdPartyIdRemovalStatus,
    deactivate::v3::{Request, Response},
};

use crate::{error::Result, requester::Requester, uia::Uia};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(uia): State<Uia>,
    State(rooms): State<Rooms>,
    requester: Requester,
    WithBody(request, body): WithBody<Request>,
) -> Result<Ruma<Response>> {
    // An application service closes what is its alone, and nobody else's account.
    if !requester.appservice().is_some_and(|service| service.owns_user(requester.user())) {
        let operation = ("POST", "/account/deactivate");
        uia.ask(&requester, operation, &body, request.auth.as_ref()).await?;
    }
    let erase = if request.erase { Erase::Yes } else { Erase::No };
    accounts.deactivate(requester.user(), erase).await?;
    rooms.leave_all(requester.user().to_owned());
    Ok(Ruma(Response::new(ThirdPartyIdRemovalStatus::NoSupport)))
}
