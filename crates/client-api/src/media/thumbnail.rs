//! `GET /media/thumbnail/{serverName}/{mediaId}`.

use axum::{extract::State, response::Response};
use chappe_media::{Media, Method, Reach, Wanted};
use chappe_web::Ruma;
use ruma::{
    UInt, api::client::authenticated_media::get_content_thumbnail::v1::Request, media::Method as Asked,
};

use super::{
    download::{LONGEST, may_have},
    headers::serve,
};
use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn handler(
    State(media): State<Media>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Response> {
    let wanted = wanted((request.width, request.height), request.method.as_ref(), request.animated);
    let (server, id, wait) = (&request.server_name, &request.media_id, request.timeout_ms.min(LONGEST));
    let _place = may_have(&media, &limits, &requester, (server, id)).await?;
    let asked = (Reach::Anywhere, requester.user().as_str());
    Ok(serve(media.thumbnail(server, id, wanted, asked, wait).await?, None))
}

/// Those who do not say whether it may move get one that does not.
pub(crate) fn wanted(
    (width, height): (UInt, UInt),
    method: Option<&Asked>,
    animated: Option<bool>,
) -> Wanted {
    let pixels = |length: UInt| u32::try_from(u64::from(length)).unwrap_or(u32::MAX);
    let method = if method == Some(&Asked::Crop) { Method::Crop } else { Method::Scale };
    Wanted { width: pixels(width), height: pixels(height), method, animated: animated.unwrap_or(false) }
}
