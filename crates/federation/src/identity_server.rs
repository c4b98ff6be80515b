//! Another identity server, as a user's homeserver uses it: over HTTPS, guarded, with answers that are checked.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chappe_identity::{
    Elsewhere, Email, Error, IdentityServer, Invitation, PublicKey, StoredInvite, lookup_hash,
};
use chappe_world::{Destination, Limits, Request};
use http::{HeaderValue, Method, header};
use ruma::{ClientSecret, OwnedServerName, OwnedUserId, SessionId, UserId};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::Network;

const EMAIL: &str = "email";
/// Where it tells to everybody which homeserver serves an address; not of the specification.
const INFO: &str = "/_matrix/identity/api/v1/info";
/// The longest answer, in bytes.
const MAX_BYTES: u64 = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(15);
/// What an answer's token and names may have at most, in bytes.
const MAX_TEXT: usize = 255;

/// Another identity server.
pub(crate) struct Another {
    pub(crate) network: Network,
    pub(crate) at: Elsewhere,
}

/// What its errors say.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    errcode: String,
    error: String,
    mxid: Option<OwnedUserId>,
}

#[derive(Deserialize)]
struct HashDetails {
    algorithms: Vec<String>,
    lookup_pepper: String,
}

#[derive(Deserialize)]
struct Mappings {
    mappings: std::collections::BTreeMap<String, OwnedUserId>,
}

impl Another {
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Error> {
        let authorization = HeaderValue::from_str(&format!("Bearer {}", self.at.token))
            .map_err(|_| Error::Unauthorized("This is not an access token"))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let path = format!("/_matrix/identity/v2/{path}");
        let (status, bytes) = self.send(method, &path, Some(authorization), body).await?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|_| Error::Unreachable);
        }
        Err(refusal(status, &bytes))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        authorization: Option<HeaderValue>,
        body: String,
    ) -> Result<(http::StatusCode, Bytes), Error> {
        let mut http = http::Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.at.host))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(authorization) = authorization {
            http = http.header(header::AUTHORIZATION, authorization);
        }
        let http = http
            .body(Bytes::from(body))
            .map_err(|_| Error::Invalid("id_server is a host name with an optional port"))?;
        let destination = if self.at.known {
            Destination::Url { redirects: 0 }
        } else {
            Destination::Foreign { redirects: 0 }
        };
        let limits = Limits { max_bytes: MAX_BYTES, deadline: DEADLINE };
        let sent = self.network.world().send(Request { destination, http, limits }).await;
        let answer = sent.map_err(|error| {
            tracing::info!(host = self.at.host, %error, "an identity server was not reached");
            Error::Unreachable
        })?;
        Ok((answer.status(), answer.into_body()))
    }
}

/// What another identity server's refusal becomes: never a code that a client takes for one about its own session.
fn refusal(status: http::StatusCode, body: &[u8]) -> Error {
    let Refusal { errcode, error, mxid } = serde_json::from_slice(body).unwrap_or_default();
    match (errcode.as_str(), mxid) {
        ("M_THREEPID_IN_USE", Some(user)) => Error::Bound { user },
        ("M_TERMS_NOT_SIGNED", _) => Error::TermsNotSigned,
        ("M_NO_VALID_SESSION" | "M_SESSION_EXPIRED", _) => Error::NoSession,
        ("M_SESSION_NOT_VALIDATED", _) => Error::NotValidated,
        ("M_INVALID_PEPPER", _) => Error::InvalidPepper,
        (
            "M_THREEPID_IN_USE"
            | "M_INVALID_EMAIL"
            | "M_INVALID_PARAM"
            | "M_FORBIDDEN"
            | "M_LIMIT_EXCEEDED"
            | "M_UNRECOGNIZED"
            | "M_BINDING_NOT_PERMITTED",
            _,
        ) => {
            let error = error.chars().filter(|c| !c.is_control()).take(300).collect();
            Error::Elsewhere { errcode, error }
        }
        _ if status == http::StatusCode::UNAUTHORIZED => {
            Error::Unauthorized("The identity server does not take this access token")
        }
        _ => Error::Unreachable,
    }
}

#[async_trait]
impl IdentityServer for Another {
    async fn lookup(&self, address: &Email) -> Result<Option<OwnedUserId>, Error> {
        let HashDetails { algorithms, lookup_pepper } = self.call(Method::GET, "hash_details", None).await?;
        let (algorithm, asked) = if algorithms.iter().any(|name| name == "sha256") {
            ("sha256", lookup_hash(address, &lookup_pepper))
        } else {
            ("none", format!("{address} {EMAIL}"))
        };
        let body = json!({ "addresses": [asked], "algorithm": algorithm, "pepper": lookup_pepper });
        let mut found: Mappings = self.call(Method::POST, "lookup", Some(&body)).await?;
        Ok(found.mappings.remove(&asked))
    }

    async fn homeserver_of(&self, address: &Email) -> Result<Option<OwnedServerName>, Error> {
        #[derive(Deserialize)]
        struct Info {
            hs: OwnedServerName,
        }
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("medium", EMAIL)
            .append_pair("address", address.as_str())
            .finish();
        let (status, bytes) = self.send(Method::GET, &format!("{INFO}?{query}"), None, String::new()).await?;
        match status {
            http::StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let info: Info = serde_json::from_slice(&bytes).map_err(|_| Error::Unreachable)?;
                Ok(Some(info.hs))
            }
            _ => Err(refusal(status, &bytes)),
        }
    }

    async fn store_invite(&self, invitation: Invitation) -> Result<StoredInvite, Error> {
        #[derive(Deserialize)]
        struct Answer {
            token: String,
            #[serde(default)]
            public_keys: Vec<PublicKey>,
            #[serde(default)]
            public_key: Option<String>,
            display_name: String,
        }
        let mut body = invitation.told;
        for (name, value) in [
            ("medium", json!(EMAIL)),
            ("address", json!(invitation.address)),
            ("room_id", json!(invitation.room)),
            ("sender", json!(invitation.sender)),
        ] {
            body.insert(name.to_owned(), value);
        }
        let mut answer: Answer = self.call(Method::POST, "store-invite", Some(&Value::Object(body))).await?;
        if answer.public_keys.is_empty() {
            let url = format!("https://{}/_matrix/identity/v2/pubkey/isvalid", self.at.host);
            let key = answer.public_key.ok_or(Error::Unreachable)?;
            answer.public_keys.push(PublicKey { public_key: key, key_validity_url: url });
        }
        let sound = |text: &str| !text.is_empty() && text.len() <= MAX_TEXT;
        let keys = |keys: &[PublicKey]| {
            keys.len() <= 10
                && keys.iter().all(|key| sound(&key.public_key) && key.key_validity_url.len() <= 2000)
        };
        if !sound(&answer.token) || !sound(&answer.display_name) || !keys(&answer.public_keys) {
            return Err(Error::Unreachable);
        }
        Ok(StoredInvite {
            token: answer.token,
            public_keys: answer.public_keys,
            display_name: answer.display_name,
        })
    }

    async fn bind(&self, sid: &SessionId, secret: &ClientSecret, user: &UserId) -> Result<Email, Error> {
        #[derive(Deserialize)]
        struct Bound {
            medium: String,
            address: Email,
        }
        let body = json!({ "sid": sid, "client_secret": secret, "mxid": user });
        let bound: Bound = self.call(Method::POST, "3pid/bind", Some(&body)).await?;
        if bound.medium == EMAIL { Ok(bound.address) } else { Err(Error::Unreachable) }
    }

    async fn unbind(&self, address: &Email, user: &UserId) -> Result<bool, Error> {
        let body = json!({ "mxid": user, "threepid": { "medium": EMAIL, "address": address } }).to_string();
        let path = "/_matrix/identity/v2/3pid/unbind";
        let authorization =
            self.network.authorization_for_identity_server(path, body.as_bytes(), &self.at.host);
        let authorization = authorization.ok_or(Error::Unreachable)?;
        let (status, _) = self.send(Method::POST, path, Some(authorization), body).await?;
        match status.as_u16() {
            200..=299 => Ok(true),
            // Too much at once is no answer to the question.
            408 | 429 => Err(Error::Unreachable),
            400..=499 | 501 => Ok(false),
            _ => Err(Error::Unreachable),
        }
    }
}
