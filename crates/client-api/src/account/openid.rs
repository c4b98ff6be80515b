//! `POST /user/{userId}/openid/request_token`: a token with which the user proves to others who it is.

use std::time::Duration;

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::{
    api::client::account::request_openid_token::v3::{Request, Response},
    authentication::TokenType,
};

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    requester.must_be(&request.user_id)?;
    let (token, expires_in_ms) = accounts.openid_token(requester.user()).await?;
    let server = accounts.server_name().to_owned();
    Ok(Ruma(Response::new(token, TokenType::Bearer, server, Duration::from_millis(expires_in_ms))))
}
