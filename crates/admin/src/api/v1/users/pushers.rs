//! `GET /v1/users/{userId}/pushers`: where a user's notifications go.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use ruma::OwnedUserId;
use serde_json::{Value, json};

use crate::api::{Api, Result};

pub(super) async fn handler(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
) -> Result<Json<Value>> {
    api.account(&user).await?;
    let pushers = api.accounts.pushers(&api.accounts.read(), &user).await?;
    let pushers: Vec<Value> = pushers.into_iter().map(|pusher| pusher.pusher).collect();
    Ok(Json(json!({ "total": pushers.len(), "pushers": pushers })))
}
