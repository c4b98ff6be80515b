//! `GET …/media_proxy/unstable/download/{serverName}/{mediaId}`: a medium that is clean.

use axum::response::Response;
use chappe_scanner::Target;
use chappe_web::Arguments;

use super::{Medium, asking::Asking, refusal::Result};
use crate::media::{LONGEST, serve};

pub(super) async fn handler(asking: Asking, Arguments((server, id)): Arguments<Medium>) -> Result<Response> {
    let target = Target::in_clear(&server, &id);
    let (reach, _place) = asking.reach(&target).await?;
    Ok(serve(asking.scanner.content(&target, reach, LONGEST).await?, None))
}
