//! Media as an answer: what browsers must not do with it is said in headers.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use chappe_media::Content;
use futures_util::stream::unfold;
use http::{HeaderName, HeaderValue, header};
use ruma::http_headers::{ContentDisposition, ContentDispositionType};
use tokio::io::AsyncReadExt;

/// Types that browsers may show in place (client-server API, "Serving inline content").
const INLINE: &[&str] = &[
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

/// No script, no plug-in, no form, no frame, whatever the medium is.
const POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
                      style-src 'unsafe-inline'; object-src 'self'; media-src 'self'";

/// Pieces in which files are sent, in bytes.
const PIECE: usize = 64 << 10;

/// Gives a medium out; `filename` replaces the uploader's.
pub(crate) fn serve(content: Content, filename: Option<String>) -> Response {
    let kind = content.content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
    let plain = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let inline = INLINE.contains(&plain.as_str());
    let place = if inline { ContentDispositionType::Inline } else { ContentDispositionType::Attachment };
    let disposition = ContentDisposition::new(place).with_filename(filename.or(content.filename));
    let pieces = unfold(content.file, async |mut file| {
        let mut piece = vec![0; PIECE];
        match file.read(&mut piece).await {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                Some((Ok(piece), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    let text = |text: &str| HeaderValue::from_str(text).ok();
    let fallback = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, text(&kind).unwrap_or(fallback));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(content.size));
    let attachment = HeaderValue::from_static("attachment");
    headers.insert(header::CONTENT_DISPOSITION, text(&disposition.to_string()).unwrap_or(attachment));
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
        (header::CACHE_CONTROL, "private, max-age=86400, immutable"),
        (HeaderName::from_static("x-robots-tag"), "noindex, nofollow, noarchive, noimageindex"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
