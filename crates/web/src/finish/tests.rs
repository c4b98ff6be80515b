//! The skin around a small router.

use std::{
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Extension, Router, body::Body, response::Response};
use futures_util::{FutureExt, StreamExt};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt;
use ruma::api::client::{
    membership::join_room_by_id_or_alias, room::create_room, state::get_state_event_for_key,
    to_device::send_event_to_device,
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::ServiceExt;
use tracing::{Subscriber, span};
use tracing_subscriber::{
    Layer, fmt,
    layer::{Context, SubscriberExt},
    registry,
};

use crate::{Auth, Error, Peer, Result, Routes, Ruma, Settings, UsedUp, finish};

fn routes() -> Routes<()> {
    Routes::new()
        .on::<create_room::v3::Request, _>(
            async |Ruma(request): Ruma<create_room::v3::Request>| -> Result<String> {
                Ok(request.name.unwrap_or_default())
            },
        )
        .on::<join_room_by_id_or_alias::v3::Request, _>(
            async |Ruma(request): Ruma<join_room_by_id_or_alias::v3::Request>| {
                request.room_id_or_alias.to_string()
            },
        )
        .on_limited::<send_event_to_device::v3::Request, _>(
            10,
            async |Ruma(request): Ruma<send_event_to_device::v3::Request>| request.txn_id.to_string(),
        )
        .on::<get_state_event_for_key::v3::Request, _>(state)
        .on_shortened::<get_state_event_for_key::v3::Request, _>(1, &[""], state)
        .at(&Method::POST, "/unread", Auth::None, async |body: axum::body::Bytes| body)
        .at(&Method::GET, "/boom", Auth::None, async || -> Result<String> {
            std::panic::resume_unwind(Box::new(1))
        })
}

async fn state(Ruma(request): Ruma<get_state_event_for_key::v3::Request>) -> Result<String, Error> {
    Ok(format!("{}|{}|{}", request.room_id, request.event_type, request.state_key))
}

fn router() -> Router {
    finish(routes().into_router(), Arc::new(Settings { body_limit: 100, ..Settings::default() }))
}

async fn ask(method: &str, path: &str, body: &str) -> (StatusCode, Value, http::HeaderMap) {
    let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
    let response = router().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    (parts.status, serde_json::from_str(&text).unwrap_or(Value::String(text)), parts.headers)
}

#[tokio::test]
async fn every_version_of_a_path_reaches_the_handler() {
    for path in ["/_matrix/client/v3/createRoom", "/_matrix/client/r0/createRoom"] {
        assert_eq!(ask("POST", path, r#"{"name":"x"}"#).await.1, json!("x"), "{path}");
    }
    assert_eq!(ask("POST", "/_matrix/client/v3/createRoom", "").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_body_whose_fields_are_all_optional_may_be_left_out() {
    let (status, answer, _) = ask("POST", "/_matrix/client/v3/join/!a:b.c", "").await;
    assert_eq!((status, answer), (StatusCode::OK, json!("!a:b.c")));
}

#[tokio::test]
async fn path_arguments_are_decoded_and_may_be_left_out() {
    let base = "/_matrix/client/v3/rooms/%21a%3Ab.c/state/m.x";
    assert_eq!(ask("GET", &format!("{base}/k%2Fey"), "").await.1, json!("!a:b.c|m.x|k/ey"));
    assert_eq!(ask("GET", base, "").await.1, json!("!a:b.c|m.x|"));
    assert_eq!(ask("GET", &format!("{base}/"), "").await.1, json!("!a:b.c|m.x|"));
}

#[tokio::test]
async fn what_goes_wrong_early_is_a_matrix_error_with_cors() {
    let room = "/_matrix/client/v3/createRoom";
    for (method, path, body, status, errcode) in [
        ("GET", "/_matrix/client/v3/nothing", "", 404, "M_UNRECOGNIZED"),
        ("GET", "/_matrix/x/../client/v3/createRoom", "", 404, "M_UNRECOGNIZED"),
        ("POST", "//_matrix/client/v3/createRoom", "", 404, "M_UNRECOGNIZED"),
        ("POST", "/_matrix/client/v3/createRoom/extra", "", 404, "M_UNRECOGNIZED"),
        ("POST", "/_matrix/client/v3/%63reateRoom", "", 404, "M_UNRECOGNIZED"),
        ("PUT", room, "", 405, "M_UNRECOGNIZED"),
        ("POST", room, "{", 400, "M_NOT_JSON"),
        ("POST", room, "nonsense", 400, "M_NOT_JSON"),
        ("POST", room, r#"{"name":1}"#, 400, "M_BAD_JSON"),
        ("POST", room, &format!("\"{}\"", "x".repeat(100)), 413, "M_TOO_LARGE"),
        ("PUT", "/_matrix/client/v3/sendToDevice/m.x/t", "{\"messages\":{}}", 413, "M_TOO_LARGE"),
        ("GET", "/_matrix/client/v3/rooms/nonsense/state/a/b", "", 400, "M_INVALID_PARAM"),
        ("GET", "/_matrix/client/v3/rooms/!a:b/state/a/%ff", "", 400, "M_INVALID_PARAM"),
        ("GET", &format!("/{}", "x".repeat(20_000)), "", 414, "M_TOO_LARGE"),
        ("GET", "/boom", "", 500, "M_UNKNOWN"),
    ] {
        let (got, answer, headers) = ask(method, path, body).await;
        assert_eq!((got.as_u16(), &answer["errcode"]), (status, &json!(errcode)), "{method} {path} {answer}");
        assert_eq!(headers["access-control-allow-origin"], "*");
    }
}

#[tokio::test]
async fn preflights_are_answered_everywhere() {
    for path in ["/_matrix/client/v3/createRoom", "/nowhere"] {
        let (status, _, headers) = ask("OPTIONS", path, "").await;
        assert_eq!(status, StatusCode::NO_CONTENT);
        assert!(headers["access-control-allow-headers"].to_str().unwrap().contains("Authorization"));
    }
}

#[test]
fn the_table_can_be_listed() {
    let routes = routes();
    let create = routes.table().iter().find(|route| route.path == "/_matrix/client/v3/createRoom").unwrap();
    assert_eq!((create.method.as_str(), create.auth), ("POST", Auth::Token));
}

const CREATE_ROOM: &str = "/_matrix/client/v3/createRoom";

/// Asks for a room from an address.
async fn create(router: &Router, from: &str, body: Body) -> StatusCode {
    let mut request = Request::post(CREATE_ROOM).body(body).unwrap();
    request.extensions_mut().insert(Peer(from.parse().unwrap()));
    router.clone().oneshot(request).await.unwrap().status()
}

/// A body of so many bytes and a few more.
fn name(length: usize) -> String {
    format!(r#"{{"name":"{}"}}"#, "x".repeat(length))
}

/// A body that never comes to its end.
fn unfinished(length: usize) -> Body {
    let begun = futures_util::stream::iter([Ok::<_, std::io::Error>(name(length))]);
    Body::from_stream(begun.chain(futures_util::stream::pending()))
}

#[tokio::test]
async fn long_bodies_share_what_there_is_and_keep_out_no_short_ones() {
    let settings = Settings { body_limit: 1 << 20, bodies_limit: 700 << 10, ..Settings::default() };
    let router = finish(routes().into_router(), Arc::new(settings));
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<String>();
    let pieces = futures_util::stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(piece), receiver))
    });
    let (one, other) = ("192.0.2.1", "192.0.2.2");
    let long = || Body::from(name(200 << 10));
    let text = name(200 << 10);
    let (begin, end) = text.split_at(text.len() - 1);
    sender.send(begin.to_owned()).unwrap();
    let mut held = std::pin::pin!(create(&router, one, Body::from_stream(pieces)));
    assert!(held.as_mut().now_or_never().is_none(), "it is not there yet");
    assert_eq!(create(&router, one, long()).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(create(&router, one, Body::from(name(50 << 10))).await, StatusCode::OK);
    assert_eq!(create(&router, other, long()).await, StatusCode::OK, "one address keeps out others");
    sender.send(end.to_owned()).unwrap();
    drop(sender);
    assert_eq!(held.await, StatusCode::OK);
    assert_eq!(create(&router, one, long()).await, StatusCode::OK);
}

#[tokio::test]
async fn short_bodies_share_what_there_is_and_tiny_ones_always_pass() {
    let settings = Settings { body_limit: 1 << 20, bodies_limit: 200 << 10, ..Settings::default() };
    let router = finish(routes().into_router(), Arc::new(settings));
    let (one, other) = ("2001:db8::1", "2001:db8:0:1::1");
    let mut held = Box::pin(create(&router, one, unfinished(60 << 10)));
    assert!(held.as_mut().now_or_never().is_none(), "it is not there yet");
    let short = || Body::from(name(60 << 10));
    for same in [one, "2001:db8::2"] {
        assert_eq!(create(&router, same, short()).await, StatusCode::SERVICE_UNAVAILABLE, "{same}");
    }
    for length in [3 << 10, 90 << 10] {
        assert_eq!(create(&router, one, Body::from(name(length))).await, StatusCode::OK, "{length}");
    }
    assert_eq!(create(&router, other, short()).await, StatusCode::OK, "one address keeps out others");
    drop(held);
    assert_eq!(create(&router, one, short()).await, StatusCode::OK);
}

#[tokio::test]
async fn bodies_that_come_through_a_proxy_are_those_of_its_clients() {
    let trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    let settings = Settings { trusted_proxies, bodies_limit: 200 << 10, ..Settings::default() };
    let router = finish(routes().into_router(), Arc::new(settings));
    let create = async |client: &str, body: Body| {
        let request = Request::post(CREATE_ROOM).header("x-forwarded-for", client);
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(Peer("10.0.0.1".parse().unwrap()));
        router.clone().oneshot(request).await.unwrap().status()
    };
    let (one, other) = ("192.0.2.1", "192.0.2.2");
    let mut held = Box::pin(create(one, unfinished(60 << 10)));
    assert!(held.as_mut().now_or_never().is_none(), "it is not there yet");
    let short = || Body::from(name(60 << 10));
    assert_eq!(create(one, short()).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(create(other, short()).await, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn long_answers_have_so_much_room_until_they_are_fetched() {
    const LENGTH: usize = 150 << 10;
    let claim = async || (Extension(UsedUp), "x".repeat(LENGTH));
    let routes = Routes::new().at(&Method::GET, "/long", Auth::None, async || "x".repeat(LENGTH));
    let routes = routes.at(&Method::POST, "/claim", Auth::None, claim);
    let routes = routes.at(&Method::POST, "/do", Auth::None, async || "x".repeat(LENGTH));
    let routes = routes.at(&Method::POST, "/keys/query", Auth::None, async || "x".repeat(LENGTH));
    let settings = Settings { answers_limit: 500 << 10, ..Settings::default() };
    let router: Router = finish(routes.into_router(), Arc::new(settings));
    let ask = async |method: Method, path: &str, from: &str| -> Response {
        let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer(from.parse().unwrap()));
        router.clone().oneshot(request).await.unwrap()
    };
    let get = async |from: &str| ask(Method::GET, "/long", from).await;
    let busy = StatusCode::SERVICE_UNAVAILABLE;
    let first = get("192.0.2.1").await;
    assert_eq!(first.headers()["content-length"], LENGTH.to_string());
    assert_eq!(get("192.0.2.1").await.status(), busy, "one address has half");
    let second = get("192.0.2.2").await;
    assert_eq!(second.status(), StatusCode::OK);
    assert_eq!(get("192.0.2.3").await.status(), busy, "half of what the others leave");
    let claimed = ask(Method::POST, "/claim", "192.0.2.3").await;
    assert_eq!(claimed.status(), StatusCode::OK, "what was used up would be lost");
    assert_eq!(claimed.into_body().collect().await.unwrap().to_bytes().len(), LENGTH);
    let done = ask(Method::POST, "/do", "192.0.2.3").await;
    assert_eq!(done.status(), StatusCode::OK, "it is done");
    assert_eq!(done.into_body().collect().await.unwrap().to_bytes().len(), LENGTH);
    let asked = ask(Method::POST, "/keys/query", "192.0.2.3").await;
    assert_eq!((asked.status(), &asked.headers()["retry-after"]), (busy, &HeaderValue::from(3)));
    tokio::time::advance(Duration::from_secs(10)).await;
    let third = get("192.0.2.3").await;
    assert_eq!(third.status(), StatusCode::OK, "what nobody fetches keeps out others");
    assert!(first.into_body().collect().await.is_err(), "it has given way");
    for answer in [second, third] {
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), LENGTH);
    }
    assert_eq!(get("192.0.2.1").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_in_single_bytes_takes_no_more_room_than_in_one_piece() {
    let settings = Settings { body_limit: 1 << 20, bodies_limit: 256 << 10, ..Settings::default() };
    let router = finish(routes().into_router(), Arc::new(settings));
    let text = name(100 << 10);
    let pieces: Vec<_> = text.bytes().map(|byte| Ok::<_, std::io::Error>(vec![byte])).collect();
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    assert_eq!(create(&router, "192.0.2.1", body).await, StatusCode::OK);
}

#[tokio::test]
async fn no_body_is_read_without_limits() {
    assert_eq!(ask("POST", "/unread", "").await.0, StatusCode::OK);
    assert_eq!(ask("POST", "/unread", "x").await.0, StatusCode::PAYLOAD_TOO_LARGE);
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

/// How many spans there are.
#[derive(Clone, Default)]
struct Spans(Arc<AtomicUsize>);

impl<S: Subscriber> Layer<S> for Spans {
    fn on_new_span(&self, _: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        self.0.fetch_add(1, SeqCst);
    }

    fn on_close(&self, _: span::Id, _: Context<'_, S>) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[tokio::test]
async fn log_lines_say_of_which_request_and_one_that_waits_has_no_span() {
    let (lines, spans, gate) = (Lines::default(), Spans::default(), Arc::new(Notify::new()));
    let writer = lines.clone();
    let layer = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    // With a second one, a neighbour's thread that comes first does not decide for all that nobody listens.
    let _second = tracing::Dispatch::new(registry());
    let _logging = tracing::subscriber::set_default(registry().with(layer).with(spans.clone()));
    let entrance = Arc::clone(&gate);
    let handler = move || async move {
        tracing::warn!("it waits");
        entrance.notified().await;
        tracing::warn!("it goes on");
    };
    let routes = Routes::new().at(&Method::GET, "/wait", Auth::None, handler);
    let router: Router = finish(routes.into_router(), Arc::default());
    let mut answer = Box::pin(router.oneshot(Request::get("/wait").body(Body::empty()).unwrap()));
    assert!(answer.as_mut().now_or_never().is_none());
    assert_eq!(spans.0.load(SeqCst), 0);
    gate.notify_one();
    assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for said in ["it waits", "it goes on"] {
        let line = log.lines().find(|line| line.contains(said)).unwrap();
        assert!(line.contains("method=GET endpoint=\"/wait\""), "{line}");
    }
}
