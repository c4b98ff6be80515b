//! The State's network, as `docs/tchap.md` lists it: servers of agents, one of externals, and servers without rules. Each
//! test is named after its row.

mod accounts;
mod calls;
mod clamd;
mod creation;
mod forged;
mod last_admin;
mod ministry;
mod office;
mod people;
mod retention;
mod rules;
mod scanner;
mod validity;

use std::{collections::BTreeSet, time::Duration};

use axum::{Router, body::Body};
use chappe_accounts::Accounts;
use chappe_identity::IdentityService;
use chappe_kv::{Db, Memory};
use chappe_server::{
    House,
    config::{self, Api},
    mail_sink,
};
use chappe_world::{Fake, FakeNet, World};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};
use tower::ServiceExt;

const PATIENCE: Duration = Duration::from_secs(20);
const RULES: &str = "im.vector.room.access_rules";
/// What every server of the network says.
const NETWORK: &str = r#"
[identity]
profile = "agents"
[rooms.access]
externals = ["e.test", "x.test"]
bypass_users = ["@bot:a.test"]
"#;

/// A server in the process.
struct Place {
    router: Router,
    world: World,
    accounts: Accounts,
    service: IdentityService,
    mails: mpsc::Receiver<mail_sink::Received>,
    sink: JoinHandle<()>,
    _folder: TempDir,
}

/// Somebody with a device.
struct User<'a> {
    place: &'a Place,
    id: String,
    token: String,
}

/// A server of the network, with more lines of configuration in the section `rooms.access`.
async fn server_with(net: &FakeNet, name: &str, more: &str) -> Place {
    Place::start(net, name, &format!("{NETWORK}\n{more}")).await
}

async fn server(net: &FakeNet, name: &str) -> Place {
    server_with(net, name, "").await
}

/// Two servers of agents and one of externals.
async fn network() -> (Place, Place, Place) {
    let net = FakeNet::new();
    (server(&net, "a.test").await, server(&net, "b.test").await, server(&net, "e.test").await)
}

impl Place {
    #[expect(clippy::disallowed_methods, reason = "a test's own mail sink")]
    async fn start(net: &FakeNet, name: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, mails) = mpsc::channel(16);
        let sink = tokio::spawn(mail_sink::receive(listener, sender));
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
[client.registration]
open = true
[accounts.password]
memory_kib = 64
passes = 1
{more}
"#,
            folder.path().display().to_string()
        );
        let config = config::parse("test", &text, std::iter::empty()).unwrap();
        let world = World::fake(Fake::new(name, 1, net));
        let house = House::build(&config, world.clone(), Db::new(Memory::default())).await.unwrap();
        house.start();
        let router = house.router(&BTreeSet::from([Api::Client, Api::Federation, Api::Identity]));
        net.route(name, &world, router.clone());
        let (accounts, service) = (house.accounts.clone(), house.service.clone());
        Self { router, world, accounts, service, mails, sink, _folder: folder }
    }

    async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let path = if path.starts_with("/_") { path.to_owned() } else { format!("/_matrix/client/v3{path}") };
        let mut request = Request::builder().method(method).uri(path.replace('#', "%23"));
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let answer = timeout(PATIENCE, self.router.clone().oneshot(request.body(body).unwrap())).await;
        let (parts, body) = answer.expect("an answer in time").unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn user(&self, name: &str) -> User<'_> {
        let auth = json!({ "type": "m.login.dummy" });
        let body = json!({ "username": name, "password": "correct horse battery", "auth": auth });
        let (status, said) = self.call("", "POST", "/register", body).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        User { place: self, id: text(&said["user_id"]), token: text(&said["access_token"]) }
    }

    /// An administrator of this server.
    async fn admin(&self, name: &str) -> User<'_> {
        let user = self.user(name).await;
        let id = ruma::UserId::parse(&user.id).unwrap();
        self.accounts.update_user(&id, |user| user.admin = true).await.unwrap();
        user
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.world.kill();
        self.sink.abort();
    }
}

impl User<'_> {
    async fn call(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        self.place.call(&self.token, method, path, body).await
    }

    #[track_caller]
    fn ok(&self, method: &str, path: &str, body: Value) -> impl Future<Output = Value> {
        let (at, what) = (std::panic::Location::caller(), format!("{method} {path} {body}"));
        let call = self.call(method, path, body);
        async move {
            let (status, said) = call.await;
            assert_eq!(status, StatusCode::OK, "{at}: {what}: {said}");
            said
        }
    }

    /// A refusal with 403 `M_FORBIDDEN`.
    #[track_caller]
    fn refused(&self, method: &str, path: &str, body: Value) -> impl Future<Output = ()> {
        let (at, what) = (std::panic::Location::caller(), format!("{method} {path} {body}"));
        let call = self.call(method, path, body);
        async move {
            let (status, said) = call.await;
            let told = (status.as_u16(), &said["errcode"]);
            assert_eq!(told, (403, &json!("M_FORBIDDEN")), "{at}: {what}: {said}");
        }
    }

    /// Makes a room; gives its id.
    async fn room(&self, request: Value) -> String {
        text(&self.ok("POST", "/createRoom", request).await["room_id"])
    }

    async fn state(&self, room: &str, kind: &str) -> Option<Value> {
        let (status, said) = self.call("GET", &format!("/rooms/{room}/state/{kind}/"), Value::Null).await;
        (status == StatusCode::OK).then_some(said)
    }

    async fn membership(&self, room: &str, user: &str) -> Option<String> {
        let path = format!("/rooms/{room}/state/m.room.member/{user}");
        let (status, said) = self.call("GET", &path, Value::Null).await;
        if status != StatusCode::OK {
            return None;
        }
        said["membership"].as_str().map(str::to_owned)
    }

    /// The power levels of a room.
    async fn levels(&self, room: &str) -> Value {
        self.state(room, "m.room.power_levels").await.unwrap()
    }

    async fn invite(&self, room: &str, user: &User<'_>) {
        self.ok("POST", &format!("/rooms/{room}/invite"), json!({ "user_id": user.id })).await;
    }

    /// Joins through the server of `via`.
    async fn join(&self, room: &str, via: &str) -> (StatusCode, Value) {
        self.call("POST", &format!("/join/{room}?server_name={via}"), json!({})).await
    }

    /// Is invited, and joins.
    async fn enter(&self, room: &str, host: &User<'_>) {
        host.invite(room, self).await;
        let via = host.id.split_once(':').unwrap().1;
        let (status, said) = self.join(room, via).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        host.sees(room, &self.id, "join").await;
    }

    async fn say(&self, room: &str, body: &str) {
        let path = format!("/rooms/{room}/send/m.room.message/{body}");
        self.ok("PUT", &path, json!({ "msgtype": "m.text", "body": body })).await;
    }

    /// Waits until a membership has come here.
    async fn sees(&self, room: &str, user: &str, membership: &str) {
        let there = || async { self.membership(room, user).await.as_deref() == Some(membership) };
        eventually(&format!("{user}: {membership}"), there).await;
    }

    /// Waits until a message has come here.
    async fn hears(&self, room: &str, body: &str) {
        let there = || async {
            let path = format!("/rooms/{room}/messages?dir=b&limit=50");
            let said = self.call("GET", &path, Value::Null).await.1;
            let events = said["chunk"].as_array().cloned().unwrap_or_default();
            events.iter().any(|event| event["content"]["body"] == body)
        };
        eventually(body, there).await;
    }

    /// Whether a sync of this user has an invite into a room.
    async fn is_invited(&self, room: &str) -> bool {
        let said = self.ok("GET", "/sync?timeout=0", Value::Null).await;
        said["rooms"]["invite"][room].is_object()
    }
}

/// Waits until something holds that other servers bring about.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "never: {what}");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// A `createRoom` request of a room with this rule.
fn room_with(rule: &str) -> Value {
    let rules = json!({ "type": RULES, "state_key": "", "content": { "rule": rule } });
    json!({ "preset": "private_chat", "initial_state": [rules] })
}

/// A `createRoom` request of a forum.
fn forum() -> Value {
    json!({ "preset": "public_chat", "visibility": "public" })
}

/// A `createRoom` request of a direct chat.
fn direct() -> Value {
    json!({ "preset": "trusted_private_chat", "is_direct": true })
}
