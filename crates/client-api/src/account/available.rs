//! `GET /register/available`: whether a name can still be had.

use std::sync::Arc;

use axum::extract::State;
use chappe_accounts::{Accounts, UserKind};
use chappe_web::{Origin, RateLimiter, Ruma};
use ruma::api::client::account::get_username_availability::v3::{Request, Response};

use crate::{Config, error::Result, rates::by_ip};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(config): State<Arc<Config>>,
    State(limiter): State<RateLimiter>,
    origin: Origin,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    by_ip(&limiter, "registration", origin, config.rates.registration)?;
    accounts.check_available(&request.username, UserKind::User).await?;
    Ok(Ruma(Response::new(true)))
}
