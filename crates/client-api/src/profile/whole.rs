//! `GET /profile/{userId}`: all fields.

use std::sync::Arc;

use axum::{Json, extract::State};
use chappe_accounts::{Accounts, RemoteUsers};
use chappe_web::{Origin, Ruma};
use ruma::api::client::profile::get_profile::v3::Request;
use serde_json::{Value, json};

use crate::{error::Result, rates::Limits, requester::Anybody};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(remote): State<Arc<dyn RemoteUsers>>,
    State(limits): State<Limits>,
    origin: Origin,
    Anybody(requester): Anybody,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    let user = &request.user_id;
    let profile = if accounts.is_local(user) {
        accounts.profile(&accounts.read(), user).await?
    } else {
        limits.asking(requester.as_ref(), origin)?;
        remote.profile(user, None).await?
    };
    Ok(Json(json!(profile.fields)))
}
