//! `POST /logout/all`: ends all devices of the user.

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::session::logout_all::v3::Response;

use crate::{error::Result, requester::Leaving};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    Leaving(requester): Leaving,
) -> Result<Ruma<Response>> {
    accounts.log_out_all(requester.user()).await?;
    Ok(Ruma(Response::new()))
}
