//! `GET …/media_proxy/unstable/scan/{serverName}/{mediaId}`: whether a medium is clean.

use axum::Json;
use chappe_scanner::Target;
use chappe_web::Arguments;
use serde_json::Value;

use super::{Medium, asking::Asking, refusal::Result, said};
use crate::media::LONGEST;

pub(super) async fn handler(asking: Asking, Arguments(medium): Arguments<Medium>) -> Result<Json<Value>> {
    let target = Target::in_clear(&medium.server_name, &medium.media_id);
    let (reach, _place) = asking.reach(&target).await?;
    said(asking.scanner.content(&target, reach, LONGEST).await)
}
