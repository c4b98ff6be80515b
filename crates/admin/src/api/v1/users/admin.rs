//! `GET` and `PUT /v1/users/{userId}/admin`: whether a user is a server administrator.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Administrator, Api, Body, Result};

#[derive(Deserialize)]
pub(super) struct Request {
    admin: bool,
}

pub(super) async fn show(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
) -> Result<Json<Value>> {
    Ok(Json(json!({ "admin": api.account(&user).await?.admin })))
}

/// Nobody takes the right from oneself: the last administrator could.
pub(super) async fn set(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(user): Arguments<OwnedUserId>,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    if !request.admin {
        administrator.not_oneself(&user)?;
    }
    api.account(&user).await?;
    api.accounts.update_user(&user, |user| user.admin = request.admin).await?;
    Ok(Json(json!({})))
}
