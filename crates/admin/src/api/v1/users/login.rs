//! `POST /v1/users/{userId}/login`: an access token with which an administrator acts as a user.
//!
//! The session stands in the user's list of devices and says whose it is: in a public administration nobody acts in
//! somebody's name unseen. Logging it out ends it.

use axum::{Json, extract::State};
use chappe_accounts::{LogIn, LogInMethod, Refreshing};
use chappe_web::Arguments;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Administrator, Api, Body, Result};

#[derive(Deserialize)]
pub(super) struct Request {
    valid_until_ms: Option<u64>,
}

pub(super) async fn handler(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(user): Arguments<OwnedUserId>,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    administrator.not_oneself(&user)?;
    api.account(&user).await?;
    let log_in = LogIn {
        user_id: user.clone(),
        device_id: None,
        device_name: Some(format!("Session of the administrator {}", administrator.user())),
        refreshing: Refreshing::No,
        by: Some(LogInMethod::Administrator),
    };
    let issued = api.accounts.log_in_until(log_in, request.valid_until_ms).await?;
    tracing::info!(administrator = %administrator.user(), %user, "an administrator acts as a user");
    Ok(Json(json!({ "access_token": issued.access_token })))
}
