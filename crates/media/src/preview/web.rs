//! Fetching from the web: by the rules at every step, nothing sent along that tells who asks, nothing unpacked.

use bytes::Bytes;
use chappe_world::{Body, Destination, Limits, Request, World};
use futures_util::StreamExt;
use http::{HeaderMap, Response, header};
use mime::Mime;
use tokio::time::Instant;

use super::Address;
use crate::{Error, config::Previews};

/// Who asks.
const AGENT: &str = "Mozilla/5.0 (compatible; Chappe; Matrix URL preview)";

/// One errand on the web, over when its time is.
#[derive(Clone, Copy)]
pub(super) struct Web<'a> {
    pub(super) world: &'a World,
    pub(super) rules: &'a Previews,
    pub(super) until: Instant,
}

/// What was found.
pub(super) struct Found {
    /// Where, after redirects.
    pub(super) address: Address,
    /// What kind of thing it is, as said.
    pub(super) kind: Option<Mime>,
    pub(super) body: Body,
}

impl Web<'_> {
    /// Fetches from an address and from where it redirects to.
    pub(super) async fn get(&self, mut address: Address, accept: &str) -> Result<Found, Error> {
        for _ in 0..=self.rules.redirects {
            let answer = self.ask(&address, accept).await?;
            let location = text(answer.headers(), &header::LOCATION);
            match location.filter(|_| answer.status().is_redirection()) {
                Some(link) => address = address.redirected(link, self.rules)?,
                None => return found(address, answer),
            }
        }
        Err(Error::PageFailed)
    }

    /// One exchange. What went wrong is not told: it would say what lies behind the guard.
    async fn ask(&self, address: &Address, accept: &str) -> Result<Response<Body>, Error> {
        let languages = self.rules.languages.join(", ");
        let http = http::Request::get(address.as_str())
            .header(header::ACCEPT, accept)
            .header(header::ACCEPT_LANGUAGE, if languages.is_empty() { "*" } else { &languages })
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::USER_AGENT, AGENT)
            .body(Bytes::new())
            .map_err(|_| Error::NotAWebAddress("it cannot be asked for"))?;
        let deadline = self.until.saturating_duration_since(self.world.instant());
        let destination = Destination::Web { ranges: self.rules.allowed_ranges.as_slice().into() };
        // How much of the body is read is decided where it is read: of a long page the beginning is enough.
        let limits = Limits { max_bytes: u64::MAX, deadline };
        let request = Request { destination, http, limits };
        self.world.stream(request).await.map_err(|_| Error::PageFailed)
    }
}

fn found(address: Address, answer: Response<Body>) -> Result<Found, Error> {
    let (head, body) = answer.into_parts();
    let packed = text(&head.headers, &header::CONTENT_ENCODING);
    if !head.status.is_success() || packed.is_some_and(|how| !how.eq_ignore_ascii_case("identity")) {
        return Err(Error::PageFailed);
    }
    let kind = text(&head.headers, &header::CONTENT_TYPE).and_then(|kind| kind.parse().ok());
    Ok(Found { address, kind, body })
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The first bytes of a body, and whether that is all of it. What comes after is not waited for.
pub(super) async fn beginning(mut body: Body, most: u64) -> Result<(Vec<u8>, bool), Error> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|_| Error::PageFailed)?;
        let room = most - bytes.len();
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            return Ok((bytes, false));
        }
    }
    Ok((bytes, true))
}
