//! Connections as clients have them, with requests that wait and such that do not.

#![expect(clippy::disallowed_methods, reason = "tasks of the tests, outside of any world")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    routing::{get, post},
};
use bytes::Bytes;
use chappe_world::{Fake, FakeNet, World};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::Notify,
    task::JoinHandle,
};

use super::{Desk, Doorman, serve_connection, until_waiting};
use crate::{places::Places, resumed::Resumed};

/// A server with a page that waits to be told.
#[derive(Clone, Default)]
struct House {
    news: Arc<Notify>,
    /// Requests that wait.
    waiting: Arc<AtomicUsize>,
}

struct Waits(Arc<AtomicUsize>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

const LARGE: usize = 100_000;

impl House {
    fn router(&self) -> Router {
        let house = self.clone();
        let wait = move || {
            let house = house.clone();
            async move {
                house.waiting.fetch_add(1, SeqCst);
                let _waits = Waits(house.waiting.clone());
                house.news.notified().await;
                "news"
            }
        };
        Router::new()
            .route("/wait", get(wait.clone()).merge(post(wait)))
            .route("/now", get(async || "now"))
            .route("/large", get(async || "x".repeat(LARGE)))
    }

    async fn until_waiting(&self, requests: usize) {
        while self.waiting.load(SeqCst) != requests {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn doorman() -> Doorman {
    Doorman {
        world: World::fake(Fake::new("hs", 1, &FakeNet::default())),
        places: Places::new(8, 8, Arc::default()),
        header_timeout: Duration::from_mins(10),
    }
}

/// A connection to the house; the task ends with it.
fn connect(house: &House) -> (DuplexStream, JoinHandle<()>) {
    let (client, server) = duplex(1_000);
    let (doorman, router) = (doorman(), house.router());
    let served = tokio::spawn(async move { serve_connection(&doorman, server, None, router).await });
    (client, served)
}

/// A connection that is given away at the first request that waits long: whether one was, and what was not read yet.
fn connect_until_waiting(house: &House) -> (DuplexStream, JoinHandle<Option<bool>>) {
    let (client, server) = duplex(1_000);
    let (doorman, router) = (doorman(), house.router());
    let desk = Arc::new(Desk { router, ..Desk::default() });
    let served = tokio::spawn(async move {
        let rest = until_waiting(&doorman, Resumed::new(server), &desk).await;
        rest.map(|(stream, _)| stream.is_fresh())
    });
    (client, served)
}

async fn ask(client: &mut DuplexStream, request: &str) {
    client.write_all(format!("{request}\r\n\r\n").as_bytes()).await.unwrap();
}

/// Reads one answer: its head in lower case, and its body.
async fn answer(client: &mut DuplexStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split_once("content-length: ").unwrap().1.split_once('\r').unwrap().0;
    let mut body = vec![0; length.parse().unwrap()];
    client.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

async fn is_at_end(client: &mut DuplexStream) -> bool {
    client.read(&mut [0]).await.unwrap() == 0
}

/// Longer than a request is held by hyper.
async fn long() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_is_put_aside_and_answered_on_the_same_connection() {
    let house = House::default();
    let (mut client, _served) = connect(&house);
    for _ in 0..2 {
        ask(&mut client, "GET /now HTTP/1.1").await;
        assert_eq!(answer(&mut client).await.1, "now");
        ask(&mut client, "GET /wait HTTP/1.1\r\nconnection: keep-alive").await;
        house.until_waiting(1).await;
        long().await;
        house.news.notify_one();
        let (head, body) = answer(&mut client).await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(!head.contains("connection: close"), "{head}");
        assert_eq!(body, "news");
    }
    assert_eq!(house.waiting.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn only_requests_without_a_body_and_what_came_after_them_are_put_aside() {
    let house = House::default();
    let (mut client, served) = connect_until_waiting(&house);
    ask(&mut client, "GET /now HTTP/1.1").await;
    answer(&mut client).await;
    long().await;
    assert!(!served.is_finished(), "nothing waits");
    ask(&mut client, "POST /wait HTTP/1.1\r\ncontent-length: 0").await;
    house.until_waiting(1).await;
    long().await;
    assert!(!served.is_finished());
    house.news.notify_one();
    answer(&mut client).await;
    ask(&mut client, "GET /wait HTTP/1.1").await;
    assert_eq!(served.await.unwrap(), Some(true));

    let (mut client, served) = connect_until_waiting(&house);
    ask(&mut client, "GET /wait HTTP/1.1\r\n\r\nGET /now HTTP/1.1").await;
    assert_eq!(served.await.unwrap(), Some(false), "what was read too far is kept");
}

#[tokio::test(start_paused = true)]
async fn what_a_client_says_while_its_request_waits_is_answered_afterwards() {
    let house = House::default();
    let (mut client, _served) = connect(&house);
    let path = "x".repeat(500);
    ask(&mut client, "GET /wait HTTP/1.1\r\n\r\nGET /now HTTP/1.1").await;
    house.until_waiting(1).await;
    long().await;
    ask(&mut client, &format!("GET /now?{path} HTTP/1.1\r\n\r\nGET /large HTTP/1.1")).await;
    house.news.notify_one();
    let mut bodies = Vec::new();
    for _ in 0..4 {
        bodies.push(answer(&mut client).await.1);
    }
    assert_eq!(bodies[..3], ["news", "now", "now"]);
    assert_eq!(bodies[3].len(), LARGE);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_client_has_not_taken_yet_is_not_lost() {
    let house = House::default();
    let (mut client, _served) = connect(&house);
    ask(&mut client, "GET /large HTTP/1.1\r\n\r\nGET /wait HTTP/1.1").await;
    long().await;
    let large = answer(&mut client).await.1;
    assert_eq!(large, "x".repeat(LARGE));
    house.until_waiting(1).await;
    long().await;
    house.news.notify_one();
    assert_eq!(answer(&mut client).await.1, "news");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_takes_its_request_with_it() {
    let house = House::default();
    let (mut client, served) = connect(&house);
    ask(&mut client, "GET /wait HTTP/1.1").await;
    house.until_waiting(1).await;
    long().await;
    drop(client);
    served.await.unwrap();
    assert_eq!(house.waiting.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_wants_the_end_gets_it() {
    for request in ["GET /wait HTTP/1.0", "GET /wait HTTP/1.1\r\nconnection: Close"] {
        let house = House::default();
        let (mut client, served) = connect(&house);
        ask(&mut client, request).await;
        house.until_waiting(1).await;
        long().await;
        house.news.notify_one();
        assert_eq!(answer(&mut client).await.1, "news", "{request}");
        assert!(is_at_end(&mut client).await, "{request}");
        served.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_finishes_what_waits() {
    let house = House::default();
    let (mut client, server) = duplex(1_000);
    let (doorman, router) = (doorman(), house.router());
    let world = doorman.world.clone();
    let served = tokio::spawn(async move { serve_connection(&doorman, server, None, router).await });
    ask(&mut client, "GET /wait HTTP/1.1").await;
    house.until_waiting(1).await;
    long().await;
    let stopped = tokio::spawn(async move { world.shut_down(Duration::from_mins(1)).await });
    long().await;
    house.news.notify_one();
    assert_eq!(answer(&mut client).await.1, "news");
    assert!(is_at_end(&mut client).await);
    served.await.unwrap();
    assert!(stopped.await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_fetches_is_not_kept() {
    let (mut client, served) = connect(&House::default());
    ask(&mut client, "GET /large HTTP/1.1").await;
    let ended = tokio::time::timeout(Duration::from_hours(1), served).await;
    ended.expect("the connection stays for ever").unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_fetched_slowly_comes_whole() {
    let (mut client, served) = connect(&House::default());
    ask(&mut client, "GET /large HTTP/1.1").await;
    let (mut fetched, mut piece) = (0, vec![0; LARGE / 8]);
    // By then the connection is to end.
    tokio::time::sleep(Duration::from_mins(12)).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_mins(1)).await;
        fetched += client.read_exact(&mut piece).await.unwrap();
    }
    assert_eq!(fetched, LARGE);
    client.read_to_end(&mut piece).await.unwrap();
    served.await.unwrap();
}

/// A client that speaks HTTP/2 and has room for some bytes of each answer that it does not read.
async fn connect_http2(house: &House) -> (SendRequest<Empty<Bytes>>, JoinHandle<()>) {
    let (client, served) = connect(house);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(20_000);
    let (client, connection) = builder.handshake(TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    (client, served)
}

async fn get_http2(client: &mut SendRequest<Empty<Bytes>>, path: &str) -> Response<Incoming> {
    let request = Request::get(format!("http://hs{path}")).body(Empty::new()).unwrap();
    client.send_request(request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_takes_in_goes_though_others_are_asked_for() {
    let (mut client, _served) = connect_http2(&House::default()).await;
    let left = get_http2(&mut client, "/large").await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_mins(1)).await;
        let now = get_http2(&mut client, "/now").await.into_body().collect().await.unwrap();
        assert_eq!(now.to_bytes(), "now");
    }
    assert!(left.into_body().collect().await.is_err(), "it stays for ever");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_taken_in_slowly_comes_whole() {
    let (mut client, _served) = connect_http2(&House::default()).await;
    let (begun, mut taken) = (tokio::time::Instant::now(), 0);
    let mut answer = get_http2(&mut client, "/large").await.into_body();
    while let Some(frame) = answer.frame().await {
        taken += frame.unwrap().into_data().unwrap().len();
        tokio::time::sleep(Duration::from_secs(40)).await;
    }
    assert_eq!(taken, LARGE);
    assert!(begun.elapsed() > Duration::from_mins(4), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_keeps_silent_is_shown_the_door() {
    for begin in ["", "PRI * HTTP/2.0\r\n"] {
        let (mut client, served) = connect(&House::default());
        client.write_all(begin.as_bytes()).await.unwrap();
        served.await.unwrap();
        assert!(is_at_end(&mut client).await);
    }
}
