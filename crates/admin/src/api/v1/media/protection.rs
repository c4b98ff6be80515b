//! `POST /v1/media/protect/{mediaId}` and `/v1/media/unprotect/{mediaId}`: media that are never put under quarantine.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use serde_json::{Value, json};

use crate::api::{Api, Result};

pub(super) async fn protect(State(api): State<Api>, Arguments(id): Arguments<String>) -> Result<Json<Value>> {
    api.media.protect(&id, true).await?;
    Ok(Json(json!({})))
}

pub(super) async fn unprotect(
    State(api): State<Api>,
    Arguments(id): Arguments<String>,
) -> Result<Json<Value>> {
    api.media.protect(&id, false).await?;
    Ok(Json(json!({})))
}
