//! `GET /profile/{userId}`: all fields.

use std::sync::Arc;

use axum::{Json, extract::State};
use chappe_accounts::{Accounts, RemoteUsers};
use chappe_web::Ruma;
use ruma::api::client::profile::get_profile::v3::Request;
use serde_json::{Value, json};

use crate::error::Result;

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(remote): State<Arc<dyn RemoteUsers>>,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    let user = &request.user_id;
    let profile = if accounts.is_local(user) {
        accounts.profile(&accounts.read(), user).await?
    } else {
        remote.profile(user, None).await?
    };
    Ok(Json(json!(profile.fields)))
}
