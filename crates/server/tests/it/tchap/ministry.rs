//! A server in the process with real mail, whose clock tests turn forward and which they stop and start again.

use std::{collections::BTreeSet, time::Duration};

use axum::{Router, body::Body};
use chappe_accounts::Accounts;
use chappe_kv::{Db, Memory};
use chappe_server::{
    House,
    config::{self, Api},
    mail_sink::{self, Received},
};
use chappe_world::{Fake, FakeNet, World};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use ruma::{OwnedUserId, UserId, thirdparty::Medium};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::JoinHandle,
    time::{advance, pause, resume, timeout},
};
use tower::ServiceExt;

const PATIENCE: Duration = Duration::from_secs(20);
/// How long a mail is waited for that must not come.
const QUIET: Duration = Duration::from_millis(300);
pub(super) const DAY: Duration = Duration::from_hours(24);
pub(super) const PASSWORD: &str = "correct horse battery";

/// A server of the network.
pub(super) struct Ministry {
    router: Router,
    pub(super) accounts: Accounts,
    pub(super) world: World,
    net: FakeNet,
    name: &'static str,
    text: String,
    db: Db,
    mails: mpsc::Receiver<Received>,
    sink: JoinHandle<()>,
    _folder: TempDir,
}

/// Somebody logged in.
#[derive(Clone)]
pub(super) struct Agent {
    pub(super) id: OwnedUserId,
    pub(super) token: String,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) text: String,
    pub(super) json: Value,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub(super) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json
    }

    /// The status and error code of a refusal.
    #[track_caller]
    pub(super) fn refused(self, status: u16, errcode: &str) {
        assert_eq!((self.status.as_u16(), &self.json["errcode"]), (status, &json!(errcode)), "{}", self.text);
    }
}

impl Ministry {
    /// A server alone in the world, with more lines of configuration.
    pub(super) async fn alone(more: &str) -> Self {
        Self::on(&FakeNet::new(), "a.gouv.fr", more).await
    }

    /// A server on a network.
    #[expect(clippy::disallowed_methods, reason = "a test's own mail sink")]
    pub(super) async fn on(net: &FakeNet, name: &'static str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, mails) = mpsc::channel(64);
        let sink = tokio::spawn(mail_sink::receive(listener, sender));
        let open = "[client.registration]\nopen = true";
        let registration = if more.contains("[client.registration]") { "" } else { open };
        let text = format!(
            r#"
server_name = "{name}"
public_baseurl = "https://{name}"
data_dir = {:?}
[[listeners]]
port = 0
apis = ["client"]
[mail]
host = "127.0.0.1"
port = {port}
security = "plain"
from = "no-reply@{name}"
{registration}
[accounts.password]
memory_kib = 64
passes = 1
{more}
"#,
            folder.path().display().to_string()
        );
        let (db, world) = (Db::new(Memory::default()), World::fake(Fake::new(name, 1, net)));
        let (router, accounts) = begin(&text, &world, &db, (net, name)).await;
        // Before anybody is there: accounts that are made from now on have their end from the beginning.
        while accounts.accounts_end() && accounts.enrol_some().await.unwrap() {}
        let net = net.clone();
        Self { router, accounts, world, net, name, text, db, mails, sink, _folder: folder }
    }

    /// Ends the server as a crash does and starts it again on the same disk, so much later, after `change` of what is
    /// configured.
    pub(super) async fn again(&mut self, later: Duration, change: impl FnOnce(String) -> String) {
        self.world.kill();
        self.text = change(std::mem::take(&mut self.text));
        let mut fake = Fake::new(self.name, self.world.random(), &self.net);
        fake.epoch_ms = self.world.now() + millis(later);
        self.world = World::fake(fake);
        (self.router, self.accounts) = begin(&self.text, &self.world, &self.db, (&self.net, self.name)).await;
    }

    /// Turns the clock forward; what is due then happens beside.
    pub(super) async fn later(&self, by: Duration) {
        pause();
        advance(by).await;
        resume();
    }

    /// Sends a request with JSON, or without a body.
    pub(super) async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.send(token, method, path, text).await
    }

    /// Sends a request with any text.
    pub(super) async fn send(&self, token: &str, method: &str, path: &str, text: String) -> Answer {
        let path = if path.starts_with("/_") { path.to_owned() } else { format!("/_matrix/client/v3{path}") };
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::from(text)).unwrap();
        let answer = timeout(PATIENCE, self.router.clone().oneshot(request)).await;
        let (parts, body) = answer.expect("an answer in time").unwrap().into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status: parts.status, text, json }
    }

    /// Signs somebody up, with an address.
    pub(super) async fn agent(&self, name: &str) -> Agent {
        let body = json!({ "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
        let said = self.call("", "POST", "/register", body).await.ok();
        let id = UserId::parse(said["user_id"].as_str().unwrap()).unwrap();
        let address = format!("{name}@{}", self.name);
        self.accounts.add_threepid(&id, &Medium::Email, &address, 1).await.unwrap();
        Agent { id, token: said["access_token"].as_str().unwrap().to_owned() }
    }

    /// Signs a server administrator up.
    pub(super) async fn administrator(&self, name: &str) -> Agent {
        let agent = self.agent(name).await;
        self.accounts.update_user(&agent.id, |user| user.admin = true).await.unwrap();
        agent
    }

    /// The next mail.
    pub(super) async fn mail(&mut self) -> Received {
        timeout(PATIENCE, self.mails.recv()).await.expect("a mail in time").unwrap()
    }

    /// Holds that no mail comes.
    pub(super) async fn no_mail(&mut self) {
        let came = timeout(QUIET, self.mails.recv()).await;
        assert!(came.is_err(), "{came:?}");
    }
}

impl Drop for Ministry {
    fn drop(&mut self) {
        self.world.kill();
        self.sink.abort();
    }
}

async fn begin(text: &str, world: &World, db: &Db, (net, name): (&FakeNet, &str)) -> (Router, Accounts) {
    let config = config::parse("test", text, std::iter::empty()).unwrap();
    let house = House::build(&config, world.clone(), db.clone()).await.unwrap();
    house.start();
    let apis = [Api::Client, Api::Media, Api::Federation, Api::Identity, Api::Admin];
    let router = house.router(&BTreeSet::from(apis));
    net.route(name, world, router.clone());
    (router, house.accounts.clone())
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap()
}
