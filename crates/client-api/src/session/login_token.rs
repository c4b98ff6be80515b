//! `POST /login/get_token`: a token with which another device logs in once.

use std::time::Duration;

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::session::get_login_token::v1::{Request, Response};

use crate::{
    error::Result,
    requester::Requester,
    uia::{Confirmed, Uia},
};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(uia): State<Uia>,
    requester: Requester,
    Confirmed(request, body): Confirmed<Request>,
) -> Result<Ruma<Response>> {
    uia.ask(&requester, ("POST", "/login/get_token"), &body, request.auth.as_ref()).await?;
    let (token, expires_in_ms) = accounts.login_token(requester.user()).await?;
    Ok(Ruma(Response::new(Duration::from_millis(expires_in_ms), token)))
}
