//! `GET …/media_proxy/unstable/thumbnail/{serverName}/{mediaId}`: a thumbnail of a medium that is clean.

use axum::response::Response;
use chappe_scanner::Target;
use chappe_web::{Arguments, Parameters};
use ruma::{UInt, media::Method};
use serde::Deserialize;

use super::{Medium, asking::Asking, refusal::Result};
use crate::media::{LONGEST, serve, wanted};

#[derive(Deserialize)]
pub(super) struct Asked {
    width: UInt,
    height: UInt,
    method: Option<Method>,
    animated: Option<bool>,
}

pub(super) async fn handler(
    asking: Asking,
    Arguments((server, id)): Arguments<Medium>,
    Parameters(asked): Parameters<Asked>,
) -> Result<Response> {
    let target = Target::in_clear(&server, &id);
    let wanted = wanted((asked.width, asked.height), asked.method.as_ref(), asked.animated);
    let (reach, _place) = asking.reach(&target).await?;
    Ok(serve(asking.scanner.thumbnail(&target, wanted, (reach, &asking.name()), LONGEST).await?, None))
}
