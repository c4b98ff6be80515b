//! The outbound half: signed requests to other servers, within limits, with errors that tell a client nothing odd.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use chappe_rooms::{Held, PeerError};
use chappe_rules::build::SigningKey;
use chappe_store::Store;
use chappe_web::{Error, Rate, RateLimiter};
use chappe_world::{Body, Limits, Live, Repeatable, World};
use futures_util::StreamExt;
use http::{HeaderValue, StatusCode, header};
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName, UInt,
    api::{IncomingResponseExt, OutgoingBody, OutgoingRequest, path_builder::SinglePath},
};
use serde::Deserialize;

use crate::{
    AllowList, Config, KeyRing,
    auth::{Addressee, Signed, sign},
    backoff::Backoff,
    discovery::Discovery,
    keys::{Pins, own_document},
    link::{Link, LinkError},
    places::{Paces, Places},
    prompt::Prompt,
};

/// The longest answer to a usual request, in bytes.
const MAX_BYTES: u64 = World::SHORT_BYTES;
/// The longest answer about the keys of users, in bytes, and what more each of them may take: one request of a client asks many
/// servers at a time. One user may have 2,000 devices.
const KEYS_BYTES: u64 = 3 << 20;
const KEYS_OF_USER: u64 = 64 << 10;
/// The longest answer that carries the state of a room, in bytes.
const MAX_STATE_BYTES: u64 = 512 << 20;
/// The longest answer that carries state nobody here asked for: a received event made us look, in bytes.
const MAX_TOLD_BYTES: u64 = 128 << 20;
/// How much is read of a refusal where answers are not read whole, in bytes.
const MAX_REFUSAL_BYTES: usize = 16 << 10;
/// Long answers of each kind that are read at the same time, and as many more from servers that are slow.
const LONG_AT_ONCE: usize = 4;
/// Of each kind, how many one server has: while it is asked for the members of a room that was joined before they were here,
/// it may have to be asked for what is before an event.
const LONG_OF_ONE: usize = 2;
/// Room for what was read of each kind and is being worked on, in KiB; one server has half of it.
const READ_KIB: usize = 512 << 10;

/// What [`Network`] is built from.
#[derive(Debug)]
pub struct NetworkDeps {
    /// Time, randomness, the network.
    pub world: World,
    /// Keys, waiting times.
    pub store: Store,
    /// The name of this server.
    pub server: OwnedServerName,
    /// What it signs with.
    pub key: Arc<SigningKey>,
}

/// Other servers, as this one reaches them: a handle, clones share it.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    world: World,
    store: Store,
    server: OwnedServerName,
    key: Arc<SigningKey>,
    config: Live<Config>,
    allowed: AllowList,
    link: Link,
    pins: Pins,
    keys: KeyRing,
    backoff: Backoff,
    prompt: Prompt,
    limiter: RateLimiter,
    /// Answers that are long: those that a user waits for, and the others.
    joins: Long,
    states: Long,
}

/// Places for long answers while they are read, and room for them afterwards: whoever checks one may wait for many others, and
/// keeps nobody from reading meanwhile.
struct Long {
    reading: Paces,
    read: Places,
}

impl Long {
    fn new(world: &World) -> Self {
        let reading = Paces::new(world.clone(), LONG_AT_ONCE, LONG_OF_ONE);
        Self { reading, read: Places::new(READ_KIB, READ_KIB / 2) }
    }
}

/// What a request may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    limits: Limits,
    /// Whether a destination that is being waited for is tried all the same.
    insists: bool,
    /// Whether it must not arrive twice.
    once: bool,
}

impl Network {
    /// The outbound half of the federation.
    pub fn new(deps: NetworkDeps, config: Config) -> Self {
        let NetworkDeps { world, store, server, key } = deps;
        let allowed = AllowList::new(config.allow.as_deref());
        let link = Link { world: world.clone(), discovery: Discovery::new(world.clone(), &config) };
        let pins = Pins::new(&config.pinned_keys);
        let keys = KeyRing::new(store.clone(), link.clone(), allowed.clone(), pins.clone(), &config);
        let backoff = Backoff::new(world.clone(), store.clone(), &config);
        let [joins, states] = [(); 2].map(|()| Long::new(&world));
        let limiter = RateLimiter::default();
        Self(Arc::new(Inner {
            world,
            store,
            server,
            key,
            config: Live::new(config),
            allowed,
            link,
            pins,
            keys,
            backoff,
            prompt: Prompt::default(),
            limiter,
            joins,
            states,
        }))
    }

    /// The name of this server.
    pub fn server(&self) -> &ServerName {
        &self.0.server
    }

    /// The list of servers that are talked with; replacing it takes effect at once.
    pub fn allowed(&self) -> &AllowList {
        &self.0.allowed
    }

    /// The keys of other servers.
    pub fn keys(&self) -> &KeyRing {
        &self.0.keys
    }

    pub(crate) fn pins(&self) -> &Pins {
        &self.0.pins
    }

    pub(crate) fn link(&self) -> &Link {
        &self.0.link
    }

    pub(crate) fn backoff(&self) -> &Backoff {
        &self.0.backoff
    }

    pub(crate) fn prompt(&self) -> &Prompt {
        &self.0.prompt
    }

    pub(crate) fn world(&self) -> &World {
        &self.0.world
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    /// The section as it is now.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.0.config.get()
    }

    /// Goes on with another section, as far as it is read when it is needed: rates, lifetimes, times to wait for an answer. Who
    /// is talked with is said by [`Network::allowed`].
    pub fn reconfigure(&self, config: Config) {
        self.0.config.set(config);
    }

    /// Counts what somebody asks of this server; 429 when it is too much.
    pub(crate) fn count(&self, action: &'static str, subject: &str, rate: Rate) -> Result<(), Error> {
        self.0.limiter.check(action, subject, rate)
    }

    /// The document that tells other servers our keys.
    pub(crate) fn own_keys(&self) -> CanonicalJsonObject {
        own_document(&self.0.server, &self.0.key, &self.config(), self.now())
    }

    /// Adds our signature to what we vouch for.
    pub(crate) fn countersign(&self, document: &mut CanonicalJsonObject) {
        self.0.key.sign_json(&self.0.server, document);
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> u64 {
        self.0.world.now()
    }

    pub(crate) fn timestamp(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.now()))
    }

    /// A usual request: short, and not sent to a server that is being waited for.
    pub(crate) fn brief(&self) -> Call {
        Call::within(self.config().timeout(), MAX_BYTES)
    }

    /// A request that makes the other server work, or whose answer holds the state of a room.
    pub(crate) fn long(&self) -> Call {
        Call::within(self.config().long_timeout(), MAX_STATE_BYTES)
    }

    /// A question about the state of a room that a received event raised.
    pub(crate) fn state(&self) -> Call {
        self.long().up_to(MAX_TOLD_BYTES)
    }

    /// Asks `to`.
    pub(crate) async fn request<R>(
        &self,
        to: &ServerName,
        request: R,
        call: Call,
    ) -> Result<R::IncomingResponse, PeerError>
    where
        R: OutgoingRequest<PathBuilder = SinglePath>,
    {
        Ok(self.request_held(to, request, call).await?.0)
    }

    /// The same, with the room that a long answer has for as long as it is there.
    pub(crate) async fn request_held<R>(
        &self,
        to: &ServerName,
        request: R,
        call: Call,
    ) -> Result<(R::IncomingResponse, Held), PeerError>
    where
        R: OutgoingRequest<PathBuilder = SinglePath>,
    {
        let (method, uri, body) = parts(request).map_err(PeerError::Malformed)?;
        let http = self.signed(to, method, &uri, body)?;
        let (mut head, body) = self.exchange(to, http, call).await?.into_parts();
        let held = head.extensions.remove::<Held>().unwrap_or_default();
        let read = R::IncomingResponse::try_from_http_response(http::Response::from_parts(head, &body[..]));
        Ok((read.map_err(|error| PeerError::Malformed(error.to_string()))?, held))
    }

    /// Sends a signed request and gives a good answer; anything else is an error, and noted for the next ones.
    pub(crate) async fn exchange(
        &self,
        to: &ServerName,
        http: http::Request<Bytes>,
        call: Call,
    ) -> Result<http::Response<Bytes>, PeerError> {
        let answer = self.answer(to, http, call).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(refusal(to, answer.status(), answer.body()))
    }

    /// The same, giving refusals as they came: for callers that pass nothing of them on.
    pub(crate) async fn answer(
        &self,
        to: &ServerName,
        http: http::Request<Bytes>,
        call: Call,
    ) -> Result<http::Response<Bytes>, PeerError> {
        willing(to, self.reach(to, http, call).await?)
    }

    /// The same, giving whatever the server itself answered.
    pub(crate) async fn reach(
        &self,
        to: &ServerName,
        mut http: http::Request<Bytes>,
        call: Call,
    ) -> Result<http::Response<Bytes>, PeerError> {
        self.ready(to, call).await?;
        if !call.once {
            http.extensions_mut().insert(Repeatable);
        }
        let exchange = Box::pin(self.0.link.exchange(to, http, call.limits));
        if call.limits.max_bytes <= MAX_BYTES {
            return self.noted(to, exchange.await, is_down).await;
        }
        let Long { reading, read } = if call.insists { &self.0.joins } else { &self.0.states };
        let place = self.0.world.timeout(call.limits.deadline, reading.take(to)).await;
        let place = place.ok_or_else(|| PeerError::Unreachable(to.to_owned()))?;
        // It may have been found away while this waited.
        self.ready(to, call).await?;
        let (answer, place) = reading.spend(place, to, exchange).await;
        let mut answer = self.noted(to, answer, is_down).await?;
        let kib = u32::try_from(answer.body().len().div_ceil(1 << 10)).unwrap_or(u32::MAX);
        // For one that there is no room for its place has to do.
        let held = read.try_take(to, kib).unwrap_or(place);
        answer.extensions_mut().insert(Held::new(held));
        Ok(answer)
    }

    /// The same, with an answer that is read piece by piece. By statuses that `is_away` knows the server counts as not reached.
    pub(crate) async fn stream(
        &self,
        to: &ServerName,
        http: http::Request<Bytes>,
        call: Call,
        is_away: fn(&http::Response<Bytes>) -> bool,
    ) -> Result<http::Response<Body>, PeerError> {
        self.ready(to, call).await?;
        let answer = match self.0.link.stream(to, http, call.limits).await {
            Ok(answer) if answer.status().is_success() => {
                return self.noted(to, Ok(answer), |_| false).await;
            }
            Ok(refused) => Ok(beginning(refused).await),
            Err(error) => Err(error),
        };
        let answer = self.noted(to, answer, is_away).await?;
        let refused = refusal(to, answer.status(), answer.body());
        // Of what is not there yet its server says so with a status of those that are away.
        if !matches!(&refused, PeerError::Refused { errcode, .. } if errcode == "M_NOT_YET_UPLOADED") {
            willing(to, answer)?;
        }
        Err(refused)
    }

    /// A request with our signature on it.
    pub(crate) fn signed(
        &self,
        to: &ServerName,
        method: http::Method,
        uri: &str,
        body: Bytes,
    ) -> Result<http::Request<Bytes>, PeerError> {
        let signed = Signed { method: &method, uri, body: &body };
        let authorization = sign(signed, &self.0.server, Addressee::homeserver(to), &self.0.key)
            .ok_or_else(|| PeerError::Malformed("the request cannot be signed".to_owned()))?;
        let mut http =
            http::Request::builder().method(method).uri(uri).header(header::AUTHORIZATION, authorization);
        if !body.is_empty() {
            http = http.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        http.body(body).map_err(|error| PeerError::Malformed(error.to_string()))
    }

    /// The `Authorization` header of our own request to an identity server; `None` if the body cannot be signed.
    pub(crate) fn authorization_for_identity_server(
        &self,
        uri: &str,
        body: &[u8],
        identity_server: &str,
    ) -> Option<HeaderValue> {
        let signed = Signed { method: &http::Method::POST, uri, body };
        sign(signed, &self.0.server, Addressee::identity_server(identity_server), &self.0.key)
    }

    /// Whether `to` may be asked now.
    async fn ready(&self, to: &ServerName, call: Call) -> Result<(), PeerError> {
        let unreachable = || PeerError::Unreachable(to.to_owned());
        if to == self.0.server || !self.0.allowed.permits(to) {
            return Err(unreachable());
        }
        if !call.insists && self.0.backoff.wait_until(to).await.map_err(|_| unreachable())? != 0 {
            return Err(unreachable());
        }
        Ok(())
    }

    /// Remembers whether the server was there: not if its answer is one of those that `is_down` knows.
    async fn noted<T>(
        &self,
        to: &ServerName,
        answer: Result<http::Response<T>, LinkError>,
        is_down: fn(&http::Response<T>) -> bool,
    ) -> Result<http::Response<T>, PeerError> {
        let (kept, result) = match answer {
            Ok(answer) if is_down(&answer) => {
                tracing::info!(server = %to, status = %answer.status(), "another server did not answer well");
                (self.0.backoff.failed(to, None).await.map(drop), Err(PeerError::Unreachable(to.to_owned())))
            }
            // It is there, whatever it thinks of this request: nobody else has to wait for that, and it says nothing new of a
            // destination that takes no transactions.
            Ok(answer) if !answer.status().is_success() => (Ok(()), Ok(answer)),
            Ok(answer) => (self.0.backoff.succeeded(to).await, Ok(answer)),
            Err(LinkError::TooLong) => {
                (Ok(()), Err(PeerError::Malformed("the answer is too long".to_owned())))
            }
            // That is no fault of the server's.
            Err(LinkError::Busy) => (Ok(()), Err(PeerError::Unreachable(to.to_owned()))),
            Err(LinkError::Unreachable(why)) => {
                tracing::info!(server = %to, why, "another server was not reached");
                (self.0.backoff.failed(to, None).await.map(drop), Err(PeerError::Unreachable(to.to_owned())))
            }
        };
        if let Err(error) = kept {
            tracing::warn!(server = %to, %error, "the outcome of a request was not kept");
        }
        result
    }
}

impl Call {
    fn within(deadline: Duration, max_bytes: u64) -> Self {
        Self { limits: Limits { max_bytes, deadline }, insists: false, once: false }
    }

    /// Tried even when the destination is being waited for: somebody is waiting for just this server.
    pub(crate) fn insisting(self) -> Self {
        Self { insists: true, ..self }
    }

    /// Never sent again when a connection breaks: it may have been dealt with.
    pub(crate) fn once(self) -> Self {
        Self { once: true, ..self }
    }

    /// For an answer about so many users' keys.
    pub(crate) fn about(self, users: usize) -> Self {
        let users = u64::try_from(users).unwrap_or(u64::MAX);
        self.up_to(KEYS_BYTES.saturating_add(users.saturating_mul(KEYS_OF_USER)).min(MAX_BYTES))
    }

    /// With another limit on the answer, in bytes.
    pub(crate) fn up_to(self, max_bytes: u64) -> Self {
        Self { limits: Limits { max_bytes, ..self.limits }, ..self }
    }
}

/// Answers that say that the way to the server is not in order: no homeserver gives them, but what stands before it. Those
/// above 520 are a widespread one's own.
pub(crate) fn is_astray(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 520..=530) || status.is_redirection() || status.is_informational()
}

/// Those, and what is said in place of a server that is away. Servers give the same statuses, but with an error of Matrix.
fn is_down(answer: &http::Response<Bytes>) -> bool {
    let may_be_away = matches!(answer.status().as_u16(), 502..=504);
    is_astray(answer.status()) || (may_be_away && !has_errcode(answer.body()))
}

/// Whether an error is one of Matrix, which no gateway gives.
pub(crate) fn has_errcode(body: &[u8]) -> bool {
    let said: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
    !said.errcode.is_empty()
}

/// What is said with a refusal, as far as it is short.
async fn beginning(answer: http::Response<Body>) -> http::Response<Bytes> {
    let (head, mut body) = answer.into_parts();
    let mut bytes = BytesMut::new();
    while bytes.len() < MAX_REFUSAL_BYTES
        && let Some(Ok(piece)) = body.next().await
    {
        bytes.extend_from_slice(&piece);
    }
    http::Response::from_parts(head, bytes.freeze())
}

/// Leaves out answers that say that the server is there, only not for this question at this moment.
fn willing<T>(to: &ServerName, answer: http::Response<T>) -> Result<http::Response<T>, PeerError> {
    let status = answer.status();
    if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        return Err(PeerError::Unreachable(to.to_owned()));
    }
    Ok(answer)
}

/// Method, path with query, and body of a request.
fn parts<R>(request: R) -> Result<(http::Method, String, Bytes), String>
where
    R: OutgoingRequest<PathBuilder = SinglePath>,
{
    let http = request.try_into_http_request_inner("https://peer.invalid", ()).map_err(|e| e.to_string())?;
    let (head, body) = http.into_parts();
    let body: BytesMut = body.try_into_buf().map_err(|_| "the request cannot be written".to_owned())?;
    let uri = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    Ok((head.method, uri, body.freeze()))
}

/// A text as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(byte.into());
        } else {
            write!(segment, "%{byte:02X}").expect("writing to a text never fails");
        }
    }
    segment
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    errcode: String,
    error: String,
}

/// What a peer's refusal becomes: never its token errors, never its HTML, never more than a line.
pub(crate) fn refusal(to: &ServerName, status: StatusCode, body: &[u8]) -> PeerError {
    if status == StatusCode::UNAUTHORIZED {
        return PeerError::Unreachable(to.to_owned());
    }
    let ErrorBody { errcode, error } = serde_json::from_slice(body).unwrap_or_default();
    let sound = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_.".contains(&byte);
    let known = errcode.len() <= 64 && !errcode.is_empty() && errcode.bytes().all(sound);
    let harmless = !matches!(
        errcode.as_str(),
        "M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN" | "M_USER_LOCKED" | "M_USER_DEACTIVATED" | "M_LIMIT_EXCEEDED"
    );
    let errcode = if known && harmless { errcode } else { "M_UNKNOWN".to_owned() };
    let error = error.chars().filter(|char| !char.is_control()).take(300).collect();
    PeerError::Refused { status: status.as_u16(), errcode, error }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Network of {}", self.0.server)
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    fn refused(status: u16, body: &str) -> PeerError {
        refusal(server_name!("peer.example"), StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn a_server_that_gives_an_error_itself_is_not_away() {
        let is_down = |status: u16, body: &'static str| {
            is_down(
                &http::Response::builder().status(status).body(Bytes::from_static(body.as_bytes())).unwrap(),
            )
        };
        for status in [502, 503, 504] {
            assert!(!is_down(status, r#"{"errcode":"M_NOT_YET_UPLOADED","error":"later"}"#), "{status}");
            for of_gateway in ["", "<html>", r#"{"message":"no upstream"}"#, r#"{"errcode":7}"#] {
                assert!(is_down(status, of_gateway), "{status} {of_gateway}");
            }
        }
        assert!(is_down(302, r#"{"errcode":"M_UNKNOWN"}"#) && !is_down(500, "<html>") && !is_down(200, ""));
    }

    #[test]
    fn token_errors_of_peers_never_reach_clients() {
        assert!(matches!(refused(401, r#"{"errcode":"M_UNKNOWN_TOKEN"}"#), PeerError::Unreachable(_)));
        for body in
            [r#"{"errcode":"M_UNKNOWN_TOKEN","soft_logout":true}"#, "<html>", "", r#"{"errcode":"<b>"}"#]
        {
            let PeerError::Refused { status: 403, errcode, .. } = refused(403, body) else {
                panic!("{body}")
            };
            assert_eq!(errcode, "M_UNKNOWN");
        }
        let PeerError::Refused { errcode, error, .. } =
            refused(404, r#"{"errcode":"M_NOT_FOUND","error":"a\nb"}"#)
        else {
            panic!("not refused")
        };
        assert_eq!((errcode.as_str(), error.as_str()), ("M_NOT_FOUND", "ab"));
    }
}
