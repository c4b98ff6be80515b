//! `GET /register/available`: whether a name can still be had.

use axum::extract::State;
use chappe_accounts::{Accounts, UserKind};
use chappe_web::{Origin, Ruma};
use ruma::api::client::account::get_username_availability::v3::{Request, Response};

use crate::{error::Result, rates::Limits};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(limits): State<Limits>,
    origin: Origin,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    limits.ip("registration", origin, |rates| rates.registration)?;
    accounts.check_available(&request.username, UserKind::User).await?;
    Ok(Ruma(Response::new(true)))
}
