//! Outbound requests: where to, within which limits, and what comes back.

mod body;
mod client;
mod pool;
mod proxy;
mod race;
mod room;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use ipnet::IpNet;
use serde::Deserialize;

pub use self::body::Body;
use self::room::Part;
pub(crate) use self::{client::Client, room::Room};
use crate::World;

/// Configuration of outbound connections.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outbound {
    /// Address ranges inside the own network that may be connected to, such as `10.0.0.0/8`.
    pub allowed_ranges: Vec<IpNet>,
    /// Files with certificate authorities (PEM) that are trusted besides the system's.
    pub certificate_authorities: Vec<PathBuf>,
    /// Whether the system's certificate authorities are trusted at all.
    pub system_authorities: bool,
    /// What other servers see when they ask for a certificate.
    pub client_certificate: Option<ClientCertificate>,
    /// `http://host:port` of a proxy through which other servers are reached (`CONNECT`). It looks their names up; one for
    /// which this machine's resolver finds an address that may not be connected to is not asked for.
    pub proxy: Option<String>,
    /// Seconds until a connection must stand.
    pub connect_timeout_s: u64,
    /// Seconds after which an unused connection is closed.
    pub idle_timeout_s: u64,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            allowed_ranges: Vec::new(),
            certificate_authorities: Vec::new(),
            system_authorities: true,
            client_certificate: None,
            proxy: None,
            connect_timeout_s: 10,
            idle_timeout_s: 60,
        }
    }
}

/// A certificate of this server's own, in PEM files that are read at the start.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// The certificate, followed by its chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To the host of the request's own absolute `http:` or `https:` URI; up to so many redirects are followed, each
    /// under the same guard.
    Url {
        /// Redirects to follow, 0 for none.
        redirects: u8,
    },
    /// As [`Destination::Url`], on the way to another server, whose proxy and certificate are used.
    Peer {
        /// Redirects to follow, 0 for none.
        redirects: u8,
    },
    /// As [`Destination::Url`], for URLs that a stranger chose and whose content somebody gets to see: to the public
    /// Internet alone, whatever ranges are listed, and never from `https:` to `http:`.
    Foreign {
        /// Redirects to follow, 0 for none.
        redirects: u8,
    },
    /// As [`Destination::Foreign`] without redirects, which the caller wants to look at; besides the public Internet to
    /// these ranges, which are listed for the purpose.
    Web {
        /// Address ranges inside the own network that may be connected to; those of [`Outbound`] do not count.
        ranges: Arc<[IpNet]>,
    },
    /// To another server at a host that the caller has found out, always over TLS; the request's URI gives the path alone.
    Host(Host),
}

/// A host as federation's discovery finds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// Host name or IP address (without brackets) to connect to.
    pub connect: String,
    /// Port to connect to.
    pub port: u16,
    /// The name or address that the certificate must be for (without brackets or port).
    pub tls_name: String,
    /// The `Host` header.
    pub header: String,
}

/// What an answer may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the body.
    pub max_bytes: u64,
    /// From the beginning to the last byte, unless it is [`Steady`].
    pub deadline: Duration,
}

impl Default for Limits {
    /// 10 MiB in 30 seconds.
    fn default() -> Self {
        Self { max_bytes: 10 << 20, deadline: Duration::from_secs(30) }
    }
}

/// An outbound request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where it goes.
    pub destination: Destination,
    /// Method, URI, headers, body.
    pub http: ::http::Request<Bytes>,
    /// What the answer may cost.
    pub limits: Limits,
}

impl Request {
    /// Who is asked.
    fn host(&self) -> &str {
        match &self.destination {
            Destination::Host(host) => &host.header,
            _ => self.http.uri().host().unwrap_or_default(),
        }
    }
}

/// Goes with a request, as an extension, that may be sent twice though its method does not say so: where a kept connection
/// broke before an answer, nobody knows whether the request had arrived.
#[derive(Clone, Copy, Debug)]
pub struct Repeatable;

/// Goes with a request, as an extension, whose answer may be long and the way slow: after the deadline it may still come, as
/// long as it does so at a pace.
#[derive(Clone, Copy, Debug)]
pub struct Steady;

impl Steady {
    /// What has to come in each second that is more than the first ones, in bytes.
    const PACE: u64 = 64 << 10;
    /// How long anything may take.
    const LONGEST: Duration = Duration::from_mins(15);

    /// How long something may take of which so many bytes have come: `first` in any case, then a second for every 64 KiB, and a
    /// quarter of an hour at most.
    pub fn time_for(first: Duration, bytes: u64) -> Duration {
        let earned = Duration::from_millis(bytes.saturating_mul(1_000) / Self::PACE);
        first.saturating_add(earned).min(first.max(Self::LONGEST))
    }
}

/// Why there is no answer. An answer with an error status is an answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The guard refuses every address of the host: trying again is useless.
    #[error("{0} is not a permitted address")]
    Refused(String),
    /// The request cannot be sent as it is.
    #[error("not a valid request: {0}")]
    Invalid(String),
    /// No connection, or no trusted certificate: nothing was sent. Try again later.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The connection broke when the request was on its way: it may have been dealt with.
    #[error("broken off: {0}")]
    Broken(String),
    /// The deadline passed: try again later.
    #[error("no answer in time")]
    Timeout,
    /// The body is longer than allowed.
    #[error("the answer is too long")]
    TooLong,
    /// Too much is being read from all others together, or too many names are being looked up: try again later.
    #[error("too much is under way")]
    Busy,
    /// More redirects than allowed, or one to nowhere.
    #[error("redirected too often")]
    Redirects,
}

/// Sends requests.
#[async_trait]
pub trait Http: Send + Sync {
    /// Sends one; the body arrives piece by piece and fails when a limit is reached.
    async fn stream(&self, request: Request) -> Result<::http::Response<Body>, Error>;
}

/// Answers that are no longer need no room, in bytes.
const TINY: usize = 64 << 10;

/// Sends a request and reads the body to its end. If it is a short one, its part of `room` is given back with it.
pub(crate) async fn whole(
    http: &dyn Http,
    request: Request,
    room: &Room,
) -> Result<::http::Response<Bytes>, Error> {
    let is_short = request.limits.max_bytes <= World::SHORT_BYTES;
    let host = request.host().to_owned();
    let (head, mut body) = http.stream(request).await?.into_parts();
    let (mut bytes, mut part, mut paid) = (BytesMut::new(), Part::default(), 0);
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece?);
        let needed = u32::try_from(bytes.len().div_ceil(1 << 10)).unwrap_or(u32::MAX);
        if is_short && bytes.len() > TINY && needed > paid {
            room.add(&mut part, &host, needed - paid).ok_or(Error::Busy)?;
            paid = needed;
        }
    }
    let bytes = bytes.freeze();
    let bytes = if part.is_empty() { bytes } else { Bytes::from_owner(Counted { bytes, _part: part }) };
    Ok(::http::Response::from_parts(head, bytes))
}

/// A body with what it has of the room for answers.
struct Counted {
    bytes: Bytes,
    _part: Part,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use bytes::Bytes;
    use futures_util::StreamExt;
    use tokio::time::Instant;

    use super::{Body, Destination, Error, Http, Limits, Request, Room, whole};
    use crate::World;

    /// Answers with so many KiB.
    struct Says(usize);

    #[async_trait]
    impl Http for Says {
        async fn stream(&self, request: Request) -> Result<http::Response<Body>, Error> {
            let pieces = vec![Ok(Bytes::from(vec![b'x'; 1 << 10])); self.0];
            let deadline = Instant::now() + request.limits.deadline;
            let body = Body::new(futures_util::stream::iter(pieces), request.limits, deadline);
            Ok(http::Response::new(body))
        }
    }

    #[tokio::test]
    async fn short_answers_share_what_there_is() {
        let room = Room::new(160, 100);
        let ask = async |host: &str, kibibytes: usize, max_bytes: u64| {
            let request = Request {
                destination: Destination::Url { redirects: 0 },
                http: http::Request::get(format!("https://{host}/")).body(Bytes::new()).unwrap(),
                limits: Limits { max_bytes, deadline: Duration::from_secs(5) },
            };
            whole(&Says(kibibytes), request, &room).await
        };
        let (short, long) = (World::SHORT_BYTES, World::SHORT_BYTES + 1);
        let (a, b) = ("a.example", "b.example");
        let held = ask(a, 80, short).await.unwrap().into_body();
        assert_eq!(held.len(), 80 << 10);
        assert!(matches!(ask(a, 80, short).await, Err(Error::Busy)), "one host has its share");
        assert!(ask(b, 80, short).await.is_ok(), "and leaves some to others");
        assert!(matches!(ask(b, 81, short).await, Err(Error::Busy)), "all have so much");
        assert!(ask(a, 60, short).await.is_ok(), "a tiny one");
        assert!(ask(a, 200, long).await.is_ok(), "its number is bounded elsewhere");
        drop(held);
        assert!(ask(a, 100, short).await.is_ok());
        assert_eq!(room.left(), 160);
    }

    /// Reads a body of which so many KiB come every second, for so long; what is said at its end, and when.
    async fn read(kib: usize, seconds: u64, is_steady: bool) -> (Result<(), Error>, u64) {
        let (begun, first) = (Instant::now(), Duration::from_secs(20));
        let pieces = futures_util::stream::unfold(0, move |second| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            (second < seconds).then(|| (Ok(Bytes::from(vec![b'x'; kib << 10])), second + 1))
        });
        let limits = Limits { max_bytes: u64::MAX, deadline: first };
        let body = Body::new(pieces, limits, begun + first);
        let mut body = if is_steady { body.steady(first) } else { body };
        while let Some(piece) = body.next().await {
            if let Err(error) = piece {
                return (Err(error), begun.elapsed().as_secs());
            }
        }
        (Ok(()), begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_answer_may_come_slowly_and_one_that_trickles_ends() {
        assert!(matches!(read(128, 100, true).await, (Ok(()), 101)));
        assert!(matches!(read(128, 100, false).await, (Err(Error::Timeout), 20)));
        assert!(matches!(read(1, 100, true).await, (Err(Error::Timeout), 20)), "it trickles");
        assert!(matches!(read(32, 100, true).await, (Err(Error::Timeout), 39..=40)), "half the pace");
        assert!(matches!(read(128, 10_000, true).await, (Err(Error::Timeout), 900)), "it has no end");
    }
}
