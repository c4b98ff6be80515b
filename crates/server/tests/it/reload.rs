//! The configuration is read again while the server runs.

use std::{collections::BTreeSet, time::Duration};

use chappe_admin::{Configuration, Verb};
use chappe_kv::{Db, Memory};
use chappe_server::{
    House,
    config::{self, Api},
};
use chappe_world::{Fake, FakeNet, World};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{host, lab::Lab, sign_up};

/// A server whose file is changed, and somebody on it.
struct Office {
    lab: Lab,
    password: String,
    token: String,
}

impl Office {
    async fn open(more: &str) -> Self {
        let lab = Lab::start(more).await;
        let made = lab.admin(&["--json", "users", "create", "alice"]).await.unwrap();
        let made: Value = serde_json::from_str(&made).unwrap();
        let password = made["password"].as_str().unwrap().to_owned();
        let user = json!({ "type": "m.id.user", "user": "alice" });
        let body = json!({ "type": "m.login.password", "password": password, "identifier": user });
        let (status, session) = lab.http().post("/_matrix/client/v3/login", body).await;
        assert_eq!(status, StatusCode::OK, "{session}");
        let token = session["access_token"].as_str().unwrap().to_owned();
        Self { lab, password, token }
    }

    /// Writes `to` into the file in place of `from`, or behind all else.
    fn write(&self, from: &str, to: &str) {
        let file = self.lab.folder.path().join("chappe.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let text = if from.is_empty() {
            format!("{text}\n{to}\n")
        } else {
            assert!(text.contains(from), "{text}");
            text.replace(from, to)
        };
        std::fs::write(file, text).unwrap();
    }

    /// Has the server read its file; which keys hold now, and which from the next start on.
    async fn reload(&self) -> (Value, Value) {
        let said = self.lab.admin(&["--json", "config", "reload"]).await.unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        (said["applied"].clone(), said["next_start"].clone())
    }

    /// The same where it is refused: why.
    async fn refused(&self) -> String {
        let reload = Verb::Config(Configuration::Reload);
        self.lab.server.house().admin.run(reload).await.unwrap_err().to_string()
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let path = format!("/_matrix/client/v3{path}");
        self.lab.http().call(method, &path, Some(&self.token), body).await
    }

    async fn make_room(&self, request: Value) -> (StatusCode, Value) {
        self.call(Method::POST, "/createRoom", request).await
    }
}

#[tokio::test]
async fn who_signs_up_with_what_password_changes_at_once() {
    let office = Office::open("[http]\nbody_limit = 100000").await;
    let http = office.lab.http();
    assert_eq!(office.reload().await, (json!([]), json!([])));
    let change = async |password: &str| {
        let user = json!({ "type": "m.id.user", "user": "alice" });
        let auth =
            json!({ "type": "m.login.password", "identifier": user, "password": office.password.clone() });
        let body = json!({ "new_password": password, "logout_devices": false, "auth": auth });
        office.call(Method::POST, "/account/password", body).await
    };
    let begin = json!({ "password": "correct horse battery" });
    let (status, _) = http.post(sign_up::REGISTER, begin.clone()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "by a mail");

    office.write("email = true", "email = false");
    office.write("body_limit = 100000", "body_limit = 200000");
    office
        .write("", "[accounts.password.policy]\nminimum_length = 40\n[accounts]\nreserved_names = [\"bob\"]");
    let (applied, next_start) = office.reload().await;
    assert_eq!(
        applied,
        json!([
            "accounts.password.policy.minimum_length",
            "accounts.reserved_names",
            "client.registration.email"
        ])
    );
    assert_eq!(next_start, json!(["http.body_limit"]));
    let (status, said) = change("far too short").await;
    assert_eq!(
        (status, &said["errcode"]),
        (StatusCode::BAD_REQUEST, &json!("M_PASSWORD_TOO_SHORT")),
        "{said}"
    );
    let (_, policy) = http.get("/_matrix/client/v3/password_policy", None).await;
    assert_eq!(policy["m.minimum_length"], 40);
    let (status, said) = http.post(sign_up::REGISTER, begin).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{said}");

    // What waits is named until the next start, and what is taken back waits no more.
    assert_eq!(office.reload().await, (json!([]), json!(["http.body_limit"])));
    office.write("body_limit = 200000", "body_limit = 100000");
    office.write("minimum_length = 40", "minimum_length = 8");
    assert_eq!(office.reload().await, (json!(["accounts.password.policy.minimum_length"]), json!([])),);
    assert_eq!(change("no longer too short").await.0, StatusCode::OK);
    let reserved = office.lab.admin(&["users", "create", "bob"]).await.unwrap_err();
    assert!(!reserved.contains("password"), "{reserved}");
    office.lab.stop().await;
}

#[tokio::test]
async fn rules_and_lifetimes_of_rooms_change_at_once() {
    let office = Office::open("").await;
    let lifetime = json!({ "type": "m.room.retention", "content": { "max_lifetime": 1 } });
    let (status, room) = office.make_room(json!({ "initial_state": [lifetime] })).await;
    assert_eq!(status, StatusCode::OK, "{room}");
    let room = room["room_id"].as_str().unwrap();
    let said = json!({ "msgtype": "m.text", "body": "said" });
    let path = format!("/rooms/{room}/send/m.room.message/1");
    let (status, event) = office.call(Method::PUT, &path, said).await;
    assert_eq!(status, StatusCode::OK, "{event}");
    let path = format!("/rooms/{room}/event/{}", event["event_id"].as_str().unwrap());
    let shown = async || office.call(Method::GET, &path, Value::Null).await.0;
    assert_eq!(shown().await, StatusCode::OK);

    office.write("", "[rooms.retention]\n[rooms.access]\nexternals = [\"agent.example.gouv.fr\"]");
    assert_eq!(office.reload().await.0, json!(["rooms.access.externals", "rooms.retention"]));
    assert_eq!(shown().await, StatusCode::NOT_FOUND, "it expired long ago");
    let (status, refused) = office.make_room(json!({})).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "externals make no rooms: {refused}");

    // An empty section says something, and none says something else.
    office.write("[rooms.retention]\n", "");
    office.write("[\"agent.example.gouv.fr\"]", "[]");
    assert_eq!(office.reload().await.0, json!(["rooms.access.externals", "rooms.retention"]));
    let path = format!("/rooms/{room}/send/m.room.message/2");
    let (_, event) = office.call(Method::PUT, &path, json!({ "msgtype": "m.text", "body": "kept" })).await;
    let path = format!("/rooms/{room}/event/{}", event["event_id"].as_str().unwrap());
    assert_eq!(office.call(Method::GET, &path, Value::Null).await.0, StatusCode::OK);
    assert_eq!(office.make_room(json!({})).await.0, StatusCode::OK);
    office.lab.stop().await;
}

#[tokio::test]
async fn accounts_begin_to_end_and_servers_to_be_let_in() {
    let office = Office::open("[federation]\nallow = [\"a.example\"]").await;
    let lab = &office.lab;
    office.write("a.example", "b.example");
    office.write("", "[accounts.validity]\ndays = 30\nmail_days_before = []");
    assert_eq!(
        office.reload().await.0,
        json!(["accounts.validity.days", "accounts.validity.mail_days_before", "federation.allow"])
    );
    let servers = lab.admin(&["servers", "list"]).await.unwrap();
    assert!(servers.contains("b.example") && !servers.contains("a.example"), "{servers}");
    let mut ends = Value::Null;
    for _ in 0..200 {
        let said = lab.admin(&["--json", "users", "validity", "alice"]).await.unwrap();
        ends = serde_json::from_str::<Value>(&said).unwrap()["expiration_ts"].clone();
        if ends.is_u64() {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert!(ends.is_u64(), "nobody who was here before has an end");
    lab.admin(&["users", "validity", "alice", "--days", "0"]).await.unwrap();
    let (status, said) = office.call(Method::GET, "/account/whoami", Value::Null).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{said}");

    office.write("days = 30", "days = 0");
    office.reload().await;
    assert_eq!(office.call(Method::GET, "/account/whoami", Value::Null).await.0, StatusCode::OK);
    office.lab.stop().await;
}

#[tokio::test]
async fn a_wrong_file_changes_nothing_and_is_named_without_what_it_says() {
    let office = Office::open("[accounts]\nreserved_names = [\"one\"]").await;
    let policy = async || office.lab.http().get("/_matrix/client/v3/password_policy", None).await.1;
    let before = policy().await;
    office.write("", "[accounts.password.policy]\nminimum_length = 40\nminimum_strength = \"hunter2\"");
    let file = std::fs::read_to_string(office.lab.folder.path().join("chappe.toml")).unwrap();
    let line = file.lines().position(|line| line.contains("hunter2")).unwrap() + 1;
    let said = office.refused().await;
    let place = format!("chappe.toml, line {line}: `accounts.password.policy.minimum_strength`: ");
    assert!(said.contains(&place) && !said.contains("hunter2"), "{said}");
    assert_eq!(policy().await, before);
    let seen = office.lab.admin(&["config", "reload"]).await.unwrap_err();
    assert!(seen.contains(&place) && seen.contains("hunter2"), "who may read the file is shown it: {seen}");

    office.write("\"hunter2\"", "0");
    office.write(
        "from = \"no-reply@example.gouv.fr\"",
        "from = \"no-reply@example.gouv.fr\"\ntemplates = \"/nowhere\"",
    );
    let said = office.refused().await;
    assert!(said.contains("/nowhere"), "a file that is named and not there: {said}");
    assert_eq!(policy().await, before);

    office.write("\ntemplates = \"/nowhere\"", "");
    office.write("server_name = \"agent.", "server_name = \"other.");
    let said = office.refused().await;
    assert!(said.contains("`server_name` cannot be changed"), "{said}");
    assert_eq!(policy().await, before);
    office.write("server_name = \"other.", "server_name = \"agent.");

    office.lab.server.reload().await;
    assert_eq!(policy().await["m.minimum_length"], 40, "by the signal");
    let entries = office.lab.admin(&["audit", "list"]).await.unwrap();
    assert!(entries.contains("reload") && entries.contains("stays as it was"), "{entries}");
    assert!(!entries.contains("hunter2"), "{entries}");
    office.lab.stop().await;
}

#[tokio::test]
async fn presence_that_is_switched_on_is_told_to_other_servers() {
    let (net, apis) = (FakeNet::new(), [Api::Client, Api::Federation]);
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let text = host::configuration("b.test", there.path(), "");
    let (_other, other, _) = host::place(&net, ("b.test", 2), &text, &apis).await;
    let file = here.path().join("chappe.toml");
    let text = host::configuration("a.test", here.path(), "[delivery]\npresence = false");
    std::fs::write(&file, &text).unwrap();
    let config = config::load(Some(&file), std::iter::empty()).unwrap();
    let world = World::fake(Fake::new("a.test", 1, &net));
    let house = House::build(&config, world.clone(), Db::new(Memory::default())).await.unwrap();
    house.start();
    let own = house.router(&BTreeSet::from(apis));
    net.route("a.test", &world, own.clone());
    let (alice, bob) = (host::sign_up(&own, "alice").await, host::sign_up(&other, "bob").await);
    let path = format!("/presence/{}/status", alice["user_id"].as_str().unwrap());
    let [alice, bob] = [&alice, &bob].map(|session| session["access_token"].as_str().unwrap());
    let create = json!({ "preset": "public_chat" });
    let made = host::call(&own, alice, ("POST", "/createRoom"), create).await.ok();
    let join = format!("/join/{}?via=a.test", made["room_id"].as_str().unwrap());
    host::call(&other, bob, ("POST", join.as_str()), json!({})).await.ok();
    let appear =
        async || host::call(&own, alice, ("PUT", path.as_str()), json!({ "presence": "online" })).await;
    appear().await.refused(403, "M_FORBIDDEN");

    std::fs::write(&file, text.replace("presence = false", "presence = true")).unwrap();
    house.admin.run(Verb::Config(Configuration::Reload)).await.unwrap();
    let heard = async {
        loop {
            // Of users of other servers those are remembered whom somebody who syncs can see.
            host::call(&other, bob, ("GET", "/sync"), Value::Null).await;
            appear().await;
            let seen = host::call(&other, bob, ("GET", path.as_str()), Value::Null).await;
            if seen.json["presence"] == "online" {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(host::PATIENCE, heard).await.expect("the other server hears of it");
}
