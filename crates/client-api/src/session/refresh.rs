//! `POST /refresh`: a new access token for a refresh token.

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::session::refresh_token::v3::{Request, Response};

use crate::{error::Result, session::lifetime};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    let issued = accounts.refresh(&request.refresh_token).await?;
    let mut response = Response::new(issued.access_token.clone());
    response.expires_in_ms = lifetime(&issued);
    response.refresh_token = issued.refresh_token;
    Ok(Ruma(response))
}
