//! `PUT /v1/suspend/{userId}`: let an account read and not act.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Administrator, Api, Body, Result};

#[derive(Deserialize)]
pub(super) struct Request {
    suspend: bool,
}

pub(super) async fn handler(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(user): Arguments<OwnedUserId>,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    administrator.not_oneself(&user)?;
    api.account(&user).await?;
    let changed = api.accounts.update_user(&user, |user| user.suspended = request.suspend).await?;
    let said = format!("user_{user}_suspended");
    Ok(Json(json!({ said: changed.suspended })))
}
