//! `POST /_matrix/media/v1/create`: an address to upload to later.

use axum::{Json, extract::State};
use chappe_media::Media;
use serde_json::{Value, json};

use crate::{error::Result, rates::Limits, requester::Acting};

pub(super) async fn handler(
    State(media): State<Media>,
    State(limits): State<Limits>,
    requester: Acting,
) -> Result<Json<Value>> {
    limits.user("upload", &requester, |rates| rates.upload)?;
    let created = media.create(requester.user()).await?;
    Ok(Json(json!({ "content_uri": created.uri, "unused_expires_at": created.expires })))
}
