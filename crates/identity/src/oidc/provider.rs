//! One identity provider: its documents, fetched when needed and kept for a while, and its endpoints.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chappe_world::{Destination, Limits, Request, World};
use http::{HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::{
    claims,
    config::{ClientAuth, ProviderConfig, Userinfo},
    jose::{Claims, Flaw, KeySet, Token},
};

/// How long documents are taken as they are.
const FRESH_MS: u64 = 3_600_000;
/// How long they do while the provider cannot be reached.
const STALE_MS: u64 = 24 * FRESH_MS;
/// How long to leave a provider alone that did not answer.
const PAUSE_MS: u64 = 10_000;
/// How long to go on with the keys there are when one is unknown.
const KEYS_PAUSE_MS: u64 = 60_000;
/// What one answer may cost.
const LIMITS: Limits = Limits { max_bytes: 256 << 10, deadline: Duration::from_secs(10) };

/// Why a provider did not vouch for anybody.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProviderError {
    /// It was not reached, or answers nonsense: try again later.
    #[error("not reached: {0}")]
    Unreachable(String),
    /// It does not take the code: begin again.
    #[error("the code was refused: {0}")]
    Refused(String),
    /// What it says is not to be believed.
    #[error("{0}: {1}")]
    Untrusted(&'static str, #[source] Flaw),
}

/// Its discovery document (OpenID Connect Discovery 1.0 §3), as far as it is used.
#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    #[serde(default)]
    userinfo_endpoint: Option<String>,
    jwks_uri: String,
    #[serde(default)]
    end_session_endpoint: Option<String>,
    #[serde(default)]
    prompt_values_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// Where it is asked.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    pub(super) authorization: Url,
    token: Url,
    userinfo: Option<Url>,
    keys: Url,
    pub(super) end_session: Option<Url>,
    /// Whether people may be sent to it to get an account.
    pub(super) creates: bool,
    /// Whether it says in its answers who gives them (RFC 9207).
    pub(super) names_itself: bool,
}

/// What a token endpoint answers.
#[derive(Deserialize)]
struct Tokens {
    access_token: String,
    token_type: String,
    id_token: String,
}

/// A document as it was last fetched.
struct Kept<T> {
    value: Option<Arc<T>>,
    fetched: u64,
    failed: Option<u64>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { value: None, fetched: 0, failed: None }
    }
}

impl<T> Kept<T> {
    /// The value if it is no older than that.
    fn no_older_than(&self, age: u64, now: u64) -> Option<Arc<T>> {
        self.value.clone().filter(|_| now.saturating_sub(self.fetched) < age)
    }

    /// Whether it is too early to ask again after a failure.
    fn is_paused(&self, now: u64) -> bool {
        self.failed.is_some_and(|at| now.saturating_sub(at) < PAUSE_MS)
    }

    /// Takes what a fetch gave; after a failure the old value does for a while.
    fn take(&mut self, fetched: Result<T, ProviderError>, now: u64) -> Result<Arc<T>, ProviderError> {
        match fetched {
            Ok(value) => {
                let value = Arc::new(value);
                *self = Self { value: Some(Arc::clone(&value)), fetched: now, failed: None };
                Ok(value)
            }
            Err(error) => {
                self.failed = Some(now);
                self.no_older_than(STALE_MS, now).ok_or(error)
            }
        }
    }
}

/// An identity provider.
pub(super) struct Provider {
    pub(super) config: ProviderConfig,
    secret: Option<Zeroizing<String>>,
    callback: String,
    world: World,
    metadata: Mutex<Kept<Metadata>>,
    keys: Mutex<Kept<KeySet>>,
}

/// What is asked of [`Provider::vouch`].
pub(super) struct Question<'a> {
    pub(super) code: &'a str,
    /// The secret of which the provider got a hash (RFC 7636).
    pub(super) verifier: &'a str,
    pub(super) nonce: &'a str,
    /// Since when the person must have proved who they are, in milliseconds since 1970; `None`: at any time.
    pub(super) fresh: Option<u64>,
}

/// Whom the provider vouches for.
#[derive(Clone, Debug)]
pub(super) struct Vouched {
    pub(super) subject: String,
    pub(super) claims: Claims,
    /// What names the session there when it is to be ended.
    pub(super) id_token: String,
}

impl Provider {
    pub(super) fn new(config: ProviderConfig, secret: Option<String>, callback: &str, world: &World) -> Self {
        Self {
            config,
            secret: secret.map(Zeroizing::new),
            callback: callback.to_owned(),
            world: world.clone(),
            metadata: Mutex::default(),
            keys: Mutex::default(),
        }
    }

    /// Whether it was made of the same section and secret.
    pub(super) fn is_by(&self, config: &ProviderConfig, secret: Option<&str>) -> bool {
        self.config == *config && self.secret.as_ref().map(|secret| secret.as_str()) == secret
    }

    /// The discovery document.
    pub(super) async fn metadata(&self) -> Result<Arc<Metadata>, ProviderError> {
        let mut kept = self.metadata.lock().await;
        let now = self.world.now();
        if let Some(fresh) = kept.no_older_than(FRESH_MS, now) {
            return Ok(fresh);
        }
        if kept.is_paused(now) {
            return kept.no_older_than(STALE_MS, now).ok_or_else(paused);
        }
        let fetched = self.discover().await;
        if let Err(error) = &fetched {
            tracing::warn!(provider = self.config.id, %error, "no discovery document of an identity provider");
        }
        kept.take(fetched, now)
    }

    async fn discover(&self) -> Result<Metadata, ProviderError> {
        let issuer = &self.config.issuer;
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document: Document = json(&self.fetch(&url).await?)?;
        if document.issuer != *issuer {
            return Err(ProviderError::Unreachable("its discovery document is of another issuer".to_owned()));
        }
        let scheme = issuer.split(':').next().unwrap_or_default();
        let safe = |url: &Url| url.scheme() == "https" || url.scheme() == scheme;
        let endpoint = |text: &String| {
            let wrong =
                || ProviderError::Unreachable("an endpoint of it is no URL, or without TLS".to_owned());
            Url::parse(text).ok().filter(safe).ok_or_else(wrong)
        };
        Ok(Metadata {
            authorization: endpoint(&document.authorization_endpoint)?,
            token: endpoint(&document.token_endpoint)?,
            userinfo: document.userinfo_endpoint.as_ref().map(endpoint).transpose()?,
            keys: endpoint(&document.jwks_uri)?,
            end_session: document.end_session_endpoint.as_ref().map(endpoint).transpose()?,
            creates: document.prompt_values_supported.iter().any(|value| value == "create"),
            names_itself: document.authorization_response_iss_parameter_supported,
        })
    }

    /// Its keys; `anew` asks it again, unless that was done a moment ago.
    async fn keys(&self, metadata: &Metadata, anew: bool) -> Result<Arc<KeySet>, ProviderError> {
        let mut kept = self.keys.lock().await;
        let now = self.world.now();
        let age = if anew { KEYS_PAUSE_MS } else { FRESH_MS };
        if let Some(fresh) = kept.no_older_than(age, now) {
            return Ok(fresh);
        }
        if kept.is_paused(now) {
            return kept.no_older_than(STALE_MS, now).ok_or_else(paused);
        }
        let fetched = self.fetch(metadata.keys.as_str()).await.and_then(|document| {
            KeySet::parse(&document)
                .ok_or_else(|| ProviderError::Unreachable("its keys cannot be read".to_owned()))
        });
        if let Err(error) = &fetched {
            tracing::warn!(provider = self.config.id, %error, "no keys of an identity provider");
        }
        kept.take(fetched, now)
    }

    /// Gives the code in and hears whom it is about: token endpoint, ID token, userinfo endpoint.
    pub(super) async fn vouch(&self, question: &Question<'_>) -> Result<Vouched, ProviderError> {
        let metadata = self.metadata().await?;
        let tokens = self.exchange(&metadata, question).await?;
        let (mut claims, algorithm) = self.verified(&metadata, "ID token", &tokens.id_token).await?;
        let flawed = |flaw| ProviderError::Untrusted("ID token", flaw);
        let expected = claims::Expected {
            issuer: &self.config.issuer,
            client_id: &self.config.client_id,
            nonce: question.nonce,
            acr: &self.config.required_acr,
            now: self.world.now(),
            fresh: question.fresh,
        };
        let subject = claims::judge(&claims, &expected).map_err(flawed)?;
        claims::fits_access_token(&claims, algorithm, &tokens.access_token).map_err(flawed)?;
        if let Some(mut more) = self.userinfo(&metadata, &tokens.access_token).await? {
            let flawed = |flaw| ProviderError::Untrusted("userinfo", flaw);
            if claims::subject(&more).map_err(flawed)? != subject {
                return Err(flawed(Flaw::Claim("sub")));
            }
            // What is said of one address does not hold for another.
            let said = if more.contains_key("email") { &mut claims } else { &mut more };
            said.remove("email_verified");
            claims.extend(more);
        }
        Ok(Vouched { subject, claims, id_token: tokens.id_token })
    }

    /// The token request (RFC 6749 §4.1.3, RFC 7636 §4.5).
    fn token_request(
        &self,
        metadata: &Metadata,
        question: &Question<'_>,
    ) -> Result<Result<http::Request<Bytes>, http::Error>, ProviderError> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", question.code)
            .append_pair("redirect_uri", &self.callback)
            .append_pair("code_verifier", question.verifier);
        let mut request = http::Request::builder()
            .method(Method::POST)
            .uri(metadata.token.as_str())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        match (&self.secret, self.config.client_auth) {
            (Some(secret), ClientAuth::Basic) => {
                request = request.header(header::AUTHORIZATION, self.basic(secret)?);
            }
            (Some(secret), ClientAuth::Post) => {
                form.append_pair("client_id", &self.config.client_id).append_pair("client_secret", secret);
            }
            (None, _) => {
                form.append_pair("client_id", &self.config.client_id);
            }
        }
        Ok(request.body(Bytes::from(form.finish())))
    }

    async fn exchange(&self, metadata: &Metadata, question: &Question<'_>) -> Result<Tokens, ProviderError> {
        let request = self.token_request(metadata, question)?;
        let answer = self.send(request).await?;
        match answer.status() {
            StatusCode::OK => {}
            status if status.is_client_error() => {
                return Err(ProviderError::Refused(error_code(answer.body())));
            }
            status => return Err(ProviderError::Unreachable(format!("the token endpoint says {status}"))),
        }
        let tokens: Tokens = json(answer.body())?;
        if !tokens.token_type.eq_ignore_ascii_case("bearer") {
            return Err(ProviderError::Unreachable("its access token is of an unknown type".to_owned()));
        }
        Ok(tokens)
    }

    /// `client_secret_basic`: both are form-encoded first (RFC 6749 §2.3.1).
    fn basic(&self, secret: &str) -> Result<HeaderValue, ProviderError> {
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = Zeroizing::new(format!("{}:{}", encoded(&self.config.client_id), encoded(secret)));
        let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair.as_bytes())))
            .map_err(|_| ProviderError::Unreachable("the secret cannot be sent".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn userinfo(&self, metadata: &Metadata, token: &str) -> Result<Option<Claims>, ProviderError> {
        let endpoint = match (self.config.userinfo, &metadata.userinfo) {
            (Userinfo::None, _) | (Userinfo::Any, None) => return Ok(None),
            (_, Some(endpoint)) => endpoint,
            (Userinfo::Signed, None) => {
                return Err(ProviderError::Unreachable("it has no userinfo endpoint".to_owned()));
            }
        };
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| ProviderError::Unreachable("its access token cannot be sent".to_owned()))?;
        bearer.set_sensitive(true);
        let request = http::Request::get(endpoint.as_str())
            .header(header::AUTHORIZATION, bearer)
            .header(header::ACCEPT, "application/jwt, application/json");
        let answer = self.send(request.body(Bytes::new())).await?;
        if answer.status() != StatusCode::OK {
            let status = answer.status();
            return Err(ProviderError::Unreachable(format!("the userinfo endpoint says {status}")));
        }
        if !is_token(answer.headers()) {
            if self.config.userinfo == Userinfo::Signed {
                return Err(ProviderError::Untrusted("userinfo", Flaw::Malformed));
            }
            return json(answer.body()).map(Some);
        }
        let text = std::str::from_utf8(answer.body()).unwrap_or_default().trim();
        let (claims, _) = self.verified(metadata, "userinfo", text).await?;
        let (issuer, client_id) = (&self.config.issuer, &self.config.client_id);
        claims::judge_userinfo(&claims, issuer, client_id, self.world.now())
            .map_err(|flaw| ProviderError::Untrusted("userinfo", flaw))?;
        Ok(Some(claims))
    }

    /// What a token says that the provider signed. For an unknown key the keys are fetched again, once.
    async fn verified(
        &self,
        metadata: &Metadata,
        what: &'static str,
        text: &str,
    ) -> Result<(Claims, super::jose::Algorithm), ProviderError> {
        let flawed = |flaw| ProviderError::Untrusted(what, flaw);
        let parsed = || Token::parse(text, &self.config.algorithms).map_err(flawed);
        let keys = self.keys(metadata, false).await?;
        match parsed()?.verify(&keys) {
            Err(Flaw::UnknownKey) => {
                let keys = self.keys(metadata, true).await?;
                parsed()?.verify(&keys).map_err(flawed)
            }
            verdict => verdict.map_err(flawed),
        }
    }

    async fn fetch(&self, url: &str) -> Result<Bytes, ProviderError> {
        let request = http::Request::get(url).header(header::ACCEPT, "application/json").body(Bytes::new());
        let answer = self.send(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(ProviderError::Unreachable(format!("{url} says {}", answer.status())));
        }
        Ok(answer.into_body())
    }

    /// No redirects: what is asked goes to the endpoint that was named, or nowhere.
    async fn send(
        &self,
        request: Result<http::Request<Bytes>, http::Error>,
    ) -> Result<http::Response<Bytes>, ProviderError> {
        let http = request.map_err(|error| ProviderError::Unreachable(error.to_string()))?;
        let request = Request { destination: Destination::Url { redirects: 0 }, http, limits: LIMITS };
        self.world.send(request).await.map_err(|error| ProviderError::Unreachable(error.to_string()))
    }
}

fn paused() -> ProviderError {
    ProviderError::Unreachable("it did not answer a moment ago".to_owned())
}

fn json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ProviderError> {
    // What it says may be a secret: the reason goes without it.
    serde_json::from_slice(body).map_err(|error| {
        ProviderError::Unreachable(format!("its answer is not as expected ({:?})", error.classify()))
    })
}

/// The error code of a token endpoint (RFC 6749 §5.2), if it is one: it goes into the log.
fn error_code(body: &[u8]) -> String {
    let said = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    let code = said["error"].as_str().unwrap_or("no reason given");
    code.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(100).collect()
}

fn is_token(headers: &http::HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/jwt")
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Provider {}", self.config.id)
    }
}
