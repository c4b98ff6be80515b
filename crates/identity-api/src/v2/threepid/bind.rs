//! `POST /_matrix/identity/v2/3pid/bind`: a validated address is a user's from now on.

use axum::{Json, extract::State};
use chappe_identity::IdentityService;
use chappe_web::{Error, Payload};
use ruma::{CanonicalJsonObject, OwnedClientSecret, OwnedSessionId, OwnedUserId};
use serde::Deserialize;

use crate::{error::Result, requester::Member};

#[derive(Deserialize)]
pub(crate) struct Bind {
    sid: OwnedSessionId,
    client_secret: OwnedClientSecret,
    mxid: OwnedUserId,
}

pub(crate) async fn handler(
    State(service): State<IdentityService>,
    member: Member,
    Payload(bind): Payload<Bind>,
) -> Result<Json<CanonicalJsonObject>> {
    // Else anybody could have an address of their own lead to somebody who knows nothing of it.
    if bind.mxid != member.user {
        return Err(Error::forbidden("An address is bound to the user who asks").into());
    }
    Ok(Json(service.bind(&bind.sid, &bind.client_secret, &bind.mxid).await?))
}
