//! `GET /_matrix/client/v1/media/preview_url`, and at its older place: what a web page says of itself.
//!
//! The preferred point in time (`ts`) is read and leads nowhere: there is one version of a page, the one of now.
#![expect(deprecated, reason = "old clients ask at the older place, and ruma marks it")]

use axum::{Json, extract::State};
use chappe_media::{Media, Properties};
use chappe_web::Ruma;
use ruma::api::client::{authenticated_media::get_media_preview, media::get_media_preview as old};

use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn handler(
    State(media): State<Media>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<get_media_preview::v1::Request>,
) -> Result<Json<Properties>> {
    preview(&media, &limits, &requester, &request.url).await
}

pub(super) async fn legacy(
    State(media): State<Media>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<old::v3::Request>,
) -> Result<Json<Properties>> {
    preview(&media, &limits, &requester, &request.url).await
}

/// Counted is what has to be fetched: a page that many look at costs the first of them.
async fn preview(
    media: &Media,
    limits: &Limits,
    requester: &Requester,
    url: &str,
) -> Result<Json<Properties>> {
    let address = media.web_address(url)?;
    if let Some(kept) = media.kept_preview(&address).await? {
        return Ok(Json(kept));
    }
    limits.user("preview", requester, |rates| rates.preview)?;
    Ok(Json(media.preview(&address).await?))
}
