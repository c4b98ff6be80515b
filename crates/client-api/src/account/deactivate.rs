//! `POST /account/deactivate`: closes the account and leaves its rooms.

use axum::extract::State;
use chappe_accounts::{Accounts, Erase};
use chappe_rooms::Rooms;
use chappe_web::{Ruma, WithBody};
use ruma::api::client::account::{
    ThirdPartyIdRemovalStatus,
    deactivate::v3::{Request, Response},
};

use crate::{error::Result, requester::Requester, uia::ask_password};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(rooms): State<Rooms>,
    requester: Requester,
    WithBody(request, body): WithBody<Request>,
) -> Result<Ruma<Response>> {
    ask_password(&accounts, &requester, ("POST", "/account/deactivate"), &body, request.auth.as_ref())
        .await?;
    let erase = if request.erase { Erase::Yes } else { Erase::No };
    accounts.deactivate(requester.user(), erase).await?;
    rooms.leave_all(requester.user().to_owned());
    Ok(Ruma(Response::new(ThirdPartyIdRemovalStatus::NoSupport)))
}
