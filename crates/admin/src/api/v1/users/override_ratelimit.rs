//! `/v1/users/{userId}/override_ratelimit`: how often a user may send messages, instead of what the configuration says.

use axum::{Json, extract::State};
use chappe_accounts::OwnRate;
use chappe_web::Arguments;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Body, Result};

/// 0 a second, which is what is left out, is without a limit.
#[derive(Deserialize)]
pub(super) struct Request {
    #[serde(default)]
    messages_per_second: u32,
    #[serde(default)]
    burst_count: u32,
}

pub(super) async fn show(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
) -> Result<Json<Value>> {
    Ok(Json(written(api.account(&user).await?.rate)))
}

pub(super) async fn set(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    api.account(&user).await?;
    let rate = OwnRate { per_second: request.messages_per_second, burst: request.burst_count };
    let changed = api.accounts.update_user(&user, |user| user.rate = Some(rate)).await?;
    Ok(Json(written(changed.rate)))
}

pub(super) async fn remove(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
) -> Result<Json<Value>> {
    api.account(&user).await?;
    api.accounts.update_user(&user, |user| user.rate = None).await?;
    Ok(Json(json!({})))
}

fn written(rate: Option<OwnRate>) -> Value {
    rate.map_or_else(
        || json!({}),
        |rate| json!({ "messages_per_second": rate.per_second, "burst_count": rate.burst }),
    )
}
