//! `POST …/register`: a client registers (client-server API, "Client registration"; RFC 7591).

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use chappe_web::{BodyLimit, Origin, body_bytes};
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

use crate::{
    OAuth,
    error::{Error, Result},
    metadata::Metadata,
};

/// Bytes of what a client registers.
const LONGEST: usize = 16 << 10;

pub(super) async fn handler(
    State(oauth): State<OAuth>,
    origin: Origin,
    request: Request,
) -> Result<Response> {
    oauth.count("oauth registration", &origin.subject(), oauth.config().rates.registration)?;
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(BodyLimit(LONGEST));
    let bytes = body_bytes(&parts, body).await.map_err(Error::Body)?;
    let Ok(Value::Object(written)) = serde_json::from_slice(&bytes) else {
        return Err(Error::InvalidClientMetadata("the body must be a JSON object".into()));
    };
    let metadata = Metadata::parse(&written, oauth.config().insecure_clients)?;
    let id = oauth.register(&metadata).await?;
    let mut told = serde_json::to_value(&metadata).map_err(|_| Error::Internal)?;
    told["client_id"] = Value::from(id);
    let mut response = (StatusCode::CREATED, Json(told)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
