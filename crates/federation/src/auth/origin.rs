//! The extractor of signed requests: who asks, proved, and what is asked.

use axum::{
    body::Body,
    extract::{FromRef, FromRequest, FromRequestParts, Request},
};
use bytes::Bytes;
use chappe_web::{Error, Origin as Address, Ruma, body_bytes};
use http::{StatusCode, header, request::Parts};
use ruma::{OwnedServerName, ServerName, api::IncomingRequest};
use serde::de::DeserializeOwned;

use super::{Addressee, Claimed, Signed, Unproven, verify};
use crate::{Federation, Network};

/// A request that another server has signed. The request is read after the signature was checked.
#[derive(Clone, Debug)]
pub struct Origin<T> {
    /// The server that asks; never this one, always one that is allowed.
    pub origin: OwnedServerName,
    /// What it asks.
    pub request: T,
}

impl<T, S> FromRequest<S> for Origin<T>
where
    T: IncomingRequest,
    S: Send + Sync,
    Federation: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let (origin, parts, body) = proven(request, state).await?;
        let request = Request::from_parts(parts, Body::from(body));
        let Ruma(request) = Ruma::<T>::from_request(request, state).await?;
        Ok(Self { origin, request })
    }
}

/// The same for a question that no endpoint type knows: a JSON object.
#[derive(Clone, Debug)]
pub(crate) struct SignedJson<T> {
    /// The server that asks.
    pub(crate) origin: OwnedServerName,
    /// What it asks.
    pub(crate) body: T,
}

impl<T, S> FromRequest<S> for SignedJson<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
    Federation: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let (origin, _, body) = proven(request, state).await?;
        let body = serde_json::from_slice(&body).map_err(|error| Error::unreadable_json(&error))?;
        Ok(Self { origin, body })
    }
}

/// Who signed a request, and its parts.
async fn proven<S>(request: Request, state: &S) -> Result<(OwnedServerName, Parts, Bytes), Error>
where
    S: Send + Sync,
    Federation: FromRef<S>,
{
    let federation = Federation::from_ref(state);
    let network = federation.network();
    let (mut parts, body) = request.into_parts();
    let Ok(address) = Address::from_request_parts(&mut parts, state).await;
    let (claimed, key) = claim(network, &parts, address, &[network.server().as_str()]).await?;
    // Only now: nobody whose keys cannot be had makes this server hold megabytes.
    let body = body_bytes(&parts, body).await?;
    let origin = prove(network, &parts, &body, claimed, &key)?;
    network.count("requests", origin.as_str(), network.config().rates.requests)?;
    Ok((origin, parts, body))
}

/// Who claims to have signed a request, and the key to check it with: 401 when nobody does or there is no such key, 403
/// when it is a server this one does not talk with, 429 when the key would have to be looked for once too often.
async fn claim(
    network: &Network,
    parts: &Parts,
    address: Address,
    names: &[&str],
) -> Result<(Claimed, [u8; 32]), Error> {
    let mut headers = parts.headers.get_all(header::AUTHORIZATION).iter();
    let value = headers.next().ok_or_else(|| unauthorized("the Authorization header is missing"))?;
    if headers.next().is_some() {
        return Err(unauthorized("there are several Authorization headers"));
    }
    let claimed = Claimed::parse(value.as_bytes()).map_err(unauthorized)?;
    let us = network.server();
    if claimed.destination.as_ref().is_some_and(|destination| !names.contains(&destination.as_str())) {
        return Err(unauthorized("the request is for another server"));
    }
    if claimed.origin == us {
        return Err(unauthorized("the request claims to come from this server"));
    }
    if !network.allowed().permits(&claimed.origin) {
        return Err(Error::forbidden("This server does not federate with yours"));
    }
    let keys = network.keys();
    if let Some(key) = keys.at_hand(&claimed.origin, &claimed.key).await {
        return Ok((claimed, key));
    }
    network.count("key look-ups", &address.subject(), network.config().rates.key_lookups)?;
    let key = keys.for_request(&claimed.origin, &claimed.key).await;
    let key = key.ok_or_else(|| unauthorized("the signing key could not be had or is not valid"))?;
    Ok((claimed, key))
}

/// Whether they did sign it: 401 if not, 400 if nobody can have signed it.
fn prove(
    network: &Network,
    parts: &Parts,
    body: &[u8],
    claimed: Claimed,
    key: &[u8; 32],
) -> Result<OwnedServerName, Error> {
    let us = network.server();
    let uri = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let signed = Signed { method: &parts.method, uri, body };
    verify(signed, &claimed, Addressee::homeserver(us), key).map_err(unproven)?;
    network.backoff().heard_from(&claimed.origin);
    Ok(claimed.origin)
}

fn unproven(why: Unproven) -> Error {
    match why {
        Unproven::NoJson => Error::not_json("The body is not JSON"),
        Unproven::BadSignature => unauthorized("the signature is wrong"),
    }
}

fn unauthorized(why: &'static str) -> Error {
    Error::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", why)
}

impl Network {
    /// The homeserver that signed a request to the identity service of this server, which is known by `names`. The body is
    /// read after it is clear that there is a key to check it with.
    ///
    /// 400 when it is not JSON, 401 when nobody signed it, 403 when it is a server this one does not talk with, 429 when its key would have to be
    /// looked for once too often, or when it asks too much.
    pub async fn signer(
        &self,
        parts: &Parts,
        body: Body,
        address: Address,
        names: &[&str],
    ) -> Result<(OwnedServerName, Bytes), Error> {
        let (claimed, key) = claim(self, parts, address, names).await?;
        let body = body_bytes(parts, body).await?;
        let uri = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let signed = Signed { method: &parts.method, uri, body: &body };
        let meant = claimed.destination.clone().unwrap_or_else(|| self.server().to_string());
        let homeserver = ServerName::parse(&*meant).ok();
        let as_homeserver = homeserver
            .is_some_and(|name| verify(signed, &claimed, Addressee::homeserver(&name), &key).is_ok());
        if !as_homeserver {
            verify(signed, &claimed, Addressee::identity_server(&meant), &key).map_err(unproven)?;
        }
        self.backoff().heard_from(&claimed.origin);
        self.count("requests", claimed.origin.as_str(), self.config().rates.requests)?;
        Ok((claimed.origin, body))
    }
}
