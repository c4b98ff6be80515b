//! Requests that are signed, sent and answered, and what is noted of their servers.

use bytes::{Bytes, BytesMut};
use chappe_rooms::{Held, PeerError};
use chappe_world::{Body, Repeatable, Steady};
use http::{HeaderValue, header};
use ruma::{
    ServerName,
    api::{IncomingResponseExt, OutgoingBody, OutgoingRequest, path_builder::SinglePath},
};

use super::{
    Long, Network,
    call::Call,
    refusals::{beginning, is_down, refusal, willing},
};
use crate::{
    auth::{Addressee, Signed, sign},
    link::LinkError,
};

impl Network {
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
        if !call.is_short() {
            http.extensions_mut().insert(Steady);
        }
        let exchange = Box::pin(self.0.link.exchange(to, http, call.limits));
        if call.is_short() {
            return self.noted(to, exchange.await, is_down).await;
        }
        let Long { reading, read } = if call.insists { &self.0.joins } else { &self.0.states };
        let place = self.0.world.timeout(call.limits.deadline, reading.take(to)).await;
        let place = place.ok_or_else(|| PeerError::Unreachable(to.to_owned()))?;
        // It may have been found away while this waited.
        self.ready(to, call).await?;
        let spent = reading.spend(place, to, call.limits.deadline, exchange).await;
        // It may come steadily, and yet not be waited for without a place among the slow: that says nothing of the server.
        let (answer, place) = spent.ok_or_else(|| PeerError::Unreachable(to.to_owned()))?;
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
        mut http: http::Request<Bytes>,
        call: Call,
        is_away: fn(&http::Response<Bytes>) -> bool,
    ) -> Result<http::Response<Body>, PeerError> {
        self.ready(to, call).await?;
        http.extensions_mut().insert(Steady);
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
