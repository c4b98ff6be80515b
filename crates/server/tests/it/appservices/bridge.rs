//! A server with an application service on loopback that remembers what it is asked.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Json, Router, body::Bytes, extract::State, response::IntoResponse};
use chappe_kv::{Db, Memory};
use chappe_server::{Server, config};
use chappe_world::World;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};

use crate::lab::{Http, STOPPING};

/// Longest wait for anything but a stop.
const PATIENCE: Duration = Duration::from_secs(20);
/// The token with which the service proves itself.
pub(super) const AS_TOKEN: &str = "as-secret";
const HS_TOKEN: &str = "hs-secret";
/// Everything a service can ask for.
pub(super) const WHOLE: &str = "receive_ephemeral: true\norg.matrix.msc3202: true\nrate_limited: false\n\
     protocols: [irc]\nnamespaces:\n  users: [{ exclusive: true, regex: '@_irc_.*' }]\n  \
     aliases: [{ exclusive: true, regex: '#_irc_.*' }]\n  rooms: []\n";

/// What the service was asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// With the query.
    pub(super) path: String,
    pub(super) text: String,
    pub(super) body: Value,
}

impl Asked {
    /// The id of a transaction.
    pub(super) fn transaction(&self) -> Option<&str> {
        self.path.strip_prefix("/_matrix/app/v1/transactions/")
    }
}

/// What the service answers: to the first path that begins like this, once.
type Script = Arc<Mutex<VecDeque<(&'static str, StatusCode, Value)>>>;

struct Ear {
    heard: mpsc::UnboundedSender<Asked>,
    script: Script,
    taken: Arc<AtomicBool>,
}

/// The service.
pub(super) struct Bridge {
    pub(super) address: SocketAddr,
    heard: mpsc::UnboundedReceiver<Asked>,
    script: Script,
    taken: Arc<AtomicBool>,
    serving: JoinHandle<()>,
}

impl Bridge {
    #[expect(clippy::disallowed_methods, reason = "a test's own service")]
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.3", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, heard) = mpsc::unbounded_channel();
        let (script, taken) = (Script::default(), Arc::<AtomicBool>::default());
        let ear = Arc::new(Ear { heard: sender, script: script.clone(), taken: taken.clone() });
        let router = Router::new().fallback(answer).with_state(ear);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, heard, script, taken, serving }
    }

    /// What it is asked next.
    pub(super) async fn next(&mut self) -> Asked {
        timeout(PATIENCE, self.heard.recv()).await.expect("a request in time").unwrap()
    }

    /// The next transaction in which something holds.
    pub(super) async fn transaction(&mut self, is_it: impl Fn(&Value) -> bool) -> Asked {
        loop {
            let asked = self.next().await;
            if asked.transaction().is_some() && is_it(&asked.body) {
                return asked;
            }
        }
    }

    /// The transaction with an event of this id.
    pub(super) async fn told_of(&mut self, event: &str) -> Asked {
        let has = |body: &Value| events(body).iter().any(|told| told["event_id"] == event);
        self.transaction(has).await
    }

    /// Forgets what it meant to say.
    pub(super) fn forgive(&self) {
        self.script.lock().clear();
        self.taken.store(false, SeqCst);
    }

    /// Whether a transaction was taken since.
    pub(super) fn took_it(&self) -> bool {
        self.taken.load(SeqCst)
    }

    /// Says something else than 200 and nothing, or 404 to questions.
    pub(super) fn then_say(&self, path: &'static str, status: StatusCode, body: Value) {
        self.script.lock().push_back((path, status, body));
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(
    State(ear): State<Arc<Ear>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let path = uri.path_and_query().unwrap().to_string();
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if bearer != Some(&format!("Bearer {HS_TOKEN}")) {
        return (StatusCode::FORBIDDEN, Json(json!({ "errcode": "M_FORBIDDEN" })));
    }
    let text = String::from_utf8(body.to_vec()).unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    let is_question = method == Method::GET;
    let place = |script: &VecDeque<(&str, StatusCode, Value)>| {
        script.iter().position(|(beginning, ..)| path.starts_with(beginning))
    };
    let scripted = {
        let mut script = ear.script.lock();
        place(&script).and_then(|place| script.remove(place))
    };
    if scripted.is_none() && !is_question {
        ear.taken.store(true, SeqCst);
    }
    ear.heard.send(Asked { path, text, body }).ok();
    match scripted {
        Some((_, status, body)) => (status, Json(body)),
        None if is_question => (StatusCode::NOT_FOUND, Json(json!({ "errcode": "M_NOT_FOUND" }))),
        None => (StatusCode::OK, Json(json!({}))),
    }
}

/// The events of a transaction.
pub(super) fn events(body: &Value) -> &[Value] {
    body["events"].as_array().map_or(&[], Vec::as_slice)
}

/// A server and a service.
pub(super) struct Port {
    server: Option<Server>,
    db: Db,
    folder: TempDir,
    configuration: String,
    pub(super) bridge: Bridge,
}

impl Port {
    /// With the rest of the registration, and more lines of configuration.
    pub(super) async fn open(registration: &str, more: &str) -> Self {
        let bridge = Bridge::start().await;
        let folder = tempfile::tempdir().unwrap();
        let written = format!(
            "id: irc\nurl: http://{}\nas_token: {AS_TOKEN}\nhs_token: {HS_TOKEN}\nsender_localpart: irc-bot\n{registration}",
            bridge.address
        );
        std::fs::create_dir(folder.path().join("services")).unwrap();
        std::fs::write(folder.path().join("services/irc.yaml"), written).unwrap();
        let configuration = format!(
            "server_name = \"a.test\"\ndata_dir = \"{0}/data\"\npublic_baseurl = \"http://a.test\"\n\
             [[listeners]]\nport = 0\napis = [\"client\"]\n[log]\nlevel = \"warn\"\n\
             [client.registration]\nopen = true\n[accounts.password]\nmemory_kib = 64\npasses = 1\n\
             [federation]\nallow = []\n[outbound]\nallowed_ranges = [\"127.0.0.3/32\"]\n\
             [appservices]\nregistrations = [\"{0}/services\"]\nbackoff_min_ms = 20\nbackoff_max = 1\n{more}\n",
            folder.path().display()
        );
        let db = Db::new(Memory::default());
        let mut port = Self { server: None, db, folder, configuration, bridge };
        port.start().await;
        port
    }

    pub(super) async fn start(&mut self) {
        let config = config::parse("test", &self.configuration, std::iter::empty()).unwrap();
        let world = World::real(&config.outbound).unwrap();
        self.server = Some(Server::start(&config, world, self.db.clone()).await.unwrap());
    }

    pub(super) async fn stop(&mut self) {
        let server = self.server.take().expect("it runs");
        timeout(STOPPING, server.stop()).await.expect("stopped in time");
    }

    /// Replaces what the registration says; for the next start.
    pub(super) fn register_as(&self, change: impl Fn(&str) -> String) {
        let file = self.folder.path().join("services/irc.yaml");
        let written = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, change(&written)).unwrap();
    }

    fn http(&self) -> Http {
        Http::to(self.server.as_ref().expect("it runs").addresses()[0])
    }

    /// A request below `/_matrix/client/v3`, or anywhere with a full path.
    pub(super) async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let path = if path.starts_with("/_") { path.to_owned() } else { format!("/_matrix/client/v3{path}") };
        let method: Method = method.parse().unwrap();
        let token = Some(token).filter(|token| !token.is_empty());
        let (status, said) = self.http().call(method, &path, token, body).await;
        (status.as_u16(), said)
    }

    /// The same, which must succeed.
    #[track_caller]
    pub(super) fn ok<'a>(
        &'a self,
        token: &'a str,
        method: &'a str,
        path: &'a str,
        body: Value,
    ) -> impl Future<Output = Value> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let (status, said) = self.call(token, method, path, body).await;
            assert!((200..300).contains(&status), "{place}: {method} {path}: {status} {said}");
            said
        }
    }

    /// The same, which must be refused with a code.
    #[track_caller]
    pub(super) fn refused<'a>(
        &'a self,
        (token, method, path): (&'a str, &'a str, &'a str),
        body: Value,
        (status, errcode): (u16, &'a str),
    ) -> impl Future<Output = ()> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let (got, said) = self.call(token, method, path, body).await;
            assert_eq!((got, &said["errcode"]), (status, &json!(errcode)), "{place}: {path}: {said}");
        }
    }

    /// Signs a person up; gives the token.
    pub(super) async fn person(&self, name: &str) -> String {
        let auth = json!({ "type": "m.login.dummy" });
        let body = json!({ "username": name, "password": "correct horse battery", "auth": auth });
        let said = self.ok("", "POST", "/register", body).await;
        said["access_token"].as_str().unwrap().to_owned()
    }

    /// Has the service make a user.
    pub(super) async fn ghost(&self, name: &str) {
        let body = json!({ "type": "m.login.application_service", "username": name, "inhibit_login": true });
        self.ok(AS_TOKEN, "POST", "/register", body).await;
    }

    /// Makes a room; gives its id.
    pub(super) async fn room(&self, token: &str, request: Value) -> String {
        let made = self.ok(token, "POST", "/createRoom", request).await;
        made["room_id"].as_str().unwrap().to_owned()
    }

    /// Says something; gives the event's id.
    pub(super) async fn say(&self, token: &str, room: &str, text: &str) -> String {
        let path = format!("/rooms/{room}/send/m.room.message/{text}");
        let sent = self.ok(token, "PUT", &path, json!({ "msgtype": "m.text", "body": text })).await;
        sent["event_id"].as_str().unwrap().to_owned()
    }
}
