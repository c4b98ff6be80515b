//! What other servers answer about their profiles and media.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use chappe_accounts::{RemoteError as RemoteUserError, RemoteUsers};
use chappe_media::{RemoteError, RemoteMedia};
use chappe_world::{Fake, FakeNet, World};
use http::{Request, Response};
use http_body_util::Full;
use parking_lot::Mutex;
use ruma::{server_name, user_id};
use serde_json::json;

use super::{Server, config, peer::Peer};

#[tokio::test(start_paused = true)]
async fn of_a_profile_what_was_asked_for_is_taken_and_no_more_than_one_may_have() {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 1, config());
    let evil = Peer::start(&net, "evil.example", 66);
    evil.answer(|uri| {
        let bytes = if uri.contains("field=") { 60 << 10 } else { 200 << 10 };
        let told = json!({ "displayname": "Eve", "x": "x".repeat(bytes) }).to_string();
        uri.contains("/query/profile").then(|| Body::from(told))
    });
    let eve = user_id!("@eve:evil.example");
    for _ in 0..2 {
        let told = a.federation.profile(eve, Some("displayname")).await.unwrap();
        assert_eq!(json!(told.fields), json!({ "displayname": "Eve" }));
    }
    assert_eq!(evil.asked("/query/profile"), 1);
    let whole = a.federation.profile(eve, None).await;
    assert!(matches!(whole, Err(RemoteUserError::Unavailable(_))), "{whole:?}");
}

/// What a server answers to a path: a status and a body.
type Answers = fn(&str) -> (u16, &'static str);

const NOTHING: (u16, &str) = (404, "");
const UNKNOWN_PATH: (u16, &str) = (404, r#"{"errcode":"M_UNRECOGNIZED","error":"no such path"}"#);

/// Why `b.example` gives no medium when it answers so, how often it is asked, and how often it counts as not reached.
async fn refusal(answers: Answers) -> (RemoteError, usize, u32) {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 1, config());
    let world = World::fake(Fake::new("b.example", 2, &net));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let path = request.uri().path().to_owned();
        let (status, body) = if path.contains("/media/") { answers(&path) } else { NOTHING };
        noted.lock().push(path);
        async move { Ok::<_, Infallible>(Response::builder().status(status).body(Body::from(body)).unwrap()) }
    });
    net.route("b.example", &world, service);
    let b = server_name!("b.example");
    let refused = a.network.download(b, "m", 1 << 20, Duration::from_secs(1)).await.err().unwrap();
    let failures = a.network.backoff().state(b).await.unwrap().failures;
    let asked = asked.lock().iter().filter(|path| path.contains("/media/")).count();
    (refused, asked, failures)
}

#[tokio::test(start_paused = true)]
async fn what_a_server_says_of_a_medium_that_it_does_not_give_is_heard() {
    let not_yet = refusal(|_| (504, r#"{"errcode":"M_NOT_YET_UPLOADED","error":"later"}"#)).await;
    assert!(matches!(not_yet, (RemoteError::NotYetUploaded, 1, 0)), "{not_yet:?}");
    let none = refusal(|_| (404, r#"{"errcode":"M_NOT_FOUND","error":"none"}"#)).await;
    assert!(matches!(none, (RemoteError::NotFound, 1, 0)), "{none:?}");
    let busy = refusal(|_| (429, r#"{"errcode":"M_LIMIT_EXCEEDED","error":"slow"}"#)).await;
    assert!(matches!(busy, (RemoteError::Unavailable(_), 1, 0)), "{busy:?}");
    let older = refusal(|path| if path.contains("/federation/") { UNKNOWN_PATH } else { NOTHING }).await;
    assert!(matches!(older, (RemoteError::NotFound, 2, 0)), "{older:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_is_not_away_because_the_older_path_of_media_leads_elsewhere() {
    let elsewhere: [Answers; 2] = [
        |path| if path.contains("/federation/") { UNKNOWN_PATH } else { (302, "") },
        |path| if path.contains("/federation/") { UNKNOWN_PATH } else { (522, "<html>") },
    ];
    for answers in elsewhere {
        let refused = refusal(answers).await;
        assert!(matches!(refused, (RemoteError::Unavailable(_), 2, 0)), "{refused:?}");
    }
    let away = refusal(|_| (522, "<html>")).await;
    assert!(matches!(away, (RemoteError::Unavailable(_), 1, 1)), "{away:?}");
}
