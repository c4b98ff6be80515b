//! `GET /_matrix/media/v3/download/…` and `/thumbnail/…`: without log-in, where the configuration allows it.
//!
//! They give what is kept here, as far as it came before the freeze, and fetch only if that is allowed besides: nobody
//! fills the disk without being logged in.
#![expect(deprecated, reason = "old clients use the endpoints without log-in, and ruma marks them")]

use std::time::Duration;

use axum::{extract::State, response::Response};
use chappe_media::{Media, Reach};
use chappe_web::{Origin, Ruma};
use ruma::{
    ServerName,
    api::client::media::{get_content, get_content_as_filename, get_content_thumbnail},
};

use super::{download::LONGEST, headers::serve, thumbnail::wanted};
use crate::{error::Result, rates::Limits};

pub(super) async fn download(
    State(media): State<Media>,
    State(limits): State<Limits>,
    origin: Origin,
    Ruma(request): Ruma<get_content::v3::Request>,
) -> Result<Response> {
    let medium = (&*request.server_name, &*request.media_id);
    let reach = may_have(&media, (&limits, origin), medium, request.allow_remote).await?;
    whole(&media, medium, None, (reach, request.timeout_ms)).await
}

pub(super) async fn named(
    State(media): State<Media>,
    State(limits): State<Limits>,
    origin: Origin,
    Ruma(request): Ruma<get_content_as_filename::v3::Request>,
) -> Result<Response> {
    let medium = (&*request.server_name, &*request.media_id);
    let reach = may_have(&media, (&limits, origin), medium, request.allow_remote).await?;
    whole(&media, medium, Some(request.filename), (reach, request.timeout_ms)).await
}

async fn whole(
    media: &Media,
    (server, id): (&ServerName, &str),
    filename: Option<String>,
    (reach, wait): (Reach, Duration),
) -> Result<Response> {
    let content = media.content(server, id, reach, wait.min(LONGEST)).await?;
    Ok(serve(content, filename))
}

pub(super) async fn thumbnail(
    State(media): State<Media>,
    State(limits): State<Limits>,
    origin: Origin,
    Ruma(request): Ruma<get_content_thumbnail::v3::Request>,
) -> Result<Response> {
    let wanted = wanted((request.width, request.height), request.method.as_ref(), request.animated);
    let (server, id, wait) = (&request.server_name, &request.media_id, request.timeout_ms.min(LONGEST));
    let reach = may_have(&media, (&limits, origin), (server, id), request.allow_remote).await?;
    let asked = (reach, &*origin.subject());
    Ok(serve(media.thumbnail(server, id, wanted, asked, wait).await?, None))
}

/// How far to go for somebody who is not logged in, after counting what has to be scanned before it is given out.
async fn may_have(
    media: &Media,
    (limits, origin): (&Limits, Origin),
    medium: (&ServerName, &str),
    allow_remote: bool,
) -> Result<Reach> {
    let reach = reach(media, (limits, origin), medium, allow_remote).await?;
    if !media.is_inspected(medium.0, medium.1).await? {
        limits.ip("scan", origin, |rates| rates.scan)?;
    }
    Ok(reach)
}

/// How far to go for somebody who is not logged in.
pub(crate) async fn reach(
    media: &Media,
    (limits, origin): (&Limits, Origin),
    (server, id): (&ServerName, &str),
    allow_remote: bool,
) -> Result<Reach> {
    let config = media.config();
    if !config.serve_without_login || !media.is_from_before_freeze(server, id).await? {
        return Err(chappe_media::Error::NotFound.into());
    }
    if !allow_remote {
        return Ok(Reach::Local);
    }
    if !config.fetch_without_login || media.is_kept(server, id).await? {
        return Ok(Reach::Kept);
    }
    limits.ip("remote media", origin, |rates| rates.remote_media)?;
    Ok(Reach::Anywhere)
}
