//! Media for other servers: `GET /_matrix/federation/v1/media/download/{mediaId}` and `…/thumbnail/{mediaId}`.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRef, State},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use chappe_media::{Content, Error as MediaError, Media, Method, Reach, Wanted};
use chappe_web::{Error, Routes};
use chappe_world::World;
use futures_util::{Stream, StreamExt};
use http::{StatusCode, header};
use ruma::{
    api::federation::authenticated_media::{get_content, get_content_thumbnail},
    http_headers::{ContentDisposition, ContentDispositionType},
    media::Method as Fit,
};
use tokio::{fs::File, io::AsyncReadExt};

use crate::{Federation, Origin, refusal::Refusal};

/// The longest wait for an upload that was announced.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Bytes read at once.
const PIECE: usize = 64 * 1024;

/// The state of [`media_routes`].
#[derive(Clone, Debug)]
pub struct MediaState {
    /// Who may ask.
    pub federation: Federation,
    /// What is given.
    pub media: Media,
}

impl FromRef<MediaState> for Federation {
    fn from_ref(state: &MediaState) -> Self {
        state.federation.clone()
    }
}

/// The endpoints that give this server's media to other servers.
pub fn media_routes() -> Routes<MediaState> {
    Routes::new()
        .on::<get_content::v1::Request, _>(download)
        .on::<get_content_thumbnail::v1::Request, _>(thumbnail)
}

async fn download(
    State(state): State<MediaState>,
    Origin { request, .. }: Origin<get_content::v1::Request>,
) -> Result<Response, Refusal> {
    let server = state.federation.network().server().to_owned();
    let wait = request.timeout_ms.min(LONGEST_WAIT);
    let content = state.media.content(&server, &request.media_id, Reach::Local, wait).await;
    answer(state.federation.network().world(), content.map_err(refusal)?)
}

async fn thumbnail(
    State(state): State<MediaState>,
    Origin { request, origin }: Origin<get_content_thumbnail::v1::Request>,
) -> Result<Response, Refusal> {
    let server = state.federation.network().server().to_owned();
    let side = |side: ruma::UInt| u32::try_from(u64::from(side)).unwrap_or(u32::MAX);
    let method = match request.method {
        Some(Fit::Crop) => Method::Crop,
        _ => Method::Scale,
    };
    let animated = request.animated.unwrap_or(false);
    let wanted = Wanted { width: side(request.width), height: side(request.height), method, animated };
    let wait = request.timeout_ms.min(LONGEST_WAIT);
    let asked = (Reach::Local, origin.as_str());
    let content = state.media.thumbnail(&server, &request.media_id, wanted, asked, wait).await;
    answer(state.federation.network().world(), content.map_err(refusal)?)
}

/// Metadata and content as `multipart/mixed`; the content is read as it is sent.
fn answer(world: &World, content: Content) -> Result<Response, Refusal> {
    let boundary = world.token(40);
    let kind = content.content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
    let disposition =
        ContentDisposition::new(ContentDispositionType::Attachment).with_filename(content.filename);
    let clean = |text: String| text.replace(['\r', '\n'], " ");
    let opening = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n\
         Content-Type: {}\r\nContent-Disposition: {}\r\n\r\n",
        clean(kind),
        clean(disposition.to_string()),
    );
    let closing = format!("\r\n--{boundary}--\r\n");
    let length = opening.len() as u64 + content.size + closing.len() as u64;
    let whole = |text: String| futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(text))]);
    let body = whole(opening).chain(pieces(content.file)).chain(whole(closing));
    Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, format!("multipart/mixed; boundary={boundary}"))
        .header(header::CONTENT_LENGTH, length)
        .body(Body::from_stream(body))
        .map_err(|error| Error::internal(error).into())
}

fn pieces(file: File) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    futures_util::stream::try_unfold(file, |mut file| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = file.read_buf(&mut piece).await?;
        Ok((read > 0).then(|| (piece.freeze(), file)))
    })
}

fn refusal(error: MediaError) -> Refusal {
    Refusal(match error {
        MediaError::NotFound | MediaError::NotClean => Error::not_found("Media not found"),
        MediaError::NoThumbnail => {
            Error::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "There can be no thumbnail of this")
        }
        MediaError::NotYetUploaded => {
            let why = "The content has not been uploaded yet";
            Error::new(StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED", why)
        }
        MediaError::TooLarge => Error::too_large(),
        MediaError::Stopping | MediaError::NotInspected(_) => Error::busy(),
        other => Error::internal(other),
    })
}
