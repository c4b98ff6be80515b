//! What goes wrong, as clients read it: a status and `{errcode, error, …}`.

use std::{borrow::Cow, time::Duration};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};

/// When whoever came while the server was busy may come again.
const SOON: Duration = Duration::from_secs(3);

/// A Matrix error (client-server API, "Standard error response").
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", self.0.message())]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    status: StatusCode,
    body: Map<String, Value>,
    retry_after: Option<Duration>,
}

impl Inner {
    fn message(&self) -> String {
        let text = |name: &str| self.body.get(name).and_then(Value::as_str).unwrap_or_default();
        format!("{} {}: {}", self.status.as_u16(), text("errcode"), text("error"))
    }
}

/// What handlers give.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with a status, an error code and a sentence for people.
    pub fn new(status: StatusCode, errcode: &str, error: impl Into<Cow<'static, str>>) -> Self {
        let mut body = Map::new();
        body.insert("errcode".to_owned(), errcode.into());
        body.insert("error".to_owned(), error.into().into_owned().into());
        Self(Box::new(Inner { status, body, retry_after: None }))
    }

    /// An error whose body is made by the caller (user-interactive authentication). `body` must be a JSON object.
    pub fn with_body(status: StatusCode, body: &impl Serialize) -> Self {
        match serde_json::to_value(body) {
            Ok(Value::Object(body)) => Self(Box::new(Inner { status, body, retry_after: None })),
            _ => Self::internal("an error body is not a JSON object"),
        }
    }

    /// Adds a field to the body.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.body.insert(field.to_owned(), value.into());
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The error code, empty if the body has none.
    pub fn errcode(&self) -> &str {
        self.0.body.get("errcode").and_then(Value::as_str).unwrap_or_default()
    }

    /// The sentence for people, empty if the body has none.
    pub fn sentence(&self) -> &str {
        self.0.body.get("error").and_then(Value::as_str).unwrap_or_default()
    }

    /// 403 `M_FORBIDDEN`.
    pub fn forbidden(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", error)
    }

    /// 404 `M_NOT_FOUND`.
    pub fn not_found(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", error)
    }

    /// 404 `M_UNRECOGNIZED`: no such endpoint.
    pub fn unrecognized() -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "Unrecognized request")
    }

    /// 405 `M_UNRECOGNIZED`: the endpoint does not know the method.
    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "Unrecognized method")
    }

    /// 400 `M_BAD_JSON`: JSON, but not the JSON that was expected.
    pub fn bad_json(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", error)
    }

    /// 400 `M_NOT_JSON`.
    pub fn not_json(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", error)
    }

    /// 400 `M_NOT_JSON` or `M_BAD_JSON`, as the parser says. What is nested too deep to be read is JSON.
    pub fn unreadable_json(error: &serde_json::Error) -> Self {
        let why = error.to_string();
        let is_json = error.is_data() || why.starts_with("recursion limit exceeded");
        if is_json { Self::bad_json(why) } else { Self::not_json(why) }
    }

    /// 400 `M_INVALID_PARAM`.
    pub fn invalid_param(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", error)
    }

    /// 400 `M_MISSING_PARAM`.
    pub fn missing_param(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", error)
    }

    /// 401 `M_MISSING_TOKEN`.
    pub fn missing_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", "Missing access token")
    }

    /// 413 `M_TOO_LARGE`.
    pub fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", "The request is too large")
    }

    /// 429 `M_LIMIT_EXCEEDED`; come back after `retry_after`.
    pub fn limit_exceeded(retry_after: Duration) -> Self {
        let millis = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", "Too many requests")
            .with("retry_after_ms", millis);
        error.0.retry_after = Some(retry_after);
        error
    }

    /// 503 `M_UNKNOWN`: come back soon; nothing was done.
    pub fn busy() -> Self {
        let mut error =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", "The server is busy, try again");
        error.0.retry_after = Some(SOON);
        error
    }

    /// 500 `M_UNKNOWN`. What happened goes to the log; the client is not told.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed for an internal reason");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "Internal server error")
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let Inner { status, body, retry_after } = *self.0;
        let mut response = (status, Json(body)).into_response();
        if let Some(after) = retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
