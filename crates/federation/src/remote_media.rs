//! Media of other servers, piece by piece: `multipart/mixed` as it comes, never whole in memory.

mod multipart;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chappe_media::{RemoteContent, RemoteError, RemoteMedia};
use chappe_rooms::PeerError;
use chappe_world::{Body, Destination, Limits, Request, Steady};
use futures_util::StreamExt;
use http::{HeaderMap, Method, header};
use ruma::{ServerName, http_headers::ContentDisposition};

use self::multipart::Parts;
use crate::{
    Network,
    network::{is_astray, segment},
};

/// Bytes of headers and metadata around the content at most.
const AROUND: u64 = 64 * 1024;
/// Redirects followed when the content lies elsewhere.
const REDIRECTS: u8 = 3;

#[async_trait]
impl RemoteMedia for Network {
    async fn download(
        &self,
        server: &ServerName,
        media_id: &str,
        max_bytes: u64,
        wait: Duration,
    ) -> Result<RemoteContent, RemoteError> {
        let id = segment(media_id);
        let uri = format!("/_matrix/federation/v1/media/download/{id}?timeout_ms={}", wait.as_millis());
        match self.get(server, &uri, max_bytes, |answer| is_astray(answer.status())).await {
            Ok(answer) => self.read(answer, max_bytes).await,
            // Servers before specification 1.11 know only the older path.
            Err(error) if is_unknown_endpoint(&error) => {
                let name = segment(server.as_str());
                let uri = format!("/_matrix/media/v3/download/{name}/{id}?allow_remote=false");
                // Whatever stands at the older path: of the server itself an answer has come already.
                let answer = self.get(server, &uri, max_bytes, |_| false).await;
                let answer = answer.map_err(|error| remote_error(&error))?;
                let (head, body) = answer.into_parts();
                Ok(content(&head.headers, body, max_bytes))
            }
            Err(error) => Err(remote_error(&error)),
        }
    }
}

/// Whether a refusal says nothing of the medium: it is that of a server without the endpoint, or has no Matrix error at all.
fn is_unknown_endpoint(error: &PeerError) -> bool {
    let says_nothing = |errcode: &str| errcode == "M_UNRECOGNIZED" || errcode == "M_UNKNOWN";
    matches!(error, PeerError::Refused { status: 400 | 404 | 405, errcode, .. } if says_nothing(errcode))
}

fn remote_error(error: &PeerError) -> RemoteError {
    match error {
        PeerError::Refused { errcode, .. } if errcode == "M_NOT_YET_UPLOADED" => RemoteError::NotYetUploaded,
        PeerError::Refused { status: 404, .. } => RemoteError::NotFound,
        other => RemoteError::Unavailable(other.to_string()),
    }
}

fn text(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn content(
    headers: &HeaderMap,
    body: impl futures_util::Stream<Item = Result<Bytes, chappe_world::Error>> + Send + 'static,
    max_bytes: u64,
) -> RemoteContent {
    let disposition = text(headers, &header::CONTENT_DISPOSITION);
    let filename = disposition.and_then(|value| value.parse::<ContentDisposition>().ok()?.filename);
    // One byte more than allowed may pass: by it the reader knows that it is too much.
    let mut left = max_bytes.saturating_add(1);
    let body = body.map(move |piece| {
        let mut piece = piece.map_err(|error| error.to_string())?;
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= piece.len() as u64;
        Ok(piece)
    });
    RemoteContent { content_type: text(headers, &header::CONTENT_TYPE), filename, body: Box::pin(body) }
}

impl Network {
    async fn get(
        &self,
        server: &ServerName,
        uri: &str,
        max_bytes: u64,
        is_away: fn(&http::Response<Bytes>) -> bool,
    ) -> Result<http::Response<Body>, PeerError> {
        let http = self.signed(server, Method::GET, uri, Bytes::new())?;
        let call = self.long().insisting().up_to(max_bytes.saturating_add(AROUND));
        self.stream(server, http, call, is_away).await
    }

    /// Takes the parts of an answer: metadata first, then the content or where it lies.
    async fn read(&self, answer: http::Response<Body>, max_bytes: u64) -> Result<RemoteContent, RemoteError> {
        let (head, body) = answer.into_parts();
        let nonsense = |why: &str| RemoteError::Unavailable(why.to_owned());
        let kind = text(&head.headers, &header::CONTENT_TYPE).unwrap_or_default();
        let boundary = multipart::boundary(&kind).ok_or_else(|| nonsense("the answer is not multipart"))?;
        let mut parts = Parts::new(body, &boundary);
        parts.next_part().await.map_err(|error| nonsense(&error))?;
        parts.skip().await.map_err(|error| nonsense(&error))?;
        let headers = parts.next_part().await.map_err(|error| nonsense(&error))?;
        if let Some(location) = text(&headers, &header::LOCATION) {
            return self.elsewhere(&location, max_bytes).await;
        }
        let pieces = futures_util::stream::unfold(Some(parts), |parts| async {
            let mut parts = parts?;
            match parts.piece().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(parts))),
                Ok(None) => None,
                Err(why) => Some((Err(chappe_world::Error::Unreachable(why)), None)),
            }
        });
        Ok(content(&headers, pieces, max_bytes))
    }

    /// The content from where the server says it is; the guard of outbound connections applies, no signature goes along.
    async fn elsewhere(&self, url: &str, max_bytes: u64) -> Result<RemoteContent, RemoteError> {
        let unavailable = |why: String| RemoteError::Unavailable(why);
        let uri: http::Uri = url.parse().map_err(|_| unavailable("not a URL".to_owned()))?;
        if uri.scheme_str() != Some("https") {
            return Err(unavailable("the content lies at an unsafe place".to_owned()));
        }
        let http = http::Request::get(uri).extension(Steady).body(Bytes::new());
        let http = http.map_err(|error| unavailable(error.to_string()))?;
        let limits = Limits { max_bytes, deadline: self.config().long_timeout() };
        let request = Request { destination: Destination::Foreign { redirects: REDIRECTS }, http, limits };
        let answer = self.world().stream(request).await.map_err(|error| unavailable(error.to_string()))?;
        if !answer.status().is_success() {
            return Err(unavailable(format!("status {}", answer.status())));
        }
        let (head, body) = answer.into_parts();
        Ok(content(&head.headers, body, max_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_path_is_asked_where_nothing_was_said_of_the_medium() {
        let refused = |status, errcode: &str| {
            let errcode = errcode.to_owned();
            is_unknown_endpoint(&PeerError::Refused {
                status,
                errcode,
                error: String::new(),
                room_version: None,
            })
        };
        for status in [400, 404, 405] {
            assert!(refused(status, "M_UNRECOGNIZED") && refused(status, "M_UNKNOWN"), "{status}");
            assert!(!refused(status, "M_NOT_FOUND"), "{status}");
        }
        assert!(!refused(401, "M_UNKNOWN") && !refused(403, "M_UNKNOWN") && !refused(429, "M_UNKNOWN"));
    }
}
