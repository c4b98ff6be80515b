//! `POST /_matrix/identity/v2/account/logout`: ends the access token.

use axum::{Json, extract::State};
use chappe_identity::IdentityService;
use serde_json::{Value, json};

use crate::{error::Result, requester::Bearer};

pub(crate) async fn handler(State(service): State<IdentityService>, bearer: Bearer) -> Result<Json<Value>> {
    service.log_out(&bearer.token).await?;
    Ok(Json(json!({})))
}
