//! `POST /_matrix/federation/unstable/users/info`: how accounts of this server stand. Others are left out.

use axum::{Json, extract::State};
use chappe_web::Error;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::Value;

use super::Networked;
use crate::{Federation, auth::SignedJson, refusal::Refusal};

/// Users of one question at most.
const MOST: usize = 500;

#[derive(Deserialize)]
pub(in crate::routes) struct Body {
    user_ids: Vec<String>,
}

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    _: Networked,
    SignedJson { origin, body }: SignedJson<Body>,
) -> Result<Json<Value>, Refusal> {
    let network = federation.network();
    network.count("user infos", origin.as_str(), network.config().rates.directory)?;
    if body.user_ids.len() > MOST {
        return Err(Error::invalid_param("These are too many users").into());
    }
    let users: Vec<OwnedUserId> = body.user_ids.into_iter().filter_map(|id| id.try_into().ok()).collect();
    let own: Vec<OwnedUserId> = users.into_iter().filter(|user| federation.local(user).is_ok()).collect();
    let infos = federation.accounts().user_infos(&own).await?;
    Ok(Json(serde_json::to_value(infos).map_err(Error::internal)?))
}
