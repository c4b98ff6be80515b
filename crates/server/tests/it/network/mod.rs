//! Servers that follow the signed list of a network: a publisher, members, and a server that is not on it.

mod keys;
mod list;
mod outsiders;
mod verbs;

use std::time::Duration;

use axum::Router;
use chappe_federation::NetworkList;
use chappe_rules::build::SigningKey;
use chappe_server::{House, config::Api};
use chappe_world::{FakeNet, World};
use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::host::{self, PASSWORD};

const HOUR: u64 = 3_600_000;

fn root() -> SigningKey {
    SigningKey::from_seed([5; 32], "root").unwrap()
}

/// The section of a server that follows the network.
fn section() -> String {
    let key = root().public_base64();
    format!(
        "[federation.network]\nname = \"net.test\"\npublishers = [\"p.test\"]\nfetch_seconds = 60\n\
         trust_roots = {{ \"ed25519:root\" = \"{key}\" }}"
    )
}

/// List number `sequence` of these servers, good for `hours` from now.
fn list(now: u64, sequence: u64, servers: &[&str], hours: u64) -> String {
    let servers: serde_json::Map<_, _> = servers.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
    let whole = json!({
        "network": "net.test", "sequence": sequence - 1, "issued_at": 0, "expires_at": 0, "servers": servers,
    });
    let list = NetworkList::read(whole.to_string().as_bytes()).unwrap();
    list.sign(&root(), now, now + hours * HOUR).unwrap()
}

/// A server on a network inside the process.
struct Place {
    house: House,
    router: Router,
    world: World,
    _folder: TempDir,
}

impl Place {
    async fn start(net: &FakeNet, name: &str, seed: u64, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = host::configuration(name, folder.path(), more);
        let apis = [Api::Client, Api::Federation, Api::Metrics];
        let (house, router, world) = host::place(net, (name, seed), &text, &apis).await;
        Self { house, router, world, _folder: folder }
    }

    async fn raw(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, String) {
        // The time of these tests is not that of the world.
        let answer = host::send_and_wait(&self.router, host::request(token, (method, path), &body)).await;
        (answer.status.as_u16(), answer.text)
    }

    async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (status, text) = self.raw(token, method, path, body).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn ok(&self, token: &str, method: &str, path: &str, body: Value) -> Value {
        let (status, said) = self.call(token, method, path, body).await;
        assert_eq!(status, StatusCode::OK.as_u16(), "{method} {path}: {said}");
        said
    }

    /// Signs somebody up; gives the access token.
    async fn user(&self, name: &str) -> String {
        let body = json!({ "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
        let said = self.ok("", "POST", "/register", body).await;
        said["access_token"].as_str().unwrap().to_owned()
    }

    async fn room(&self, token: &str) -> String {
        let body = json!({ "preset": "public_chat" });
        let said = self.ok(token, "POST", "/_matrix/client/v3/createRoom", body).await;
        said["room_id"].as_str().unwrap().to_owned()
    }

    async fn join(&self, token: &str, room: &str, via: &str) -> (u16, Value) {
        let path = format!("/_matrix/client/v3/join/{room}?server_name={via}");
        self.call(token, "POST", &path, json!({})).await
    }

    async fn say(&self, token: &str, room: &str, text: &str) {
        let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{text}");
        self.ok(token, "PUT", &path, json!({ "msgtype": "m.text", "body": text })).await;
    }

    /// Has the publisher's operator apply a list.
    async fn apply(&self, list: &str) {
        self.house.network_list().unwrap().apply(list.as_bytes()).await.unwrap();
    }

    fn sequence(&self) -> u64 {
        let held = self.house.network_list().unwrap().status().held;
        held.map_or(0, |held| held.list.sequence)
    }
}

/// Waits, in the tests' own time, until something holds.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..2_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(holds().await, "never: {what}");
}
