//! `POST …/media_proxy/unstable/scan_encrypted`: whether an encrypted medium is clean when it is decrypted.

use axum::{Json, extract::Request};
use chappe_web::body_bytes;
use serde_json::Value;

use super::{asking::Asking, refusal::Result, said};
use crate::media::LONGEST;

pub(super) async fn handler(asking: Asking, request: Request) -> Result<Json<Value>> {
    let (parts, body) = request.into_parts();
    let target = asking.scanner.read(&body_bytes(&parts, body).await?)?;
    let (reach, _place) = asking.reach(&target).await?;
    said(asking.scanner.content(&target, reach, LONGEST).await)
}
