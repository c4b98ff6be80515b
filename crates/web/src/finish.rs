//! What every request meets first and every answer last: limits, CORS, request ids, errors in Matrix form.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use tracing::Instrument;

use crate::{Error, Settings, ruma::Budget};

/// Completes a router: unknown paths and methods, CORS on everything, request ids, limits. Call it last, once.
pub fn finish<S: Clone + Send + Sync + 'static>(router: Router<S>, settings: Arc<Settings>) -> Router<S> {
    let budget = Budget::new(settings.bodies_limit);
    let enter = move |mut request: Request, next: Next| {
        let (settings, budget) = (Arc::clone(&settings), budget.clone());
        async move {
            let length = request.uri().path_and_query().map_or(0, |text| text.as_str().len());
            if length > settings.uri_limit {
                let status = StatusCode::URI_TOO_LONG;
                return Error::new(status, "M_TOO_LARGE", "The request's address is too long")
                    .into_response();
            }
            request.extensions_mut().insert(settings);
            request.extensions_mut().insert(budget);
            next.run(request).await
        }
    };
    router
        .fallback(async || Error::unrecognized())
        .method_not_allowed_fallback(async || Error::method_not_allowed())
        // Bodies are read by `body_bytes`: what axum reads by itself has no time limit and no share of the budget.
        .layer(DefaultBodyLimit::max(0))
        .layer(from_fn(enter))
        .layer(from_fn(observe))
        .layer(from_fn(cors))
}

/// Logs one line per request: never a query string, never the path itself, only which endpoint it was.
async fn observe(request: Request, next: Next) -> Response {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let id = NUMBER.fetch_add(1, Relaxed);
    let endpoint = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let endpoint = endpoint.as_deref().unwrap_or("unknown");
    let span = tracing::info_span!("request", id, method = %request.method(), endpoint);
    let begun = tokio::time::Instant::now();
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
    let mut response = answered.unwrap_or_else(|_| Error::internal("a handler panicked").into_response());
    response.headers_mut().insert(HeaderName::from_static("x-request-id"), HeaderValue::from(id));
    let (status, ms) = (response.status().as_u16(), begun.elapsed().as_millis());
    span.in_scope(|| tracing::debug!(status, ms, "answered"));
    response
}

/// Browsers may call from anywhere (client-server API, "Web browser clients"); preflights need no token.
async fn cors(request: Request, next: Next) -> Response {
    let mut response = match *request.method() {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
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
