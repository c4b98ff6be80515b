//! A thin Matrix client: just enough to load a server, with as little work of its own as possible.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioExecutor};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

type Http = hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>;

/// A connection pool to one server, perhaps logged in.
#[derive(Clone)]
pub struct Client {
    http: Http,
    base: SocketAddr,
    token: Option<Arc<str>>,
    /// The user id; empty before a log-in.
    pub user: Arc<str>,
    txn: Arc<AtomicU64>,
}

/// Escapes one path segment.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

impl Client {
    /// A client of the server at `base`, not logged in.
    pub fn new(base: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            http: hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector),
            base,
            token: None,
            user: "".into(),
            txn: Arc::default(),
        }
    }

    /// A new account; the connection pool is shared with `self`.
    pub async fn register(&self, name: &str) -> Result<Self> {
        let body = json!({ "username": name, "password": "correct horse battery", "auth": { "type": "m.login.dummy" } });
        let answer = self.call(Method::POST, "/_matrix/client/v3/register", Some(body)).await?;
        self.with(&answer)
    }

    /// Another device of the same account.
    pub async fn another_device(&self) -> Result<Self> {
        let body = json!({
            "type": "m.login.password", "password": "correct horse battery",
            "identifier": { "type": "m.id.user", "user": &*self.user },
        });
        let answer = self.call(Method::POST, "/_matrix/client/v3/login", Some(body)).await?;
        self.with(&answer)
    }

    /// The same login through the connections, and to the address, of `other`.
    #[must_use]
    pub fn at(&self, other: &Self) -> Self {
        Self { http: other.http.clone(), base: other.base, ..self.clone() }
    }

    fn with(&self, answer: &Value) -> Result<Self> {
        let text = |key: &str| answer[key].as_str().with_context(|| format!("no {key}"));
        Ok(Self {
            token: Some(text("access_token")?.into()),
            user: text("user_id")?.into(),
            txn: Arc::default(),
            ..self.clone()
        })
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// `POST`.
    pub async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// `PUT`.
    pub async fn put(&self, path: &str, body: Value) -> Result<Value> {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// One request. Anything but 200 is an error.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        Ok(serde_json::from_slice(&self.bytes(method, path, body).await?)?)
    }

    /// One request whose answer is only measured, not parsed.
    pub async fn bytes(&self, method: Method, path: &str, body: Option<Value>) -> Result<Bytes> {
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let mut request =
            Request::builder().method(method.clone()).uri(format!("http://{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.header("content-type", "application/json").body(Full::new(body))?;
        let response = self.http.request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::ensure!(status == 200, "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    /// Creates a room and gives its id.
    pub async fn create_room(&self, preset: &str) -> Result<String> {
        let answer = self.post("/_matrix/client/v3/createRoom", json!({ "preset": preset })).await?;
        Ok(answer["room_id"].as_str().context("no room_id")?.to_owned())
    }

    /// Joins a room by its id.
    pub async fn join(&self, room: &str) -> Result<()> {
        self.post(&format!("/_matrix/client/v3/join/{}", segment(room)), json!({})).await?;
        Ok(())
    }

    /// Says something and gives the event id.
    pub async fn send(&self, room: &str, text: &str) -> Result<String> {
        let txn = self.txn.fetch_add(1, Ordering::Relaxed);
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/b{txn}", segment(room));
        let answer = self.put(&path, json!({ "msgtype": "m.text", "body": text })).await?;
        Ok(answer["event_id"].as_str().context("no event_id")?.to_owned())
    }

    /// A sync that is not parsed: its bytes and the token they end at. `timeout` in milliseconds.
    pub async fn sync_bytes(&self, since: Option<&str>, timeout: u64) -> Result<(Bytes, String)> {
        let bytes = self.bytes(Method::GET, &sync_path(since, timeout), None).await?;
        let next = text_after(&bytes, "\"next_batch\":\"").context("no next_batch")?.to_owned();
        Ok((bytes, next))
    }

    /// `timeout` in milliseconds.
    pub async fn sync(&self, since: Option<&str>, timeout: u64) -> Result<Value> {
        self.get(&sync_path(since, timeout)).await
    }
}

/// The text between the first `mark` and the next quotation mark.
fn text_after<'a>(bytes: &'a [u8], mark: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.split_once(mark)?.1.split('"').next()
}

/// The path of a sync; `timeout` in milliseconds.
pub fn sync_path(since: Option<&str>, timeout: u64) -> String {
    let since = since.map(|since| format!("&since={}", segment(since))).unwrap_or_default();
    format!("/_matrix/client/v3/sync?timeout={timeout}{since}")
}
