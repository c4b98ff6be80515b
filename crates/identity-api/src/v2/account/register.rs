//! `POST /_matrix/identity/v2/account/register`: an access token for an OpenID token.

use axum::{Json, extract::State};
use chappe_identity::{IdentityService, OpenIdToken};
use chappe_web::{Error, Payload};
use ruma::ServerName;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{error::Result, requester::Anybody};

/// As the homeserver gave it to its user.
#[derive(Deserialize)]
pub(crate) struct Body {
    access_token: String,
    matrix_server_name: String,
}

pub(crate) async fn handler(
    State(service): State<IdentityService>,
    anybody: Anybody,
    Payload(body): Payload<Body>,
) -> Result<Json<Value>> {
    anybody.registers()?;
    let server = ServerName::parse(body.matrix_server_name)
        .map_err(|_| Error::invalid_param("matrix_server_name is not a server name"))?;
    let openid = OpenIdToken { access_token: body.access_token, matrix_server_name: server };
    let token = service.register(&openid).await?;
    // The second name is what the first identity servers answered; clients still look for it.
    Ok(Json(json!({ "token": token, "access_token": token })))
}
