//! `GET /media/download/{serverName}/{mediaId}[/{fileName}]`.

use std::time::Duration;

use axum::{extract::State, response::Response};
use chappe_media::{Media, Place, Reach};
use chappe_web::Ruma;
use ruma::{
    ServerName,
    api::client::authenticated_media::{get_content, get_content_as_filename},
};

use super::headers::serve;
use crate::{error::Result, rates::Limits, requester::Requester};

/// How long a client waits at most for an upload that was announced.
pub(crate) const LONGEST: Duration = Duration::from_mins(1);

pub(super) async fn handler(
    State(media): State<Media>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<get_content::v1::Request>,
) -> Result<Response> {
    let (server, id, wait) = (&request.server_name, &request.media_id, request.timeout_ms.min(LONGEST));
    let _place = may_have(&media, &limits, &requester, (server, id)).await?;
    Ok(serve(media.content(server, id, Reach::Anywhere, wait).await?, None))
}

pub(super) async fn named(
    State(media): State<Media>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<get_content_as_filename::v1::Request>,
) -> Result<Response> {
    let (server, id, wait) = (&request.server_name, &request.media_id, request.timeout_ms.min(LONGEST));
    let _place = may_have(&media, &limits, &requester, (server, id)).await?;
    Ok(serve(media.content(server, id, Reach::Anywhere, wait).await?, Some(request.filename)))
}

/// Counts what it costs to give a medium out: fetching it, and having it scanned where nothing leaves before. The place is to
/// be kept until it is there, and is none where nothing has to be done.
pub(super) async fn may_have(
    media: &Media,
    limits: &Limits,
    requester: &Requester,
    medium: (&ServerName, &str),
) -> Result<Option<Place>> {
    let place = may_fetch(media, limits, requester, medium).await?;
    if media.is_inspected(medium.0, medium.1).await? {
        return Ok(place);
    }
    limits.user("scan", requester, |rates| rates.scan)?;
    match place {
        None => Ok(Some(media.place_for(requester.user()).await?)),
        taken => Ok(taken),
    }
}

/// Counts a medium that would have to be fetched and kept: nobody fills the disk with what other servers hold. The place
/// is to be kept until it is there, and is none where nothing is fetched.
pub(crate) async fn may_fetch(
    media: &Media,
    limits: &Limits,
    requester: &Requester,
    (server, id): (&ServerName, &str),
) -> Result<Option<Place>> {
    if media.is_kept(server, id).await? {
        return Ok(None);
    }
    limits.user("remote media", requester, |rates| rates.remote_media)?;
    Ok(Some(media.place_for(requester.user()).await?))
}
