//! `POST /v1/federation/destinations/{destination}/reset_connection`: try a server now, however long it was to be left
//! alone.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use http::StatusCode;
use ruma::OwnedServerName;
use serde_json::{Value, json};

use super::destination::known;
use crate::api::{Api, Result};

pub(super) async fn handler(
    State(api): State<Api>,
    Arguments(server): Arguments<OwnedServerName>,
) -> Result<Json<Value>> {
    if known(&api, &server).await?.failing_since().is_none() {
        let said = "The retry timing does not need to be reset for this destination.";
        return Err(chappe_web::Error::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", said).into());
    }
    api.federation.retry(Some(&server)).await?;
    Ok(Json(json!({})))
}
