//! What the log says: alone in its process, which has one log.

#![expect(clippy::unwrap_used, reason = "a test fails where something is not there")]

#[path = "it/client/home.rs"]
#[expect(dead_code, reason = "shared with the tests of the client API, which need more of it")]
mod home;
#[path = "it/host.rs"]
#[expect(dead_code, reason = "shared with the tests of assembled servers, which need more of it")]
mod host;

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use tracing_subscriber::prelude::*;

use self::home::{Home, PASSWORD};

fn log_in(password: &str) -> Value {
    json!({ "type": "m.login.password", "password": password, "refresh_token": true,
        "identifier": { "type": "m.id.user", "user": "alice" } })
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Everything that is logged, however finely: no password, no token, nothing that was said.
#[tokio::test]
async fn the_log_holds_no_secrets() {
    let lines = Lines::default();
    let writer = lines.clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
    tracing_subscriber::registry().with(layer).init();
    let home = Home::with("client.tokens_in_query = true").await;
    let alice = home.user("alice").await;
    let room = alice.room(json!({ "name": "hush-hush" })).await;
    alice.say(&room, "1", "hush-hush").await;
    alice.sync("").await;
    home.call("", "GET", &format!("/account/whoami?access_token={}", alice.token), Value::Null).await.ok();
    home.call("", "POST", "/login", log_in("a wrong one")).await;
    let second = home.call("", "POST", "/login", log_in(PASSWORD)).await.ok();
    let refresh = second["refresh_token"].as_str().unwrap();
    home.call("", "POST", "/refresh", json!({ "refresh_token": refresh })).await.ok();
    alice.confirmed("POST", "/account/password", json!({ "new_password": "another hushed one" })).await.ok();
    alice.post("/register", json!({ "password": 7, "username": PASSWORD })).await;
    let broken = format!("{{\"password\": \"{PASSWORD}\", \"type\": ");
    home.send(Request::post("/_matrix/client/v3/login").body(Body::from(broken)).unwrap()).await;
    alice.post("/logout", json!({})).await.ok();
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("answered"), "nothing was logged at all: {log}");
    let second = second["access_token"].as_str().unwrap();
    for secret in [PASSWORD, "another hushed one", "hush-hush", &alice.token, second, refresh, "a wrong one"]
    {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is in the log: {line:?}");
    }
}
