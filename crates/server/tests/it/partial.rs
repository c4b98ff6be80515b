//! A room of another server that is joined before its members are here: what works meanwhile, and what comes then.

use axum::{Router, extract::Request, middleware};
use chappe_kv::{Db, Memory};
use chappe_server::config::Api;
use chappe_world::{Fake, FakeNet, World};
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::host::{self, PATIENCE};

const EAGER: &str = "{}";
const LAZY: &str = "%7B%22room%22:%7B%22state%22:%7B%22lazy_load_members%22:true%7D%7D%7D";

struct Place {
    router: Router,
    _folder: TempDir,
}

impl Place {
    /// A server that does not say who is in its rooms before `open` is true.
    async fn start(net: &FakeNet, name: &str, seed: u64, open: watch::Receiver<bool>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = host::configuration(name, folder.path(), "");
        let world = World::fake(Fake::new(name, seed, net));
        let apis = [Api::Client, Api::Federation];
        let (_, router) = host::build(&text, &world, &Db::new(Memory::default()), &apis).await;
        let gate = middleware::from_fn(move |request: Request, next: middleware::Next| {
            let mut open = open.clone();
            async move {
                if request.uri().path().contains("/state_ids/") {
                    open.wait_for(|open| *open).await.unwrap();
                }
                next.run(request).await
            }
        });
        net.route(name, &world, router.clone().layer(gate));
        Self { router, _folder: folder }
    }

    async fn user(&self, name: &str) -> User<'_> {
        let said = host::sign_up(&self.router, name).await;
        let text = |key: &str| said[key].as_str().unwrap().to_owned();
        User { place: self, id: text("user_id"), token: text("access_token") }
    }
}

struct User<'a> {
    place: &'a Place,
    id: String,
    token: String,
}

impl User<'_> {
    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = host::call(&self.place.router, &self.token, (method.as_str(), path), body).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
        answer.json
    }

    async fn say(&self, room: &str, text: &str) -> String {
        let body = json!({ "msgtype": "m.text", "body": text });
        let said = self.call(Method::PUT, &format!("/rooms/{room}/send/m.room.message/{text}"), body).await;
        said["event_id"].as_str().unwrap().to_owned()
    }

    /// The room in a first sync.
    async fn first(&self, room: &str, filter: &str) -> Value {
        let synced = self.call(Method::GET, &format!("/sync?filter={filter}"), Value::Null).await;
        synced["rooms"]["join"][room].clone()
    }

    /// The room in a first sync as soon as something holds of it.
    async fn sees(&self, room: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let looking = async {
            loop {
                let seen = self.first(room, LAZY).await;
                if holds(&seen) {
                    return seen;
                }
                sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, looking).await.expect("seen in time")
    }

    async fn finds(&self, term: &str) -> Vec<String> {
        let found = self.call(Method::POST, "/user_directory/search", json!({ "search_term": term })).await;
        let found = found["results"].as_array().unwrap().iter();
        found.map(|person| person["user_id"].as_str().unwrap().to_owned()).collect()
    }
}

fn has(events: &Value, holds: impl Fn(&Value) -> bool) -> bool {
    events["events"].as_array().is_some_and(|events| events.iter().any(holds))
}

#[tokio::test]
async fn whoever_joins_does_not_wait_for_the_members() {
    let net = FakeNet::new();
    let (gate, open) = watch::channel(false);
    let here = Place::start(&net, "a.test", 1, open.clone()).await;
    let there = Place::start(&net, "b.test", 2, open).await;
    let (alice, derek, rodolphe) =
        (here.user("alice").await, there.user("derek").await, there.user("rodolphe").await);
    let create = json!({ "preset": "public_chat", "name": "Salon" });
    let made = derek.call(Method::POST, "/createRoom", create).await;
    let room = made["room_id"].as_str().unwrap();
    rodolphe.call(Method::POST, &format!("/join/{room}"), json!({})).await;
    alice.call(Method::POST, &format!("/join/{room}?via=b.test"), json!({})).await;

    assert!(alice.first(room, EAGER).await.is_null(), "who wants all members waits for them");
    let said = derek.say(room, "hello").await;
    let seen = alice.sees(room, |seen| has(&seen["timeline"], |event| event["event_id"] == said)).await;
    assert!(has(&seen["state"], |event| event["state_key"] == derek.id), "who speaks is told: {seen}");
    let typing = json!({ "typing": true, "timeout": 30_000 });
    derek.call(Method::PUT, &format!("/rooms/{room}/typing/{}", derek.id), typing.clone()).await;
    rodolphe.call(Method::PUT, &format!("/rooms/{room}/typing/{}", rodolphe.id), typing).await;
    let typists = json!([derek.id, rodolphe.id]);
    alice.sees(room, |seen| has(&seen["ephemeral"], |event| event["content"]["user_ids"] == typists)).await;
    rodolphe.call(Method::POST, &format!("/rooms/{room}/receipt/m.read/{said}"), json!({})).await;
    let read = |event: &Value| !event["content"][&said]["m.read"][&rodolphe.id].is_null();
    alice.sees(room, |seen| has(&seen["ephemeral"], read)).await;
    assert!(alice.finds("rodolphe").await.is_empty());
    let synced = alice.call(Method::GET, &format!("/sync?filter={LAZY}"), Value::Null).await;
    let since = synced["next_batch"].as_str().unwrap();

    gate.send(true).unwrap();
    let members = alice.call(Method::GET, &format!("/rooms/{room}/members"), Value::Null).await;
    assert_eq!(members["chunk"].as_array().unwrap().len(), 3);
    for filter in [EAGER, LAZY] {
        let synced =
            alice.call(Method::GET, &format!("/sync?since={since}&filter={filter}"), Value::Null).await;
        let changed = synced["device_lists"]["changed"].as_array().unwrap();
        assert!(changed.contains(&json!(rodolphe.id)), "whom one meets when the members come: {synced}");
    }
    assert_eq!(alice.finds("rodolphe").await, [rodolphe.id]);
    assert!(has(&alice.first(room, EAGER).await["state"], |event| event["state_key"] == derek.id));
}
