//! The State's network, as `docs/tchap.md` lists it: servers of agents, one of externals, and servers without rules. Each
//! test is named after its row, or after its family of attacks (`docs/security.md`).

mod accounts;
mod calls;
mod clamd;
mod closed;
mod creation;
mod directory;
mod figures;
mod forged;
mod last_admin;
mod ministry;
mod office;
mod people;
mod retention;
mod rules;
mod scanner;
mod sign_up;
mod story;
mod validity;

use std::time::Duration;

use axum::Router;
use chappe_accounts::Accounts;
use chappe_identity::IdentityService;
use chappe_server::config::Api;
use chappe_world::{FakeNet, World};
use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::host::{self, Mails, PATIENCE};

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
    mails: Mails,
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
    async fn start(net: &FakeNet, name: &str, more: &str) -> Self {
        let (folder, mails) = (tempfile::tempdir().unwrap(), Mails::start().await);
        let text = host::configuration(name, folder.path(), &format!("{}{more}", mails.section(name)));
        let apis = [Api::Client, Api::Federation, Api::Identity];
        let (house, router, world) = host::place(net, (name, 1), &text, &apis).await;
        Self {
            router,
            world,
            accounts: house.accounts.clone(),
            service: house.service,
            mails,
            _folder: folder,
        }
    }

    async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let answer = host::call(&self.router, token, (method, path), body).await;
        (answer.status, answer.json)
    }

    async fn user(&self, name: &str) -> User<'_> {
        let said = host::sign_up(&self.router, name).await;
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

/// Holds that a request was refused with 403 `M_FORBIDDEN`.
#[track_caller]
fn forbidden((status, said): (StatusCode, Value)) {
    assert_eq!((status.as_u16(), &said["errcode"]), (403, &json!("M_FORBIDDEN")), "{said}");
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
