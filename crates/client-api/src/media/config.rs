//! `GET /media/config`: how much may be uploaded.

use axum::{Json, extract::State};
use chappe_media::Media;
use serde_json::{Value, json};

use crate::requester::Requester;

pub(super) async fn handler(State(media): State<Media>, _requester: Requester) -> Json<Value> {
    Json(json!({ "m.upload.size": media.config().max_upload_bytes }))
}
