//! `POST /_matrix/media/v3/upload` and `PUT /_matrix/media/v3/upload/{serverName}/{mediaId}`: the body goes to disk as it comes.

use std::time::Duration;

use axum::{
    Json,
    extract::{RawPathParams, Request, State},
};
use bytes::Bytes;
use chappe_media::{Media, Upload};
use chappe_web::Parameters;
use chappe_world::World;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, header};
use ruma::ServerName;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    error::Result,
    rates::Limits,
    requester::{Acting, Requester},
};

/// How long a client may send nothing during an upload.
const SILENCE: Duration = Duration::from_mins(1);

#[derive(Deserialize)]
pub(super) struct Named {
    filename: Option<String>,
}

pub(super) async fn at_once(
    State(media): State<Media>,
    State(limits): State<Limits>,
    State(world): State<World>,
    requester: Acting,
    Parameters(named): Parameters<Named>,
    request: Request,
) -> Result<Json<Value>> {
    limits.user("upload", &requester, |rates| rates.upload)?;
    announced_size(&media, request.headers())?;
    let upload = upload(&requester, request.headers(), named);
    let uri = media.upload(upload, body(world, request)).await?;
    Ok(Json(json!({ "content_uri": uri })))
}

pub(super) async fn to_address(
    State(media): State<Media>,
    State(world): State<World>,
    requester: Acting,
    path: RawPathParams,
    Parameters(named): Parameters<Named>,
    request: Request,
) -> Result<Json<Value>> {
    announced_size(&media, request.headers())?;
    let path: Vec<&str> = path.iter().map(|(_, value)| value).collect();
    let [server, id] = path[..] else { return Err(chappe_web::Error::unrecognized().into()) };
    if !ServerName::parse(server).is_ok_and(|server| media.is_local(&server)) {
        return Err(chappe_media::Error::NotFound.into());
    }
    let upload = upload(&requester, request.headers(), named);
    media.upload_to(id, upload, body(world, request)).await?;
    Ok(Json(json!({})))
}

/// Says no before anything is sent where the length is known and too much.
fn announced_size(media: &Media, headers: &HeaderMap) -> Result<()> {
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > media.config().max_upload_bytes) {
        return Err(chappe_media::Error::TooLarge.into());
    }
    Ok(())
}

fn upload(requester: &Requester, headers: &HeaderMap, named: Named) -> Upload {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    Upload {
        user: requester.user().to_owned(),
        content_type: content_type.map(str::to_owned),
        filename: named.filename,
    }
}

/// The body, which ends in an error when nothing comes for too long.
fn body(world: World, request: Request) -> impl Stream<Item = Result<Bytes, String>> + Send {
    let pieces = request.into_body().into_data_stream().boxed();
    futures_util::stream::unfold(Some((pieces, world)), async |state| {
        let (mut pieces, world) = state?;
        match world.timeout(SILENCE, pieces.next()).await {
            Some(Some(Ok(piece))) => Some((Ok(piece), Some((pieces, world)))),
            Some(Some(Err(error))) => Some((Err(error.to_string()), None)),
            Some(None) => None,
            None => Some((Err("nothing came for too long".to_owned()), None)),
        }
    })
}
