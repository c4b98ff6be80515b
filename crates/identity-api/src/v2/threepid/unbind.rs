//! `POST /_matrix/identity/v2/3pid/unbind`: an address is a user's no more.

use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts, Request, State},
};
use chappe_federation::Network;
use chappe_identity::IdentityService;
use chappe_web::{Error, Origin, Payload, body_bytes};
use http::{StatusCode, header, request::Parts};
use ruma::{OwnedClientSecret, OwnedSessionId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Api, error::Result, requester::Member, v1::email};

#[derive(Deserialize)]
struct Unbind {
    mxid: OwnedUserId,
    threepid: Threepid,
    #[serde(default)]
    sid: Option<OwnedSessionId>,
    #[serde(default)]
    client_secret: Option<OwnedClientSecret>,
}

#[derive(Deserialize)]
struct Threepid {
    medium: String,
    address: String,
}

/// By whoever proved the address with a session, or by the homeserver of the user in its own name.
pub(crate) async fn handler(
    State(api): State<Api>,
    State(service): State<IdentityService>,
    State(network): State<Network>,
    request: Request,
) -> Result<Json<Value>> {
    let (mut parts, body) = request.into_parts();
    if is_signed(&parts) {
        return by_homeserver(&service, &network, parts, body).await;
    }
    Member::from_request_parts(&mut parts, &api).await?;
    let bytes = body_bytes(&parts, body).await?;
    let Payload(unbind) = Payload::<Unbind>::read(&parts.headers, &bytes)?;
    let address = email(&unbind.threepid.medium, &unbind.threepid.address)?;
    let (Some(sid), Some(secret)) = (&unbind.sid, &unbind.client_secret) else {
        return Err(Error::missing_param("sid and client_secret prove whose the address is").into());
    };
    service.unbind_proved(sid, secret, &address, &unbind.mxid).await?;
    Ok(Json(json!({})))
}

async fn by_homeserver(
    service: &IdentityService,
    network: &Network,
    mut parts: Parts,
    body: Body,
) -> Result<Json<Value>> {
    let Ok(address) = Origin::from_request_parts(&mut parts, &()).await;
    let names = service.names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (origin, bytes) =
        network.signer(&parts, body, address, &names).await.map_err(|error| match error.status() {
            StatusCode::UNAUTHORIZED => Error::forbidden("Invalid homeserver signature"),
            _ => error,
        })?;
    let Payload(unbind) = Payload::<Unbind>::read(&parts.headers, &bytes)?;
    if unbind.mxid.server_name() != origin {
        return Err(Error::forbidden("A homeserver speaks for its own users alone").into());
    }
    let address = email(&unbind.threepid.medium, &unbind.threepid.address)?;
    service.unbind(&address, &unbind.mxid).await?;
    Ok(Json(json!({})))
}

fn is_signed(parts: &Parts) -> bool {
    let text = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let scheme = text.and_then(|text| text.split_whitespace().next()).unwrap_or_default();
    scheme.eq_ignore_ascii_case("X-Matrix")
}
