//! Requests to application services: the way to them, with the token that proves the server.
//!
//! Specification: application service API, "Homeserver -> Application Service API".

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chappe_rules::appservice::{Registration, Registrations};
use chappe_world::{Destination, Error as WorldError, Limits, Request, World};
use http::{HeaderValue, Method, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::Config;

/// Bytes of an answer.
const LONGEST_ANSWER: u64 = 1 << 20;
/// Questions that are being asked at a time; further ones are answered as if nobody knew.
const AT_ONCE: usize = 64;
/// What stands for itself in a path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a service did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// Its registration has no address.
    #[error("the application service has no address")]
    NoUrl,
    /// It answered with another status than 200.
    #[error("it answered with status {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The body.
        body: Bytes,
    },
    /// It was not reached.
    #[error("{0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("no answer in time")]
    Timeout,
}

/// A request to a service.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// Below `/_matrix/app/v1`.
    pub(crate) path: String,
    /// Where services of before the specification's first version have it ("Legacy routes").
    pub(crate) old: Option<String>,
    /// Encoded, without the question mark.
    pub(crate) query: String,
    pub(crate) body: Bytes,
    pub(crate) deadline: Duration,
}

impl Ask {
    pub(crate) fn get(path: String, old: String, deadline: Duration) -> Self {
        let (method, query, body) = (Method::GET, String::new(), Bytes::new());
        Self { method, path, old: Some(old), query, body, deadline }
    }
}

/// One segment of a path, encoded.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// The way to the application services: a handle, clones share it.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    world: World,
    services: Registrations,
    config: Config,
    places: Semaphore,
}

impl Link {
    /// The way to these services.
    pub fn new(world: World, services: Registrations, config: Config) -> Self {
        Self(Arc::new(Inner { world, services, config, places: Semaphore::new(AT_ONCE) }))
    }

    /// The services.
    pub fn services(&self) -> &Registrations {
        &self.0.services
    }

    pub(crate) fn world(&self) -> &World {
        &self.0.world
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// How long somebody waits for an answer.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.0.config.query_timeout)
    }

    /// Has a service show that it is there and knows the server (`POST /_matrix/app/v1/ping`); gives how long it took.
    pub async fn ping(
        &self,
        service: &Registration,
        transaction: Option<&str>,
    ) -> Result<Duration, CallError> {
        let body = transaction.map_or_else(|| json!({}), |id| json!({ "transaction_id": id }));
        let ask = Ask {
            method: Method::POST,
            path: "/ping".to_owned(),
            old: None,
            query: String::new(),
            body: body.to_string().into(),
            deadline: self.patience(),
        };
        let began = self.0.world.instant();
        self.call(service, &ask).await?;
        Ok(began.elapsed())
    }

    /// Asks a service something that somebody waits for; `None` when it is asked too much already.
    pub(crate) async fn question(
        &self,
        service: &Registration,
        ask: &Ask,
    ) -> Option<Result<Bytes, CallError>> {
        let _place = self.0.places.try_acquire().ok()?;
        Some(self.call(service, ask).await)
    }

    /// Makes a request; the body of the answer if it is 200.
    pub(crate) async fn call(&self, service: &Registration, ask: &Ask) -> Result<Bytes, CallError> {
        let path = format!("/_matrix/app/v1{}", ask.path);
        let first = self.exchange(service, ask, &path).await;
        let unknown = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
        let is_unknown = matches!(&first, Err(CallError::Status { status, .. }) if unknown.contains(status));
        match &ask.old {
            Some(old) if is_unknown => self.exchange(service, ask, old).await.or(first),
            _ => first,
        }
    }

    async fn exchange(&self, service: &Registration, ask: &Ask, path: &str) -> Result<Bytes, CallError> {
        let base = service.url.as_deref().ok_or(CallError::NoUrl)?;
        let question = if ask.query.is_empty() { "" } else { "?" };
        let bearer = HeaderValue::from_str(&format!("Bearer {}", service.hs_token.reveal()));
        let mut bearer = bearer.map_err(|error| CallError::Unreachable(error.to_string()))?;
        bearer.set_sensitive(true);
        let mut http = http::Request::builder()
            .method(&ask.method)
            .uri(format!("{base}{path}{question}{}", ask.query))
            .header(header::AUTHORIZATION, bearer);
        if !ask.body.is_empty() {
            http = http.header(header::CONTENT_TYPE, "application/json");
        }
        let http = http.body(ask.body.clone()).map_err(|error| CallError::Unreachable(error.to_string()))?;
        let limits = Limits { max_bytes: LONGEST_ANSWER, deadline: ask.deadline };
        let request = Request { destination: Destination::Url { redirects: 0 }, http, limits };
        let answer = self.0.world.send(request).await.map_err(|error| match error {
            WorldError::Timeout => CallError::Timeout,
            other => CallError::Unreachable(other.to_string()),
        })?;
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            status => Err(CallError::Status { status, body: answer.into_body() }),
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link to {} application services", self.0.services.len())
    }
}
