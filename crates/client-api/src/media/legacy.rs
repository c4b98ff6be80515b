//! `GET /_matrix/media/v3/download/…` and `/thumbnail/…`: without log-in, where the configuration allows it.
//!
//! They give what is kept here and never fetch: nobody fills the disk without being logged in.
#![expect(deprecated, reason = "old clients use the endpoints without log-in, and ruma marks them")]

use std::time::Duration;

use axum::{extract::State, response::Response};
use chappe_media::{Media, Reach};
use chappe_web::Ruma;
use ruma::{
    ServerName,
    api::client::media::{get_content, get_content_as_filename, get_content_thumbnail},
};

use super::{download::LONGEST, headers::serve, thumbnail::wanted};
use crate::error::Result;

pub(super) async fn download(
    State(media): State<Media>,
    Ruma(request): Ruma<get_content::v3::Request>,
) -> Result<Response> {
    let id = &request.media_id;
    whole(&media, &request.server_name, id, None, (request.allow_remote, request.timeout_ms)).await
}

pub(super) async fn named(
    State(media): State<Media>,
    Ruma(request): Ruma<get_content_as_filename::v3::Request>,
) -> Result<Response> {
    let (id, name) = (&request.media_id, Some(request.filename));
    whole(&media, &request.server_name, id, name, (request.allow_remote, request.timeout_ms)).await
}

async fn whole(
    media: &Media,
    server: &ServerName,
    id: &str,
    filename: Option<String>,
    (allow_remote, wait): (bool, Duration),
) -> Result<Response> {
    let content = media.content(server, id, reach(media, allow_remote)?, wait.min(LONGEST)).await?;
    Ok(serve(content, filename))
}

pub(super) async fn thumbnail(
    State(media): State<Media>,
    Ruma(request): Ruma<get_content_thumbnail::v3::Request>,
) -> Result<Response> {
    let wanted = wanted(request.width, request.height, request.method.as_ref());
    let (server, id, wait) = (&request.server_name, &request.media_id, request.timeout_ms.min(LONGEST));
    let reach = reach(&media, request.allow_remote)?;
    Ok(serve(media.thumbnail(server, id, wanted, reach, wait).await?, None))
}

fn reach(media: &Media, allow_remote: bool) -> Result<Reach> {
    if !media.config().serve_without_login {
        return Err(chappe_media::Error::NotFound.into());
    }
    Ok(if allow_remote { Reach::Kept } else { Reach::Local })
}
