//! `POST /_matrix/media/v1/create`: an address to upload to later.

use std::sync::Arc;

use axum::{Json, extract::State};
use chappe_media::Media;
use chappe_web::RateLimiter;
use serde_json::{Value, json};

use crate::{Config, error::Result, rates::by_user, requester::Acting};

pub(super) async fn handler(
    State(media): State<Media>,
    State(config): State<Arc<Config>>,
    State(limiter): State<RateLimiter>,
    requester: Acting,
) -> Result<Json<Value>> {
    by_user(&limiter, "upload", requester.user(), config.rates.upload)?;
    let created = media.create(requester.user()).await?;
    Ok(Json(json!({ "content_uri": created.uri, "unused_expires_at": created.expires })))
}
