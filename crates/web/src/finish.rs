//! What every request meets first and every answer last: limits, CORS, request ids, errors in Matrix form.

use std::{
    convert::Infallible,
    future::{self, poll_fn},
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Poll, ready},
};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{DefaultBodyLimit, MatchedPath, Request},
    response::{IntoResponse, Response},
    routing::Route,
};
use futures_util::{FutureExt, future::Either, stream};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::Instant;
use tower::{Service, layer::layer_fn, service_fn};
use tracing::Span;

use crate::{Error, IN_ONE_PIECE, Origin, Settings, Shelf, budget::Budget, origin::origin};

/// How the paths end at which a POST only asks: for keys, people, rooms, what was said, and news.
const QUESTIONS: &[&str] = &["/query", "/lookup", "/search", "/publicRooms", "/sync"];

/// Goes with an answer, as an extension, for which something was used up: it is not refused for want of room.
#[derive(Clone, Copy, Debug)]
pub struct UsedUp;

/// Completes a router: unknown paths and methods, CORS on everything, request ids, limits. Call it last, once.
pub fn finish<S: Clone + Send + Sync + 'static>(router: Router<S>, settings: Arc<Settings>) -> Router<S> {
    let entrance = Arc::new(Entrance {
        budget: Budget::new(settings.bodies_limit),
        answers: Shelf::of_halves(settings.answers_limit),
        settings,
    });
    // One layer, and no async function: each of those would keep room for the request for as long as it waits.
    let around = layer_fn(move |mut route: Route| {
        let entrance = Arc::clone(&entrance);
        service_fn(move |request: Request| entrance.answer(&mut route, request).map(Ok::<_, Infallible>))
    });
    router
        .fallback(async || Error::unrecognized())
        .method_not_allowed_fallback(async || Error::method_not_allowed())
        .layer(around)
}

/// What all requests share.
struct Entrance {
    settings: Arc<Settings>,
    budget: Budget,
    answers: Shelf<IpAddr>,
}

impl Entrance {
    /// Browsers may call from anywhere (client-server API, "Web browser clients"); preflights need no token.
    fn answer(
        self: &Arc<Self>,
        route: &mut Route,
        request: Request,
    ) -> impl Future<Output = Response> + Send + use<> {
        let answer = match *request.method() {
            Method::OPTIONS => Either::Left(future::ready(StatusCode::NO_CONTENT.into_response())),
            _ => Either::Right(Asked::by(&request).observe(self.pass(route, request))),
        };
        answer.map(open_to_browsers)
    }

    /// Hands a request on with what bounds it, and its answer back.
    fn pass(
        self: &Arc<Self>,
        route: &mut Route,
        request: Request,
    ) -> impl Future<Output = Response> + Send + use<> {
        let length = request.uri().path_and_query().map_or(0, |text| text.as_str().len());
        if length > self.settings.uri_limit {
            let status = StatusCode::URI_TOO_LONG;
            let error = Error::new(status, "M_TOO_LARGE", "The request's address is too long");
            return Either::Left(future::ready(error.into_response()));
        }
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(Arc::clone(&self.settings));
        parts.extensions.insert(self.budget.clone());
        let client = Origin(origin(&parts)).network();
        let mut request = Request::from_parts(parts, body);
        let reads = only_reads(&request);
        // Bodies are read by `body_bytes`: what axum reads by itself has no time limit and no share of the budget.
        DefaultBodyLimit::max(0).apply(&mut request);
        let entrance = Arc::clone(self);
        let hand_back = move |answer: Result<Response, Infallible>| async move {
            let Ok(answer) = answer;
            in_pieces(&entrance.answers, (client, reads), answer).await
        };
        Either::Right(route.call(request).then(hand_back))
    }
}

/// Whether a request can be made again as if it had never been made.
fn only_reads(request: &Request) -> bool {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    match *request.method() {
        Method::GET | Method::HEAD => true,
        Method::POST => QUESTIONS.iter().any(|end| path.ends_with(*end)),
        _ => false,
    }
}

/// Has a long answer that is whole in memory take room until it is fetched; 503 in its place if there is none and the request
/// only `reads`, so that it may be made again, unless something was used up for it.
async fn in_pieces(answers: &Shelf<IpAddr>, (client, reads): (IpAddr, bool), answer: Response) -> Response {
    // Of what is read while it is sent the length is not known.
    let length = answer.body().size_hint().exact();
    let Some(length) = length.filter(|length| *length > IN_ONE_PIECE as u64) else { return answer };
    let (mut head, body) = answer.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Error::internal(error).into_response(),
    };
    let now = Instant::now();
    let kept = match head.extensions.remove::<UsedUp>() {
        None if reads => answers.put(client, body, now),
        used_up => Some(answers.put_anyway(client, body, used_up.is_some(), now)),
    };
    let Some(kept) = kept else { return Error::busy().into_response() };
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let pieces = stream::unfold(kept, async |kept| {
        let piece = kept.next_piece(Instant::now())?;
        Some((piece, kept))
    });
    Response::from_parts(head, Body::from_stream(pieces))
}

/// A request as log lines say it: never a query string, never the path itself, only which endpoint it was.
struct Asked {
    id: u64,
    method: Method,
    endpoint: Option<MatchedPath>,
    begun: Instant,
}

impl Asked {
    fn by(request: &Request) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NUMBER.fetch_add(1, Relaxed),
            method: request.method().clone(),
            endpoint: request.extensions().get::<MatchedPath>().cloned(),
            begun: Instant::now(),
        }
    }

    fn span(&self) -> Span {
        let endpoint = self.endpoint.as_ref().map_or("unknown", MatchedPath::as_str);
        tracing::info_span!("request", id = self.id, method = %self.method, endpoint)
    }

    /// Has all that is logged meanwhile say which request it was, and logs one line when it is answered. The span is made anew
    /// whenever there is something to do: one for each request that waits would take more memory than most of the wait.
    fn observe(self, answer: impl Future<Output = Response>) -> impl Future<Output = Response> {
        let mut answer = Box::pin(AssertUnwindSafe(answer).catch_unwind());
        poll_fn(move |context| {
            self.span().in_scope(|| {
                let answered = ready!(answer.as_mut().poll(context));
                let failed = |_| Error::internal("a handler panicked").into_response();
                let mut response = answered.unwrap_or_else(failed);
                let number = HeaderValue::from(self.id);
                response.headers_mut().insert(HeaderName::from_static("x-request-id"), number);
                let (status, ms) = (response.status().as_u16(), self.begun.elapsed().as_millis());
                tracing::debug!(status, ms, "answered");
                Poll::Ready(response)
            })
        })
    }
}

fn open_to_browsers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "X-Requested-With, Content-Type, Authorization, Date"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Server, Retry-After, X-Request-Id"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
