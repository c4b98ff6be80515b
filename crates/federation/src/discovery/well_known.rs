//! `GET https://<host>/.well-known/matrix/server`: the name that a host delegates its federation traffic to.

use std::time::Duration;

use bytes::Bytes;
use chappe_world::{Destination, Error, Limits, Request, World};
use http::{HeaderMap, StatusCode, header};
use ruma::OwnedServerName;
use serde::Deserialize;

/// A page longer than this is no delegation.
const MAX_BYTES: u64 = 50 * 1024;
/// Redirects followed.
const REDIRECTS: u8 = 5;
/// However short the page says it lives, it is not asked for more often than this.
const SHORTEST: Duration = Duration::from_mins(5);

/// How long answers are kept.
pub(super) struct Lifetimes {
    /// When the page does not say; at most twice this when it does.
    pub(super) unsaid: Duration,
    /// That there is no page.
    pub(super) absent: Duration,
}

/// What a page says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delegation {
    pub(super) to: OwnedServerName,
    pub(super) lifetime: Duration,
}

/// Why there is no delegation, in words for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum Missing {
    /// The host was not reached, or is not in order: there may be one.
    #[error("{0}")]
    Unknown(String),
    /// There is none.
    #[error("{0}")]
    Absent(String),
    /// It was not asked: too much is under way.
    #[error("too much is under way")]
    Busy,
}

#[derive(Deserialize)]
struct Page {
    #[serde(rename = "m.server")]
    server: OwnedServerName,
}

/// Asks.
pub(super) async fn ask(world: &World, host: &str, lifetimes: &Lifetimes) -> Result<Delegation, Missing> {
    let absent = |error: &dyn std::fmt::Display| Missing::Absent(error.to_string());
    let http = http::Request::get(format!("https://{host}/.well-known/matrix/server"))
        .header(header::ACCEPT, "application/json")
        .body(Bytes::new())
        .map_err(|error| absent(&error))?;
    let limits = Limits { max_bytes: MAX_BYTES, deadline: Duration::from_secs(10) };
    let request = Request { destination: Destination::Peer { redirects: REDIRECTS }, http, limits };
    let answer = world.send(request).await.map_err(|error| match error {
        Error::Unreachable(_) | Error::Broken(_) | Error::Timeout => Missing::Unknown(error.to_string()),
        Error::Busy => Missing::Busy,
        other => absent(&other),
    })?;
    let status = answer.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Err(Missing::Unknown(format!("status {status}")));
    }
    if status != StatusCode::OK {
        return Err(absent(&format!("status {status}")));
    }
    let page: Page = serde_json::from_slice(answer.body()).map_err(|error| absent(&error))?;
    let lifetime = lifetime(answer.headers()).unwrap_or(lifetimes.unsaid);
    let lifetime = lifetime.clamp(SHORTEST, lifetimes.unsaid.saturating_mul(2).max(SHORTEST));
    Ok(Delegation { to: page.server, lifetime })
}

/// What `Cache-Control` says.
fn lifetime(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut age = None;
    for directive in directives.flat_map(|value| value.split(',')).map(str::trim) {
        let directive = directive.to_ascii_lowercase();
        if directive == "no-store" || directive == "no-cache" {
            return Some(Duration::ZERO);
        }
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            age = seconds.trim_matches('"').parse().ok().map(Duration::from_secs);
        }
    }
    age
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_control_is_read_whatever_else_it_says() {
        let said = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, value.parse().unwrap());
            lifetime(&headers)
        };
        assert_eq!(said("public, max-age=600"), Some(Duration::from_mins(10)));
        assert_eq!(said("MAX-AGE=\"60\""), Some(Duration::from_mins(1)));
        assert_eq!(said("max-age=600, no-store"), Some(Duration::ZERO));
        assert_eq!(said("public"), None);
        assert_eq!(said("max-age=soon"), None);
        assert_eq!(lifetime(&HeaderMap::new()), None);
    }
}
