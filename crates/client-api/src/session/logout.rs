//! `POST /logout`: ends the device of the token.

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::session::logout::v3::Response;

use crate::{error::Result, requester::Leaving};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    Leaving(requester): Leaving,
) -> Result<Ruma<Response>> {
    accounts.log_out(requester.user(), requester.device()?).await?;
    Ok(Ruma(Response::new()))
}
