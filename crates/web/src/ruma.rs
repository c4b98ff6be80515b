//! Ruma's endpoint types as axum extractors and responses.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use ruma::api::{
    IncomingRequest, IncomingRequestExt, OutgoingResponse, OutgoingResponseExt,
    error::{DeserializationError, FromHttpRequestError},
};

use crate::{
    Error, Origin, Settings,
    budget::{Budget, Share},
    origin::origin,
};

/// A request or a response of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Ruma<T>(pub T);

/// Bytes that the body of a request to this route may have; an extension that [`crate::Routes`] adds.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit(pub usize);

/// Path arguments that a shortened path leaves out, such as an empty state key; an extension of the route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Omitted(pub(crate) &'static [&'static str]);

impl<T, S> FromRequest<S> for Ruma<T>
where
    T: IncomingRequest,
    S: Send + Sync,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let (mut parts, body) = request.into_parts();
        let path = RawPathParams::from_request_parts(&mut parts, state).await;
        let path = path.map_err(|_| Error::invalid_param("The path is not UTF-8"))?;
        let body = body_bytes(&parts, body).await?;
        if std::str::from_utf8(&body).is_err() {
            return Err(Error::not_json("The body is not UTF-8"));
        }
        let omitted = parts.extensions.get::<Omitted>().map_or(&[][..], |omitted| omitted.0);
        let arguments: Vec<&str> =
            path.iter().map(|(_, value)| value).chain(omitted.iter().copied()).collect();
        let is_left_out =
            body.is_empty() && parts.method != Method::GET && expects_json::<T>(&parts, &arguments);
        let body = if is_left_out { &b"{}"[..] } else { &body };
        let request = http::Request::from_parts(parts, body);
        // A defect in a parser costs one request and no more: ruma 0.17 panics at a log-in without a type.
        let parsed = catch_unwind(AssertUnwindSafe(|| T::try_from_http_request(request, &arguments)));
        match parsed {
            Ok(parsed) => parsed.map(Self).map_err(refusal),
            Err(_) => Err(Error::bad_json("The request cannot be understood")),
        }
    }
}

/// Whether an empty body is refused as JSON. Clients leave the body out where every field of it is optional.
fn expects_json<T: IncomingRequest>(parts: &Parts, arguments: &[&str]) -> bool {
    let request = http::Request::from_parts(parts.clone(), &b""[..]);
    let refused = T::try_from_http_request(request, arguments);
    matches!(refused, Err(FromHttpRequestError::Deserialization(DeserializationError::Json(_))))
}

/// A request together with its body as JSON, for endpoints that bind user-interactive authentication to the request.
/// A body that is not an object counts as an empty one here; the endpoint type has judged it already.
#[derive(Clone, Debug)]
pub struct WithBody<T>(pub T, pub serde_json::Value);

impl<T, S> FromRequest<S> for WithBody<T>
where
    T: IncomingRequest,
    S: Send + Sync,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let (parts, body) = request.into_parts();
        let bytes = body_bytes(&parts, body).await?;
        let body = serde_json::from_slice(&bytes).ok().filter(serde_json::Value::is_object);
        let request = Request::from_parts(parts, Body::from(bytes));
        let Ruma(request) = Ruma::<T>::from_request(request, state).await?;
        Ok(Self(request, body.unwrap_or_else(|| serde_json::json!({}))))
    }
}

/// Parameters of the query that no endpoint type knows; a bad one is `M_INVALID_PARAM`.
#[derive(Clone, Copy, Debug)]
pub struct Parameters<T>(pub T);

impl<T, S> FromRequestParts<S> for Parameters<T>
where
    T: serde::de::DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let query = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        query.map(|query| Self(query.0)).map_err(|error| parameter(&error.body_text()))
    }
}

/// Arguments of the path, decoded, as the types they are; a bad one is `M_INVALID_PARAM`.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<T>(pub T);

impl<T, S> FromRequestParts<S> for Arguments<T>
where
    T: serde::de::DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|error| Error::invalid_param(error.body_text()))
    }
}

/// Reads a request's body, within the route's limit and the configured time.
pub async fn body_bytes(parts: &Parts, body: Body) -> Result<Bytes, Error> {
    let defaults = Settings::default();
    let settings = parts.extensions.get::<Arc<Settings>>().map_or(&defaults, |settings| settings);
    let limit = parts.extensions.get::<BodyLimit>().map_or(settings.body_limit, |limit| limit.0);
    if body.size_hint().lower() > limit as u64 {
        return Err(Error::too_large());
    }
    let budget = parts.extensions.get::<Budget>().cloned().unwrap_or_default();
    let share = Share::of(&budget, Origin(origin(parts)).network());
    let reading = read(Limited::new(body, limit), share);
    match tokio::time::timeout(Duration::from_secs(settings.body_timeout_s), reading).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(Unread::Broken(error))) if error.is::<LengthLimitError>() => Err(Error::too_large()),
        Ok(Err(Unread::Broken(_))) => Err(Error::not_json("The body could not be read")),
        Ok(Err(Unread::NoRoom)) => Err(Error::busy()),
        Err(_) => {
            let status = StatusCode::REQUEST_TIMEOUT;
            Err(Error::new(status, "M_UNKNOWN", "The body did not arrive in time"))
        }
    }
}

/// Why a body was not read to its end.
enum Unread {
    Broken(Box<dyn std::error::Error + Send + Sync>),
    NoRoom,
}

/// Collects a body. What is more than a little is taken from what all bodies of its kind may have together.
async fn read(mut body: Limited<Body>, mut share: Share<'_>) -> Result<Bytes, Unread> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Unread::Broken)?.into_data() else { continue };
        // Counted together, not by pieces: a piece may have a single byte.
        share.grow(bytes.len() + data.len()).ok_or(Unread::NoRoom)?;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

fn refusal(error: FromHttpRequestError) -> Error {
    match error {
        FromHttpRequestError::MethodMismatch { .. } => Error::method_not_allowed(),
        FromHttpRequestError::Deserialization(error) => match error {
            DeserializationError::Json(error) => Error::unreadable_json(&error),
            DeserializationError::Utf8(_) => Error::not_json("The body is not UTF-8"),
            DeserializationError::Query(error) => parameter(&error.to_string()),
            other => Error::invalid_param(other.to_string()),
        },
        _ => Error::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "Malformed request"),
    }
}

/// Path and query arguments: missing or invalid.
fn parameter(error: &str) -> Error {
    if error.contains("missing field `") {
        return Error::missing_param(error.to_owned());
    }
    Error::invalid_param(error.to_owned())
}

impl<T: OutgoingResponse> IntoResponse for Ruma<T> {
    fn into_response(self) -> Response {
        match self.0.try_into_http_response::<BytesMut>() {
            Ok(response) => response.map(|body| Body::from(body.freeze())),
            Err(error) => {
                Error::internal(format_args!("a response cannot be written: {error}")).into_response()
            }
        }
    }
}
