//! Rows 67 to 72 and 74: the directory of people and rooms of the whole network.

mod infos;
mod people;
mod questions;
mod rooms;

use std::time::Duration;

use axum::{Router, body::Body};
use chappe_rules::build::SigningKey;
use chappe_world::{Fake, FakeNet, World};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use ruma::{CanonicalJsonObject, ServerName, UserId};
use serde_json::{Value, json};
use tokio::time::{advance, pause, resume};
use tower::ServiceExt;

use super::{Place, User, forum, server_with, text};

const SEARCH: &str = "/user_directory/search";
const PEOPLE: &str = "/_matrix/federation/unstable/org.matrix.msc4258/user_directory/search";
const OLD_PEOPLE: &str = "/_matrix/federation/unstable/fr.tchap/user_directory/search";
const INFOS: &str = "/_matrix/federation/unstable/users/info";
const MANY: &str = "/_matrix/client/unstable/users/info";

fn key() -> SigningKey {
    SigningKey::from_seed([7; 32], "k").unwrap()
}

/// What servers of a closed network say, which `p.test` and the external `x.test` belong to with a key of the test.
fn closed(more: &str) -> String {
    let key = key().public_base64();
    format!(
        r#"
[federation]
allow = ["a.test", "b.test", "e.test", "h.test", "p.test", "x.test"]
[federation.pinned_keys]
"p.test" = {{ "ed25519:k" = "{key}" }}
"x.test" = {{ "ed25519:k" = "{key}" }}
{more}
"#
    )
}

async fn member(net: &FakeNet, name: &str) -> Place {
    server_with(net, name, &closed("")).await
}

/// The same, where accounts end: nobody is there yet to be given a first end.
async fn ending(net: &FakeNet, name: &str) -> Place {
    let place = server_with(net, name, &closed("[accounts.validity]\ndays = 100")).await;
    while place.accounts.enrol_some().await.unwrap() {}
    place
}

/// Asks `place` as the server `origin`, with a signature.
async fn ask(place: &Place, origin: &str, path: &str, body: Value) -> (StatusCode, Value) {
    let said = json!({
        "method": "POST", "uri": path, "origin": origin, "destination": "a.test", "content": body,
    });
    let mut said: CanonicalJsonObject = serde_json::from_value(said).unwrap();
    key().sign_json(&ServerName::parse(origin).unwrap(), &mut said);
    let said = serde_json::to_value(said).unwrap();
    let signature = said["signatures"][origin]["ed25519:k"].as_str().unwrap();
    let header =
        format!("X-Matrix origin=\"{origin}\",destination=\"a.test\",key=\"ed25519:k\",sig=\"{signature}\"");
    let request =
        Request::post(path).header(header::AUTHORIZATION, header).body(Body::from(body.to_string()));
    let (parts, body) = place.router.clone().oneshot(request.unwrap()).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts.status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// Turns all clocks forward.
async fn later(by: Duration) {
    pause();
    advance(by).await;
    resume();
}

/// Something else on the network than a server of ours.
fn stranger(net: &FakeNet, name: &str, router: Router) -> World {
    let world = World::fake(Fake::new(name, 9, net));
    net.route(name, &world, router);
    world
}

impl User<'_> {
    async fn finds(&self, term: &str) -> Vec<String> {
        ids(&self.ok("POST", SEARCH, json!({ "search_term": term })).await)
    }

    async fn is_called(&self, name: &str) {
        self.ok("PUT", &format!("/profile/{}/displayname", self.id), json!({ "displayname": name })).await;
    }

    async fn wishes(&self, kind: &str, content: Value) {
        self.ok("PUT", &format!("/user/{}/account_data/{kind}", self.id), content).await;
    }

    /// The names of all public rooms of the network, or of those that a term finds.
    async fn forums(&self, term: &str) -> Vec<String> {
        let body = json!({ "include_all_networks": true, "filter": { "generic_search_term": term } });
        names(&self.ok("POST", "/publicRooms", body).await)
    }

    fn account(&self) -> ruma::OwnedUserId {
        UserId::parse(&self.id).unwrap()
    }
}

fn ids(found: &Value) -> Vec<String> {
    found["results"].as_array().unwrap().iter().map(|found| text(&found["user_id"])).collect()
}

fn names(page: &Value) -> Vec<String> {
    page["chunk"].as_array().unwrap().iter().map(|room| text(&room["name"])).collect()
}

fn named(name: &str) -> Value {
    let mut request = forum();
    (request["name"], request["room_version"]) = (json!(name), json!("11"));
    request
}

#[tokio::test]
async fn elsewhere_there_is_no_directory_of_a_network() {
    let net = FakeNet::new();
    let pinned = closed("").replace("allow = ", "# ");
    let plain = closed("");
    let places = [
        // With the rules of the network, but open to the world; closed, but without them.
        server_with(&net, "a.test", &pinned).await,
        Place::start(&net, "a.test", &plain).await,
    ];
    for place in &places {
        let (alice, _) = (place.user("alice").await, place.user("martin").await);
        assert_eq!(alice.finds("martin").await, Vec::<String>::new());
        for (method, path) in [("POST", MANY), ("GET", "/_matrix/client/unstable/user/@alice:a.test/info")] {
            let body = if method == "POST" { json!({ "user_ids": [alice.id] }) } else { Value::Null };
            let (status, said) = alice.call(method, path, body).await;
            assert_eq!((status.as_u16(), &said["errcode"]), (404, &json!("M_UNRECOGNIZED")), "{path}");
        }
        for path in [PEOPLE, OLD_PEOPLE, INFOS] {
            let body = json!({ "requester": "@p:p.test", "search_term": "martin", "user_ids": [] });
            let (status, said) = ask(place, "p.test", path, body).await;
            assert_eq!((status.as_u16(), &said["errcode"]), (404, &json!("M_UNRECOGNIZED")), "{path}");
        }
    }
}
