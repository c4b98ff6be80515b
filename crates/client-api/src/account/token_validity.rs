//! `GET /register/m.login.registration_token/validity`: whether a registration token is good.

use std::sync::Arc;

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::{Origin, Ruma};
use ruma::api::client::account::check_registration_token_validity::v1::{Request, Response};

use crate::{Config, error::Result, rates::Limits};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(config): State<Arc<Config>>,
    State(limits): State<Limits>,
    origin: Origin,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    limits.ip("registration", origin, |rates| rates.registration)?;
    if !config.registration.token {
        return Err(chappe_web::Error::forbidden("This server does not register with tokens").into());
    }
    Ok(Ruma(Response::new(accounts.registration_token_valid(&request.token).await?)))
}
