//! `POST /_matrix/identity/v2/sign-ed25519`: signs an invitation for a client that has the key of its mail.

use axum::{Json, extract::State};
use chappe_identity::IdentityService;
use chappe_web::Payload;
use ruma::{CanonicalJsonObject, OwnedUserId};
use serde::Deserialize;

use crate::{error::Result, requester::Member};

#[derive(Deserialize)]
pub(crate) struct Body {
    mxid: OwnedUserId,
    token: String,
    private_key: String,
}

pub(crate) async fn handler(
    State(service): State<IdentityService>,
    _: Member,
    Payload(body): Payload<Body>,
) -> Result<Json<CanonicalJsonObject>> {
    Ok(Json(service.sign_invite(&body.token, &body.private_key, &body.mxid).await?))
}
