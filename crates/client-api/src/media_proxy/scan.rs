//! `GET …/media_proxy/unstable/scan/{serverName}/{mediaId}`: whether a medium is clean.

use axum::Json;
use chappe_scanner::Target;
use chappe_web::Arguments;
use serde_json::Value;

use super::{Medium, asking::Asking, refusal::Result, said};
use crate::media::LONGEST;

pub(super) async fn handler(
    asking: Asking,
    Arguments((server, id)): Arguments<Medium>,
) -> Result<Json<Value>> {
    let target = Target::in_clear(&server, &id);
    let (reach, _place) = asking.reach(&target).await?;
    said(asking.scanner.content(&target, reach, LONGEST).await)
}
