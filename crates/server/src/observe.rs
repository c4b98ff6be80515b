//! Logs, metrics and health.

use std::{fmt::Debug, io::IsTerminal, sync::OnceLock, time::Duration};

use anyhow::{Context, Result};
use axum::{
    Extension, Router,
    extract::{MatchedPath, Request},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use chappe_delivery::Delivery;
use chappe_federation::ListBook;
use chappe_media::Media;
use chappe_rooms::Rooms;
use chappe_store::{Store, identity::AllowRules};
use chappe_world::World;
use http::{Method, StatusCode, header};
use metrics::{Gauge, counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::{self, format},
    prelude::*,
    reload,
};

use crate::{
    config::{LogConfig, LogFormat},
    process,
};

/// Bounds of the latency histogram, in seconds.
const LATENCIES: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// Destinations counted at most whose queue holds something.
const WAITING: usize = 1_000;
/// How often measurements are added up.
const ADD_UP: Duration = Duration::from_secs(5);
/// How long the store may take to answer a health check.
const HEALTHY_WITHIN: Duration = Duration::from_secs(5);

/// Which lines are logged, once they are, so that it can be changed.
static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Which lines are logged.
pub(crate) fn filter(config: &LogConfig) -> Result<EnvFilter> {
    EnvFilter::try_new(&config.level).with_context(|| format!("`log.level` {:?}", config.level))
}

/// Goes on logging other lines, if this process logs.
pub(crate) fn log_by(filter: EnvFilter) {
    if let Some(level) = LEVEL.get()
        && let Err(error) = level.reload(filter)
    {
        tracing::error!(%error, "`log.level` stays as it was");
    }
}

/// Sends log lines to standard error. Only the first call in a process has an effect.
pub(crate) fn start_logging(config: &LogConfig) -> Result<()> {
    let (filter, level) = reload::Layer::new(filter(config)?);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match config.format {
        LogFormat::Pretty => lines.fmt_fields(format::debug_fn(field)).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // In tests several servers live in one process: the first one's settings hold.
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = LEVEL.set(level);
    }
    Ok(())
}

/// One field of a line for people. Peers and clients write parts of what is logged: none of it makes lines of its own.
fn field(to: &mut format::Writer<'_>, field: &tracing::field::Field, value: &dyn Debug) -> std::fmt::Result {
    let text = format!("{value:?}");
    if field.name() != "message" {
        write!(to, "{}=", field.name())?;
    }
    for character in text.chars() {
        match character {
            shown if !shown.is_control() => to.write_char(shown)?,
            hidden => write!(to, "{}", hidden.escape_default())?,
        }
    }
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

/// Adds up what was measured since the last time, whether anybody asks for metrics or not: each request leaves a
/// measurement in memory until then.
pub(crate) async fn keep_metrics(world: World, handle: PrometheusHandle) {
    let mut rounds = world.interval(ADD_UP);
    loop {
        tokio::select! {
            () = world.stopping() => break,
            _ = rounds.tick() => handle.run_upkeep(),
        }
    }
}

/// A request under way, counted as long as it lives: those that clients break off are counted down as well.
struct UnderWay(Gauge);

impl UnderWay {
    fn at(endpoint: &str) -> Self {
        let gauge = gauge!("chappe_http_requests_under_way", "endpoint" => endpoint.to_owned());
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Counts a request and how long it took, by endpoint: never by path, which would name rooms and users.
pub(crate) async fn count(request: Request, next: Next) -> Response {
    let endpoint =
        request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let method = known(request.method());
    let begun = tokio::time::Instant::now();
    let under_way = UnderWay::at(&endpoint);
    let response = next.run(request).await;
    drop(under_way);
    let status = response.status().as_u16().to_string();
    let took = begun.elapsed().as_secs_f64();
    counter!("chappe_http_requests_total", "method" => method, "endpoint" => endpoint.clone(), "status" => status)
        .increment(1);
    histogram!("chappe_http_request_duration_seconds", "method" => method, "endpoint" => endpoint)
        .record(took);
    response
}

/// A method as a label; those that nobody serves are one.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// What `/metrics` reads when it is asked.
#[derive(Clone)]
pub(crate) struct Gauges {
    pub(crate) handle: PrometheusHandle,
    pub(crate) store: Store,
    pub(crate) delivery: Delivery,
    pub(crate) rooms: Rooms,
    pub(crate) media: Media,
    pub(crate) list: Option<ListBook>,
}

impl Gauges {
    #[expect(clippy::cast_precision_loss, reason = "all of these stay far below 2^53")]
    async fn set(&self) -> Result<(), chappe_store::Error> {
        process::measure();
        gauge!("chappe_store_position").set(self.store.visible().borrow().0 as f64);
        gauge!("chappe_attached_users").set(self.delivery.attached() as f64);
        let expired = self.rooms.expiry_figures();
        counter!("chappe_expired_events_total").absolute(expired.events);
        counter!("chappe_expired_media_total").absolute(self.media.removed_unnamed());
        gauge!("chappe_expiry_behind_seconds").set(expired.behind_ms as f64 / 1000.0);
        let reader = self.store.read();
        let mut waiting = 0_usize;
        let mut after = None;
        while waiting < WAITING
            && let Some(next) = reader.next_outbox_destination(after.as_deref()).await?
        {
            waiting += 1;
            after = Some(next);
        }
        gauge!("chappe_outbox_destinations").set(waiting as f64);
        if let Some(status) = self.list.as_ref().map(ListBook::status) {
            let (list, open) = (status.held.as_ref().map(|held| &held.list), status.open);
            gauge!("chappe_network_open").set(f64::from(u8::from(open)));
            gauge!("chappe_network_list_sequence").set(list.map_or(0, |list| list.sequence) as f64);
            let ends = list.map_or(0, |list| list.expires_at) as f64;
            gauge!("chappe_network_list_expires_seconds").set(ends / 1000.0);
        }
        Ok(())
    }
}

/// `/metrics`.
pub(crate) fn metrics_routes(gauges: Gauges) -> Router {
    let page = async |Extension(gauges): Extension<Gauges>| {
        if let Err(error) = gauges.set().await {
            tracing::warn!(%error, "some metrics could not be read");
        }
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], gauges.handle.render())
    };
    Router::new().route("/metrics", get(page)).layer(Extension(gauges))
}

/// Whether the store still takes commits; after a failed write it does not, until a restart has read the disk again.
pub(crate) fn is_writable(store: &Store) -> bool {
    store.visible().has_changed().is_ok()
}

/// `/health`: 200 as long as the store answers and can be written.
pub(crate) fn health_routes(store: Store) -> Router {
    let page = async |Extension(store): Extension<Store>| {
        let probe = async { store.read().get::<AllowRules>(&String::new()).await };
        match tokio::time::timeout(HEALTHY_WITHIN, probe).await {
            Ok(Ok(_)) if !is_writable(&store) => {
                (StatusCode::SERVICE_UNAVAILABLE, "the store takes no more writes\n").into_response()
            }
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

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use async_trait::async_trait;
    use axum::body::Body;
    use chappe_kv::{Batch, CommitError, Db, Engine, Memory, Position, Snapshot};
    use chappe_store::Store;
    use http::{Request, StatusCode};
    use tokio::sync::watch;
    use tower::ServiceExt;
    use tracing_subscriber::{
        fmt::{self, format},
        prelude::*,
    };

    /// An engine whose writer has ended.
    struct ReadOnly(Memory);

    #[async_trait]
    impl Engine for ReadOnly {
        fn snapshot(&self) -> Box<dyn Snapshot + '_> {
            self.0.snapshot()
        }

        async fn commit(&self, batch: Batch) -> Result<Position, CommitError> {
            self.0.commit(batch).await
        }

        fn visible(&self) -> watch::Receiver<Position> {
            watch::channel(Position(0)).1
        }
    }

    #[tokio::test]
    async fn a_store_that_takes_no_more_writes_is_not_healthy() {
        for (db, expected) in [
            (Db::new(Memory::default()), StatusCode::OK),
            (Db::new(ReadOnly(Memory::default())), StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let router = super::health_routes(Store::new(db));
            let request = Request::get("/health").body(Body::empty()).unwrap();
            assert_eq!(router.oneshot(request).await.unwrap().status(), expected);
        }
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_others_write_stays_in_its_line() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let layer = layer.fmt_fields(format::debug_fn(super::field));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let evil = "x\n2026-01-01 ERROR all is lost\r\u{1b}[2J";
            tracing::info!(error = %evil, number = 7, "a peer said {evil}");
        });
        let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(
            log.contains("number=7") && log.contains("a peer said x\\n") && !log.contains('\u{1b}'),
            "{log}"
        );
    }
}
