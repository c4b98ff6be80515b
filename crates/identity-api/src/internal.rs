//! `POST /_matrix/identity/internal/bind` and `/unbind`: what this network's own servers say without proof.

use axum::{Json, extract::State};
use chappe_identity::{Email, IdentityService};
use chappe_web::Payload;
use ruma::{CanonicalJsonObject, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Result;

#[derive(Deserialize)]
pub(crate) struct Bind {
    address: String,
    medium: String,
    mxid: OwnedUserId,
}

impl Bind {
    fn email(&self) -> Result<Email> {
        crate::v1::email(&self.medium, &self.address)
    }
}

pub(crate) async fn bind(
    State(service): State<IdentityService>,
    Payload(bind): Payload<Bind>,
) -> Result<Json<CanonicalJsonObject>> {
    Ok(Json(service.bind_unproved(&bind.email()?, &bind.mxid).await?))
}

pub(crate) async fn unbind(
    State(service): State<IdentityService>,
    Payload(bind): Payload<Bind>,
) -> Result<Json<Value>> {
    service.unbind(&bind.email()?, &bind.mxid).await?;
    Ok(Json(json!({})))
}
