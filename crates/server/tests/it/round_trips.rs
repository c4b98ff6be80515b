//! How many storage round trips each operation makes, on assembled servers: the table beside this file may only fall.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use chappe_bench::segment;
use chappe_kv::{Counting, Db, Memory, RoundTrips};
use chappe_server::{
    House,
    config::{self, Api},
};
use chappe_world::{Fake, FakeNet, World};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

const TABLE: &str = include_str!("round_trips.txt");

/// A server in the process whose storage is counted.
struct Host {
    trips: Arc<RoundTrips>,
    clients: Router,
    _folder: TempDir,
}

impl Host {
    async fn new(name: &str, net: &FakeNet) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // How often members that follow behind are asked for depends on the moment.
        let text = include_str!("../simulation/host.toml")
            .replace("{name}", name)
            .replace("{data}", &folder.path().display().to_string())
            + "[rooms]\npartial_joins = false\n";
        let config = config::parse("host.toml", &text, std::iter::empty()).unwrap();
        let world = World::fake(Fake::new(name, 1, net));
        let trips = Arc::new(RoundTrips::default());
        let db = Db::new(Counting::new(Memory::default(), trips.clone()));
        let house = House::build(&config, world.clone(), db).await.unwrap();
        house.start();
        let [clients, peers] = [Api::Client, Api::Federation].map(|api| house.router(&BTreeSet::from([api])));
        net.route(name, &world, peers.into_service::<Full<bytes::Bytes>>());
        Self { trips, clients, _folder: folder }
    }

    async fn request(&self, method: &str, path: &str, token: &str, body: Value) -> Value {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("/_matrix/client/v3/{path}"))
            .header("authorization", format!("Bearer {token}"))
            .body(Body::from(if method == "GET" { String::new() } else { body.to_string() }))
            .unwrap();
        let response = self.clients.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let answer = serde_json::from_slice(&bytes).unwrap_or_default();
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
        answer
    }

    async fn user(&self, name: &str) -> User<'_> {
        let auth = json!({ "type": "m.login.dummy" });
        let body = json!({ "username": name, "password": "long enough", "auth": auth });
        let answer = self.request("POST", "register", "", body).await;
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        User { host: self, id: text("user_id"), token: text("access_token"), device: text("device_id") }
    }
}

struct User<'a> {
    host: &'a Host,
    id: String,
    token: String,
    device: String,
}

impl User<'_> {
    async fn post(&self, path: &str, body: Value) -> Value {
        self.host.request("POST", path, &self.token, body).await
    }

    async fn put(&self, path: &str, body: Value) -> Value {
        self.host.request("PUT", path, &self.token, body).await
    }

    async fn get(&self, path: &str) -> Value {
        self.host.request("GET", path, &self.token, Value::Null).await
    }

    async fn say(&self, room: &str, txn: &str) -> String {
        let path = format!("rooms/{}/send/m.room.message/{txn}", segment(room));
        let answer = self.put(&path, json!({ "msgtype": "m.text", "body": "x" })).await;
        answer["event_id"].as_str().unwrap().to_owned()
    }

    /// Syncs without waiting; gives the next token.
    async fn sync(&self, since: &str) -> String {
        let since = if since.is_empty() { String::new() } else { format!("&since={}", segment(since)) };
        let answer = self.get(&format!("sync?timeout=0{since}")).await;
        answer["next_batch"].as_str().unwrap().to_owned()
    }
}

/// Time stands still while anything is being done: when it goes on, everything is at rest.
async fn rest() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// What was measured, as it stands in the table.
#[derive(Default)]
struct Measured(String);

impl Measured {
    async fn of<T>(&mut self, what: &str, host: &Host, work: impl Future<Output = T>) -> T {
        rest().await;
        host.trips.take();
        let done = work.await;
        rest().await;
        let (asked, followed) = host.trips.take_apart();
        writeln!(
            self.0,
            "{what:<44}{:>6}{:>9}{:>12}{:>9}",
            asked.reads(),
            asked.commits,
            followed.reads(),
            followed.commits
        )
        .unwrap();
        done
    }
}

async fn in_one_house(measured: &mut Measured, one: &Host) {
    let (alice, bob) = (one.user("alice").await, one.user("bob").await);
    let login = json!({ "type": "m.login.password", "password": "long enough",
        "identifier": { "type": "m.id.user", "user": "alice" } });
    measured.of("log in", one, alice.post("login", login)).await;
    let create = json!({ "preset": "public_chat", "name": "Salon" });
    let room = measured.of("create a room", one, alice.post("createRoom", create)).await;
    let room = room["room_id"].as_str().unwrap();
    let at = format!("rooms/{}", segment(room));
    measured.of("join a room of this server", one, bob.post(&format!("{at}/join"), json!({}))).await;
    measured.of("initial sync, one room", one, bob.sync("")).await;
    alice.say(room, "warm").await;
    bob.say(room, "warm").await;
    measured.of("send", one, alice.say(room, "1")).await;
    let token = bob.sync("").await;
    measured.of("sync, nothing new", one, bob.sync(&token)).await;
    let event = alice.say(room, "2").await;
    let token = measured.of("sync, one new message", one, bob.sync(&token)).await;
    let receipt = format!("{at}/receipt/m.read/{}", segment(&event));
    measured.of("receipt", one, bob.post(&receipt, json!({}))).await;
    let token = measured.of("sync, one new receipt", one, bob.sync(&token)).await;
    let typing = format!("{at}/typing/{}", segment(&alice.id));
    measured.of("typing", one, alice.put(&typing, json!({ "typing": true, "timeout": 30000 }))).await;
    let token = measured.of("sync, somebody types", one, bob.sync(&token)).await;
    let messages = json!({ "messages": { &bob.id: { &bob.device: { "a": 1 } } } });
    measured.of("send to a device", one, alice.put("sendToDevice/x.test/1", messages)).await;
    let token = measured.of("sync, one message to the device", one, bob.sync(&token)).await;
    measured.of("sync after it, the message is deleted", one, bob.sync(&token)).await;
    let keys = json!({ "device_keys": { &bob.id: [] } });
    measured.of("query one user's keys", one, alice.post("keys/query", keys)).await;
    measured.of("a page of 10 messages", one, bob.get(&format!("{at}/messages?dir=b"))).await;
    measured
        .of("set a state event", one, alice.put(&format!("{at}/state/m.room.topic"), json!({ "topic": "t" })))
        .await;
    measured.of("leave a room", one, bob.post(&format!("{at}/leave"), json!({}))).await;
}

async fn between_houses(measured: &mut Measured, one: &Host, two: &Host) {
    let (anna, boris) = (one.user("anna").await, two.user("boris").await);
    let room = anna.post("createRoom", json!({ "preset": "public_chat" })).await;
    let room = room["room_id"].as_str().unwrap();
    let join = format!("join/{}?server_name=one.sim", segment(room));
    // Servers get to know each other's keys first.
    let other = anna.post("createRoom", json!({ "preset": "public_chat" })).await;
    let other = format!("join/{}?server_name=one.sim", segment(other["room_id"].as_str().unwrap()));
    boris.post(&other, json!({})).await;
    rest().await;
    two.trips.take();
    measured.of("a remote user joins, served", one, boris.post(&join, json!({}))).await;
    boris.say(room, "warm").await;
    measured.of("a transaction with one message, received", one, boris.say(room, "1")).await;
    measured.of("a message with one other server, sent", one, anna.say(room, "2")).await;
    let away = boris.post("createRoom", json!({ "preset": "public_chat" })).await;
    let away = format!("join/{}?server_name=two.sim", segment(away["room_id"].as_str().unwrap()));
    measured.of("join a room of another server", one, anna.post(&away, json!({}))).await;
}

/// Lines that differ, with what to do.
fn complaints(measured: &str) -> String {
    let numbers = |line: &str| -> Vec<u64> {
        line.get(44..).unwrap_or_default().split_whitespace().filter_map(|n| n.parse().ok()).collect()
    };
    let listed: Vec<&str> = TABLE.lines().filter(|line| !line.starts_with('#')).collect();
    let mut complaints = String::new();
    for line in measured.lines() {
        let name = line[..44].trim_end();
        let Some(known) = listed.iter().find(|known| known.get(..44).is_some_and(|n| n.trim_end() == name))
        else {
            writeln!(complaints, "not in round_trips.txt, add:\n{line}").unwrap();
            continue;
        };
        let (was, is) = (numbers(known), numbers(line));
        let rose = is.iter().zip(&was).any(|(is, was)| is > was);
        // What follows may take several commits at once, so its numbers are the most that is seen.
        if rose || is[..2] != was[..2] {
            let advice =
                if rose { "costs more than it did, bring it down" } else { "costs less, lower the table" };
            writeln!(complaints, "{name} {advice}:\n-{known}\n+{line}").unwrap();
        }
    }
    if complaints.is_empty() && listed.len() != measured.lines().count() {
        complaints.push_str("round_trips.txt lists what is not measured");
    }
    complaints
}

#[test]
fn round_trips_may_only_fall() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let measured = runtime.block_on(async {
        let net = FakeNet::new();
        let (one, two) = (Host::new("one.sim", &net).await, Host::new("two.sim", &net).await);
        let mut measured = Measured::default();
        in_one_house(&mut measured, &one).await;
        between_houses(&mut measured, &one, &two).await;
        measured.0
    });
    let complaints = complaints(&measured);
    assert!(complaints.is_empty(), "{complaints}\nmeasured:\n{measured}");
}
