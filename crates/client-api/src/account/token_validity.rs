//! `GET /register/m.login.registration_token/validity`: whether a registration token is good.

use std::sync::Arc;

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::{Origin, RateLimiter, Ruma};
use ruma::api::client::account::check_registration_token_validity::v1::{Request, Response};

use crate::{Config, error::Result, rates::by_ip};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(config): State<Arc<Config>>,
    State(limiter): State<RateLimiter>,
    origin: Origin,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    by_ip(&limiter, "registration", origin, config.rates.registration)?;
    if !config.registration.token {
        return Err(chappe_web::Error::forbidden("This server does not register with tokens").into());
    }
    Ok(Ruma(Response::new(accounts.registration_token_valid(&request.token).await?)))
}
