//! The skin around a small router.

use std::sync::Arc;

use axum::{Router, body::Body};
use futures_util::{FutureExt, StreamExt};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use ruma::api::client::{
    membership::join_room_by_id_or_alias, room::create_room, state::get_state_event_for_key,
    to_device::send_event_to_device,
};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{Auth, Error, Result, Routes, Ruma, Settings, finish};

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

#[tokio::test]
async fn long_bodies_share_what_there_is_and_keep_out_no_short_ones() {
    let settings = Settings { body_limit: 1 << 20, bodies_limit: 300 << 10, ..Settings::default() };
    let router = finish(routes().into_router(), Arc::new(settings));
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<String>();
    let pieces = futures_util::stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(piece), receiver))
    });
    let post = |body: Body| {
        let request = Request::post("/_matrix/client/v3/createRoom").body(body).unwrap();
        router.clone().oneshot(request)
    };
    let name = |length: usize| format!(r#"{{"name":"{}"}}"#, "x".repeat(length));
    let text = name(200 << 10);
    let (begin, end) = text.split_at(text.len() - 1);
    sender.send(begin.to_owned()).unwrap();
    let mut held = std::pin::pin!(post(Body::from_stream(pieces)));
    assert!(held.as_mut().now_or_never().is_none(), "it is not there yet");
    assert_eq!(post(Body::from(name(200 << 10))).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(post(Body::from(name(50 << 10))).await.unwrap().status(), StatusCode::OK);
    sender.send(end.to_owned()).unwrap();
    drop(sender);
    assert_eq!(held.await.unwrap().status(), StatusCode::OK);
    assert_eq!(post(Body::from(name(200 << 10))).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn short_bodies_share_what_there_is_and_tiny_ones_always_pass() {
    let settings = Settings { body_limit: 1 << 20, bodies_limit: 100 << 10, ..Settings::default() };
    let router = finish(routes().into_router(), Arc::new(settings));
    let post = |body: Body| {
        let request = Request::post("/_matrix/client/v3/createRoom").body(body).unwrap();
        router.clone().oneshot(request)
    };
    let name = |length: usize| format!(r#"{{"name":"{}"}}"#, "x".repeat(length));
    // It never comes to its end.
    let begun = futures_util::stream::iter([Ok::<_, std::io::Error>(name(60 << 10))]);
    let body = Body::from_stream(begun.chain(futures_util::stream::pending()));
    let mut held = Box::pin(post(body));
    assert!(held.as_mut().now_or_never().is_none(), "it is not there yet");
    assert_eq!(post(Body::from(name(60 << 10))).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    for length in [3 << 10, 90 << 10] {
        assert_eq!(post(Body::from(name(length))).await.unwrap().status(), StatusCode::OK, "{length}");
    }
    drop(held);
    assert_eq!(post(Body::from(name(60 << 10))).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_in_single_bytes_takes_no_more_room_than_in_one_piece() {
    let settings = Settings { body_limit: 1 << 20, bodies_limit: 128 << 10, ..Settings::default() };
    let router = finish(routes().into_router(), Arc::new(settings));
    let text = format!(r#"{{"name":"{}"}}"#, "x".repeat(100 << 10));
    let pieces: Vec<_> = text.bytes().map(|byte| Ok::<_, std::io::Error>(vec![byte])).collect();
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    let request = Request::post("/_matrix/client/v3/createRoom").body(body).unwrap();
    assert_eq!(router.oneshot(request).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn no_body_is_read_without_limits() {
    assert_eq!(ask("POST", "/unread", "").await.0, StatusCode::OK);
    assert_eq!(ask("POST", "/unread", "x").await.0, StatusCode::PAYLOAD_TOO_LARGE);
}
