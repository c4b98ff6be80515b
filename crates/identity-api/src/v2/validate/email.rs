//! `/_matrix/identity/v2/validate/email`: `requestToken` and `submitToken`.

use axum::{
    Json,
    extract::{Query, State},
    http::{HeaderMap, header},
    response::Response,
};
use chappe_identity::{Identity, Language, Purpose, TokenRequest};
use chappe_web::{Origin, Payload};
use ruma::{OwnedClientSecret, OwnedSessionId};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};

use crate::{
    confirm_email::{confirmed, failed},
    error::Result,
    requester::Member,
};

#[derive(Deserialize)]
pub(crate) struct Wanted {
    client_secret: OwnedClientSecret,
    email: String,
    #[serde(deserialize_with = "number")]
    send_attempt: u64,
    #[serde(default)]
    next_link: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Submitted {
    sid: OwnedSessionId,
    client_secret: OwnedClientSecret,
    token: String,
}

/// In forms, numbers are texts.
fn number<'de, D: Deserializer<'de>>(written: D) -> std::result::Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Number(u64),
        Text(String),
    }
    match Number::deserialize(written)? {
        Number::Number(number) => Ok(number),
        Number::Text(text) => text.parse().map_err(|_| D::Error::custom("not a number")),
    }
}

/// `POST requestToken`: by a user of the service, in version 1 as well, since it mails.
pub(crate) async fn request_token(
    State(identity): State<Identity>,
    _: Member,
    origin: Origin,
    headers: HeaderMap,
    Payload(wanted): Payload<Wanted>,
) -> Result<Json<Value>> {
    let request = TokenRequest {
        address: &wanted.email,
        client_secret: &wanted.client_secret,
        send_attempt: wanted.send_attempt,
        next_link: wanted.next_link.as_deref(),
        ip: Some(origin.0),
        language: spoken(&headers),
    };
    let sid = identity.request_token(Purpose::Bind, request).await?;
    Ok(Json(json!({ "sid": sid })))
}

/// `POST submitToken`: for clients.
pub(crate) async fn submit_token(
    State(identity): State<Identity>,
    Payload(submitted): Payload<Submitted>,
) -> Result<Json<Value>> {
    let Submitted { sid, client_secret, token } = submitted;
    identity.submit(&sid, &client_secret, &token).await?;
    Ok(Json(json!({ "success": true })))
}

/// `GET submitToken`: for people. It needs the client's secret, which no mail holds: a mail filter that opens every link
/// confirms nothing.
pub(crate) async fn submit_token_by_link(
    State(identity): State<Identity>,
    headers: HeaderMap,
    link: std::result::Result<Query<Submitted>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let language = spoken(&headers).unwrap_or_else(|| identity.language());
    let Ok(Query(Submitted { sid, client_secret, token })) = link else { return failed(&identity, language) };
    match identity.submit(&sid, &client_secret, &token).await {
        Ok(done) => confirmed(&done, &identity, language),
        Err(_) => failed(&identity, language),
    }
}

fn spoken(headers: &HeaderMap) -> Option<Language> {
    headers.get(header::ACCEPT_LANGUAGE)?.to_str().ok().and_then(Language::accepted)
}
