//! JSON bodies, whatever the content type says: those who script this API often leave it out. No body is an empty one.

use axum::extract::{FromRequest, Request};
use chappe_web::Error;
use serde::de::DeserializeOwned;

/// A request's body as `T`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        let (parts, body) = request.into_parts();
        let bytes = chappe_web::body_bytes(&parts, body).await?;
        let text = if bytes.is_empty() { &b"{}"[..] } else { &bytes };
        serde_json::from_slice(text).map(Self).map_err(|error| match error.to_string() {
            said if said.starts_with("missing field") => Error::missing_param(said),
            _ => Error::unreadable_json(&error),
        })
    }
}
