//! `PUT /_matrix/federation/unstable/chappe/identity`: what another server of this network says of addresses.

use axum::{
    Json,
    extract::{FromRequestParts, Request, State},
};
use chappe_federation::Network;
use chappe_identity::{IdentityService, Message};
use chappe_web::{Origin, Payload};
use serde_json::{Value, json};

use crate::error::Result;

pub(crate) async fn handler(
    State(service): State<IdentityService>,
    State(network): State<Network>,
    request: Request,
) -> Result<Json<Value>> {
    let (mut parts, body) = request.into_parts();
    let Ok(address) = Origin::from_request_parts(&mut parts, &()).await;
    let (origin, bytes) = network.signer(&parts, body, address, &[network.server().as_str()]).await?;
    let Payload(message) = Payload::<Message>::read(&parts.headers, &bytes)?;
    service.hear(&origin, message).await?;
    Ok(Json(json!({})))
}
