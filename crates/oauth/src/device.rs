//! `POST …/device`: a device without a browser asks for a code (client-server API, "Device authorisation flow"; RFC 8628).

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use chappe_web::Origin;
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;

use crate::{
    OAuth,
    device_codes::{INTERVAL, LIFETIME, Waiting, shown},
    error::{Error, Result},
    fields::Fields,
    metadata::DEVICE_CODE,
    scope::Scope,
    token::caller,
};

pub(super) async fn handler(
    State(oauth): State<OAuth>,
    origin: Origin,
    headers: HeaderMap,
    fields: Result<Fields>,
) -> Result<Response> {
    oauth.count("oauth device", &origin.subject(), oauth.config().rates.device)?;
    let fields = fields?;
    let client = caller(&oauth, &headers, &fields).await?;
    if !client.metadata.may(DEVICE_CODE) {
        return Err(Error::UnauthorizedClient);
    }
    let scope = Scope::parse(fields.get("scope").unwrap_or_default())?;
    let waiting = Waiting { client: client.digest, scope };
    let (device_code, user_code) = oauth.devices().open(oauth.world(), waiting);
    let (page, user_code) = (oauth.url("/link"), shown(&user_code));
    let body = json!({
        "device_code": device_code,
        "verification_uri_complete": format!("{page}?user_code={user_code}"),
        "verification_uri": page,
        "user_code": user_code,
        "expires_in": LIFETIME / 1000,
        "interval": INTERVAL / 1000,
    });
    let mut response = Json(body).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
