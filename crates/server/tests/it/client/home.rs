//! A server in the process, and users on it.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use chappe_accounts::Accounts;
use chappe_kv::{Db, Memory};
use chappe_server::config::Api;
use chappe_world::{Fake, FakeNet, World};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::host;
pub(super) use crate::host::{Answer, PASSWORD};

const CONFIGURATION: &str = r#"
server_name = "a.test"
public_baseurl = "http://a.test"
[[listeners]]
port = 0
apis = ["client", "media"]
[client.registration]
open = true
guests = true
[accounts.password]
memory_kib = 64
passes = 1
[federation]
allow = []
"#;

/// A server in the process.
pub(super) struct Home {
    router: Router,
    pub(super) accounts: Accounts,
    pub(super) world: World,
    pub(super) net: FakeNet,
    _folder: Arc<TempDir>,
}

impl Home {
    pub(super) async fn new() -> Self {
        Self::with("").await
    }

    /// A server with more lines of configuration in front.
    pub(super) async fn with(more: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::again(&folder, &Db::new(Memory::default()), more).await
    }

    /// A server with more lines in the section `client`.
    pub(super) async fn with_client(more: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let text = CONFIGURATION
            .replace("[client.registration]", &format!("[client]\n{more}\n[client.registration]"));
        Self::placed(&folder, &Db::new(Memory::default()), &FakeNet::new(), &text).await
    }

    /// A server with other lines in the section `client.registration`, and more in front.
    pub(super) async fn with_registration(lines: &str, more: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let text = CONFIGURATION.replace("open = true\nguests = true", lines);
        Self::placed(&folder, &Db::new(Memory::default()), &FakeNet::new(), &format!("{more}\n{text}")).await
    }

    /// A server on a folder and a database that may have been another one's before.
    pub(super) async fn again(folder: &Arc<TempDir>, db: &Db, more: &str) -> Self {
        Self::placed(folder, db, &FakeNet::new(), &format!("{more}\n{CONFIGURATION}")).await
    }

    /// A server that browsers reach over TLS, on a network with others, with more lines of configuration behind.
    pub(super) async fn on(net: &FakeNet, more: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let text = format!("{}\n{more}", CONFIGURATION.replace("http://", "https://"));
        Self::placed(&folder, &Db::new(Memory::default()), net, &text).await
    }

    async fn placed(folder: &Arc<TempDir>, db: &Db, net: &FakeNet, text: &str) -> Self {
        let data = format!("data_dir = {:?}\n{text}", folder.path().display().to_string());
        let world = World::fake(Fake::new("a.test", 1, net));
        let (house, router) = host::build(&data, &world, db, &[Api::Client, Api::Media, Api::Admin]).await;
        Self { router, accounts: house.accounts.clone(), world, net: net.clone(), _folder: folder.clone() }
    }

    /// Ends everything at once, as a crash does.
    pub(super) async fn crash(self) {
        self.world.kill();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// Sends a request as it is.
    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        host::send(&self.router, request).await
    }

    /// A request below `/_matrix/client/v3`, or anywhere with a full path.
    pub(super) async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        host::call(&self.router, token, (method, path), body).await
    }

    /// Makes somebody a server administrator.
    pub(super) async fn promote(&self, user: &User<'_>) {
        let id = ruma::UserId::parse(&user.id).unwrap();
        self.accounts.update_user(&id, |user| user.admin = true).await.unwrap();
    }

    /// Signs a server administrator up.
    pub(super) async fn administrator(&self, name: &str) -> User<'_> {
        let user = self.user(name).await;
        self.promote(&user).await;
        user
    }

    /// Signs somebody up.
    pub(super) async fn user(&self, name: &str) -> User<'_> {
        let said = host::sign_up(&self.router, name).await;
        let text = |field: &str| said[field].as_str().unwrap().to_owned();
        User { home: self, id: text("user_id"), device: text("device_id"), token: text("access_token") }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.world.kill();
    }
}

/// Somebody with a device.
pub(super) struct User<'a> {
    pub(super) home: &'a Home,
    pub(super) id: String,
    pub(super) device: String,
    pub(super) token: String,
}

impl User<'_> {
    pub(super) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        self.home.call(&self.token, method, path, body).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Value::Null).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, body).await
    }

    /// The same where the answer may take longer than usual.
    pub(super) async fn post_within(&self, patience: Duration, path: &str, body: Value) -> Answer {
        let request = host::request(&self.token, ("POST", path), &body);
        let answer = host::send_and_wait(&self.home.router, request);
        timeout(patience, answer).await.expect("an answer in time")
    }

    pub(super) async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, Value::Null).await
    }

    pub(super) async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, body).await
    }

    /// Does a request that asks for the password.
    pub(super) async fn confirmed(&self, method: &str, path: &str, mut body: Value) -> Answer {
        let asked = self.call(method, path, body.clone()).await;
        assert_eq!(asked.status, StatusCode::UNAUTHORIZED, "{}", asked.json);
        body["auth"] = json!({
            "type": "m.login.password", "password": PASSWORD, "session": asked.json["session"],
            "identifier": { "type": "m.id.user", "user": self.id },
        });
        self.call(method, path, body).await
    }

    /// Makes a room; gives its id.
    pub(super) async fn room(&self, request: Value) -> String {
        let made = self.post("/createRoom", request).await.ok();
        made["room_id"].as_str().unwrap().to_owned()
    }

    /// Says something; gives the event's id.
    pub(super) async fn say(&self, room: &str, txn: &str, text: &str) -> String {
        let path = format!("/rooms/{room}/send/m.room.message/{txn}");
        let sent = self.put(&path, json!({ "msgtype": "m.text", "body": text })).await.ok();
        sent["event_id"].as_str().unwrap().to_owned()
    }

    /// What is new since a token; gives the next token too.
    pub(super) async fn sync(&self, since: &str) -> (Value, String) {
        let since = if since.is_empty() { String::new() } else { format!("&since={since}") };
        let said = self.get(&format!("/sync?timeout=0{since}")).await.ok();
        let next = said["next_batch"].as_str().unwrap().to_owned();
        (said, next)
    }
}
