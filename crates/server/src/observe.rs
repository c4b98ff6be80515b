//! Logs, metrics and health.

use std::{io::IsTerminal, time::Duration};

use anyhow::{Context, Result};
use axum::{
    Extension, Router,
    extract::{MatchedPath, Request},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use chappe_store::{Store, identity::AllowRules};
use http::{StatusCode, header};
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::config::{LogConfig, LogFormat};

/// Bounds of the latency histogram, in seconds.
const LATENCIES: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// How long the store may take to answer a health check.
const HEALTHY_WITHIN: Duration = Duration::from_secs(5);

/// Sends log lines to standard error. Only the first call in a process has an effect.
pub(crate) fn start_logging(config: &LogConfig) -> Result<()> {
    let filter =
        EnvFilter::try_new(&config.level).with_context(|| format!("`log.level` {:?}", config.level))?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match config.format {
        LogFormat::Pretty => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // In tests several servers live in one process: the first one's settings hold.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Ok(())
}

/// The metrics of this process: made once, shared by all servers in it.
pub(crate) fn metrics_handle() -> Result<PrometheusHandle> {
    static HANDLE: parking_lot::Mutex<Option<PrometheusHandle>> = parking_lot::Mutex::new(None);
    let mut handle = HANDLE.lock();
    if let Some(handle) = &*handle {
        return Ok(handle.clone());
    }
    let made = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCIES)
        .context("metrics")?
        .install_recorder()
        .context("metrics")?;
    *handle = Some(made.clone());
    Ok(made)
}

/// Counts a request and how long it took, by endpoint: never by path, which would name rooms and users.
pub(crate) async fn count(request: Request, next: Next) -> Response {
    let endpoint =
        request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let method = request.method().as_str().to_owned();
    let begun = tokio::time::Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    let took = begun.elapsed().as_secs_f64();
    counter!("chappe_http_requests_total", "method" => method.clone(), "endpoint" => endpoint.clone(), "status" => status)
        .increment(1);
    histogram!("chappe_http_request_duration_seconds", "method" => method, "endpoint" => endpoint)
        .record(took);
    response
}

/// `/metrics`.
pub(crate) fn metrics_routes(handle: PrometheusHandle, store: Store) -> Router {
    let page = async |Extension((handle, store)): Extension<(PrometheusHandle, Store)>| {
        #[expect(clippy::cast_precision_loss, reason = "positions stay far below 2^53")]
        gauge!("chappe_store_position").set(store.visible().borrow().0 as f64);
        handle.run_upkeep();
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render())
    };
    Router::new().route("/metrics", get(page)).layer(Extension((handle, store)))
}

/// `/health`: 200 as long as the store answers.
pub(crate) fn health_routes(store: Store) -> Router {
    let page = async |Extension(store): Extension<Store>| {
        let probe = async { store.read().get::<AllowRules>(&String::new()).await };
        match tokio::time::timeout(HEALTHY_WITHIN, probe).await {
            Ok(Ok(_)) => (StatusCode::OK, "ok\n").into_response(),
            Ok(Err(error)) => {
                tracing::error!(%error, "the store does not answer");
                (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n").into_response()
            }
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store is too slow\n").into_response(),
        }
    };
    Router::new().route("/health", get(page)).layer(Extension(store))
}
