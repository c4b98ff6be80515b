//! `POST /_chappe/admin/v1/users/{userId}/log_out`: end all devices of a user and its log-ins in browsers.

use axum::{Json, extract::State};
use chappe_web::{Arguments, Routes};
use ruma::OwnedUserId;
use serde_json::{Value, json};

use crate::api::{Api, Result, v1::Place as _};

pub(super) fn routes() -> Routes<Api> {
    Routes::new().post("/_chappe/admin/v1/users/{user_id}/log_out", log_out)
}

async fn log_out(State(api): State<Api>, Arguments(user): Arguments<OwnedUserId>) -> Result<Json<Value>> {
    api.account(&user).await?;
    let devices = api.accounts.log_out_all(&user).await?;
    Ok(Json(json!({ "devices": devices })))
}
