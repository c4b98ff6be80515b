//! What servers in the process have in common: how one is built on a network, asked without sockets, and mailed by.

use std::{collections::BTreeSet, fmt::Write as _, path::Path, time::Duration};

use axum::{Router, body::Body};
use chappe_kv::{Db, Memory};
use chappe_server::{
    House,
    config::{self, Api},
    mail_sink::{self, Received},
};
use chappe_world::{Fake, FakeNet, World};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::mpsc::{self, error::TryRecvError},
    task::JoinHandle,
    time::timeout,
};
use tower::ServiceExt;

/// Longest wait for anything in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The password of everybody.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json
    }

    /// The status and error code of a refusal.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, errcode: &str) {
        assert_eq!((self.status.as_u16(), &self.json["errcode"]), (status, &json!(errcode)), "{}", self.text);
    }
}

/// Sends a request as it is.
pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    timeout(PATIENCE, send_and_wait(router, request)).await.expect("an answer in time")
}

/// The same for tests whose time is not that of the world: waits for ever.
pub(crate) async fn send_and_wait(router: &Router, request: Request<Body>) -> Answer {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes().to_vec();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status: parts.status, headers: parts.headers, bytes, text, json }
}

/// Sends a request to a path below `/_matrix/client/v3`, or anywhere with a full path.
pub(crate) async fn call(router: &Router, token: &str, (method, path): (&str, &str), body: Value) -> Answer {
    send(router, request(token, (method, path), &body)).await
}

/// Such a request.
pub(crate) fn request(token: &str, (method, path): (&str, &str), body: &Value) -> Request<Body> {
    let is_whole = ["/_", "/.", "/metrics"].iter().any(|beginning| path.starts_with(beginning));
    let path = if is_whole { path.to_owned() } else { format!("/_matrix/client/v3{path}") };
    let mut request = Request::builder().method(method).uri(path.replace('#', "%23"));
    if !token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    request.body(body).unwrap()
}

/// Signs somebody up where registration is open.
pub(crate) async fn sign_up(router: &Router, name: &str) -> Value {
    let auth = json!({ "type": "m.login.dummy" });
    let body = json!({ "username": name, "password": PASSWORD, "auth": auth });
    call(router, "", ("POST", "/register"), body).await.ok()
}

/// The configuration of a server whose data are in a folder: open for everybody unless `more` says who may register.
pub(crate) fn configuration(name: &str, folder: &Path, more: &str) -> String {
    let mut text = format!(
        r#"
server_name = "{name}"
public_baseurl = "https://{name}"
data_dir = {:?}
[[listeners]]
port = 0
apis = ["client", "media", "federation", "identity"]
[accounts.password]
memory_kib = 64
passes = 1
{more}
"#,
        folder.display().to_string()
    );
    if !more.contains("[client.registration]") {
        let _ = writeln!(text, "[client.registration]\nopen = true");
    }
    text
}

/// Builds a server and starts it.
pub(crate) async fn build(text: &str, world: &World, db: &Db, apis: &[Api]) -> (House, Router) {
    let config = config::parse("test", text, std::iter::empty()).unwrap();
    let house = House::build(&config, world.clone(), db.clone()).await.unwrap();
    house.start();
    let router = house.router(&apis.iter().copied().collect::<BTreeSet<_>>());
    (house, router)
}

/// Builds a server over a store in memory and puts it on a network; `seed` is of its random numbers.
pub(crate) async fn place(
    net: &FakeNet,
    (name, seed): (&str, u64),
    text: &str,
    apis: &[Api],
) -> (House, Router, World) {
    let world = World::fake(Fake::new(name, seed, net));
    let (house, router) = build(text, &world, &Db::new(Memory::default()), apis).await;
    net.route(name, &world, router.clone());
    (house, router, world)
}

/// The mails of a server, taken in by real SMTP.
pub(crate) struct Mails {
    port: u16,
    received: mpsc::Receiver<Received>,
    sink: JoinHandle<()>,
}

impl Mails {
    #[expect(clippy::disallowed_methods, reason = "a test's own mail sink")]
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, received) = mpsc::channel(64);
        Self { port, received, sink: tokio::spawn(mail_sink::receive(listener, sender)) }
    }

    /// The section of the configuration of a server that mails here.
    pub(crate) fn section(&self, name: &str) -> String {
        let port = self.port;
        format!(
            "[mail]\nhost = \"127.0.0.1\"\nport = {port}\nsecurity = \"plain\"\nfrom = \"no-reply@{name}\"\n"
        )
    }

    /// The next mail.
    pub(crate) async fn next(&mut self) -> Received {
        timeout(PATIENCE, self.received.recv()).await.expect("a mail in time").unwrap()
    }

    /// A mail that is there already.
    pub(crate) fn try_recv(&mut self) -> Result<Received, TryRecvError> {
        self.received.try_recv()
    }

    /// Holds that no mail comes for a while.
    pub(crate) async fn none(&mut self) {
        let came = timeout(Duration::from_millis(300), self.received.recv()).await;
        assert!(came.is_err(), "{came:?}");
    }
}

impl Drop for Mails {
    fn drop(&mut self) {
        self.sink.abort();
    }
}
