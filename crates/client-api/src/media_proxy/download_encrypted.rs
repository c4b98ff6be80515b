//! `POST …/media_proxy/unstable/download_encrypted`: an encrypted medium that is clean when it is decrypted, as it was uploaded.

use axum::{extract::Request, response::Response};
use chappe_web::body_bytes;

use super::{asking::Asking, refusal::Result};
use crate::media::{LONGEST, serve};

pub(super) async fn handler(asking: Asking, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let target = asking.scanner.read(&body_bytes(&parts, body).await?)?;
    let (reach, _place) = asking.reach(&target).await?;
    Ok(serve(asking.scanner.content(&target, reach, LONGEST).await?, None))
}
