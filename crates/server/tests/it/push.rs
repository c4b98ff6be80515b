//! Push to a real gateway on loopback.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, response::IntoResponse, routing::post};
use futures_util::FutureExt;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};

use crate::lab::{Http, Lab};

const NOTIFY: &str = "/_matrix/push/v1/notify";
/// Of loopback, where the gateway is and nothing else.
const RANGES: &str = "[outbound]\nallowed_ranges = [\"127.0.0.2/32\"]";

/// A gateway that says what it is told to say, 200 and nothing rejected after that.
struct Gateway {
    address: SocketAddr,
    heard: mpsc::UnboundedReceiver<Value>,
    answers: Arc<Mutex<VecDeque<(StatusCode, Value)>>>,
    serving: JoinHandle<()>,
}

type Ear = (mpsc::UnboundedSender<Value>, Arc<Mutex<VecDeque<(StatusCode, Value)>>>);

impl Gateway {
    #[expect(clippy::disallowed_methods, reason = "a test's own gateway")]
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.2", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, heard) = mpsc::unbounded_channel();
        let answers: Arc<Mutex<VecDeque<_>>> = Arc::default();
        let notify = async |State((sender, answers)): State<Ear>, Json(body): Json<Value>| {
            let _ = sender.send(body);
            let (status, body) = answers.lock().pop_front().unwrap_or((StatusCode::OK, json!({})));
            (status, Json(body)).into_response()
        };
        let router = Router::new().route(NOTIFY, post(notify)).with_state((sender, answers.clone()));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, heard, answers, serving }
    }

    async fn next(&mut self) -> Value {
        let heard =
            timeout(Duration::from_secs(20), self.heard.recv()).await.expect("a notification in time");
        heard.unwrap()["notification"].clone()
    }

    fn then_say(&self, status: StatusCode, body: Value) {
        self.answers.lock().push_back((status, body));
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Agent {
    http: Http,
    token: String,
    id: String,
}

impl Agent {
    async fn new(lab: &Lab, name: &str) -> Self {
        let made = lab.admin(&["--json", "users", "create", name]).await.unwrap();
        let made: Value = serde_json::from_str(&made).unwrap();
        let login = json!({
            "type": "m.login.password", "password": made["password"],
            "identifier": { "type": "m.id.user", "user": name },
        });
        let http = lab.http();
        let (_, session) = http.post("/_matrix/client/v3/login", login).await;
        let text = |key: &str| session[key].as_str().unwrap().to_owned();
        Self { token: text("access_token"), id: text("user_id"), http }
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        self.http.call(method, &format!("/_matrix/client/v3{path}"), Some(&self.token), body).await
    }

    async fn ok(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, said) = self.call(method, path, body).await;
        assert_eq!(status, StatusCode::OK, "{path}: {said}");
        said
    }

    async fn set_pusher(&self, url: &str, key: &str, format: Option<&str>) -> (StatusCode, Value) {
        let mut data = json!({ "url": url, "brand": "element" });
        if let Some(format) = format {
            data["format"] = format.into();
        }
        let pusher = json!({
            "kind": "http", "app_id": "fr.gouv.app", "pushkey": key, "app_display_name": "App",
            "device_display_name": "Phone", "lang": "fr", "append": true, "data": data,
        });
        self.call(Method::POST, "/pushers/set", pusher).await
    }

    async fn pushers(&self) -> usize {
        self.ok(Method::GET, "/pushers", Value::Null).await["pushers"].as_array().unwrap().len()
    }

    async fn say(&self, room: &str, txn: &str, body: &str) -> String {
        let path = format!("/rooms/{room}/send/m.room.message/{txn}");
        let content = json!({ "msgtype": "m.text", "body": body });
        self.ok(Method::PUT, &path, content).await["event_id"].as_str().unwrap().to_owned()
    }
}

/// Alice and Bob in a room that Bob joined by invitation.
async fn two(lab: &Lab) -> (Agent, Agent, String) {
    let (alice, bob) = (Agent::new(lab, "alice").await, Agent::new(lab, "bob").await);
    let body = json!({ "preset": "private_chat", "name": "Salon", "invite": [bob.id] });
    let made = alice.ok(Method::POST, "/createRoom", body).await;
    let room = made["room_id"].as_str().unwrap().to_owned();
    bob.ok(Method::POST, &format!("/join/{room}"), json!({})).await;
    (alice, bob, room)
}

#[tokio::test]
async fn a_gateway_hears_of_messages_again_after_a_failure_and_no_more_once_it_rejects() {
    let mut gateway = Gateway::start().await;
    let lab = Lab::start(RANGES).await;
    let (alice, bob, room) = two(&lab).await;
    let url = format!("http://{}{NOTIFY}", gateway.address);
    assert_eq!(bob.set_pusher(&url, "phone", None).await.0, StatusCode::OK);

    gateway.then_say(StatusCode::BAD_GATEWAY, json!({}));
    let said = alice.say(&room, "1", "bonjour").await;
    let first = gateway.next().await;
    assert_eq!((&first["event_id"], &first["room_id"]), (&json!(said), &json!(room)));
    assert_eq!((&first["sender"], &first["room_name"]), (&json!(alice.id), &json!("Salon")));
    assert_eq!((&first["content"]["body"], &first["counts"]["unread"]), (&json!("bonjour"), &json!(1)));
    let device = &first["devices"][0];
    assert_eq!((&device["app_id"], &device["pushkey"]), (&json!("fr.gouv.app"), &json!("phone")));
    assert_eq!(device["data"], json!({ "brand": "element" }), "the gateway knows its own address");
    assert_eq!(gateway.next().await, first, "the same again after a pause");

    bob.ok(Method::POST, &format!("/rooms/{room}/receipt/m.read/{said}"), json!({})).await;
    let read = gateway.next().await;
    assert_eq!((&read["counts"]["unread"], read.get("event_id")), (&json!(0), None));

    gateway.then_say(StatusCode::OK, json!({ "rejected": ["another", "phone"] }));
    alice.say(&room, "2", "encore").await;
    assert_eq!(gateway.next().await["content"]["body"], "encore");
    timeout(Duration::from_secs(20), async {
        while bob.pushers().await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("a rejected push key is forgotten");

    // The next thing that the gateway hears is what a new pusher brings.
    alice.say(&room, "3", "unheard").await;
    bob.set_pusher(&url, "tablet", Some("event_id_only")).await;
    let said = alice.say(&room, "4", "secret").await;
    let told = gateway.next().await;
    assert_eq!((&told["event_id"], &told["devices"][0]["pushkey"]), (&json!(said), &json!("tablet")));
    assert_eq!((told.get("content"), told.get("sender"), &told["counts"]["unread"]), (None, None, &json!(1)));
    lab.stop().await;
}

#[tokio::test]
async fn gateways_inside_the_own_network_are_not_reached_unless_allowed() {
    let mut gateway = Gateway::start().await;
    let inside = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let lab = Lab::start(RANGES).await;
    let (alice, bob, room) = two(&lab).await;
    for wrong in
        ["ftp://x.fr/_matrix/push/v1/notify", "https://x.fr/notify", "https://x.fr/_matrix/push/v1/notify?x"]
    {
        let (status, said) = bob.set_pusher(wrong, "wrong", None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}: {said}");
    }
    let hidden = format!("http://{}{NOTIFY}", inside.local_addr().unwrap());
    let open = format!("http://{}{NOTIFY}", gateway.address);
    bob.set_pusher(&hidden, "hidden", None).await;
    bob.set_pusher(&open, "open", None).await;
    alice.say(&room, "1", "bonjour").await;
    assert_eq!(gateway.next().await["devices"][0]["pushkey"], "open");
    lab.stop().await;
    // Had the server connected, the connection would wait here.
    assert!(inside.accept().now_or_never().is_none());
}
