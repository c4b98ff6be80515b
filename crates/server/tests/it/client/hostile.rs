//! Clients that mean harm, at the router: guessing, asking too much, looking into what is not theirs.

use serde_json::{Value, json};

use super::home::Home;

const STRICT: &str = "client.rates.login_by_account = { per_second = 0.0001, burst = 2 }\n\
                      client.rates.search = { per_second = 0.0001, burst = 2 }";

fn log_in(name: &str, kind: &str) -> Value {
    let identifier = match kind {
        "m.id.thirdparty" => json!({ "type": kind, "medium": "email", "address": name }),
        _ => json!({ "type": kind, "user": name }),
    };
    json!({ "type": "m.login.password", "password": "wrong", "identifier": identifier })
}

#[tokio::test]
async fn answers_to_log_ins_do_not_tell_who_exists() {
    let home = Home::with(STRICT).await;
    home.user("alice").await;
    for (name, kind) in [
        ("alice", "m.id.user"),
        ("nobody", "m.id.user"),
        ("@somebody:elsewhere.example", "m.id.user"),
        ("one@example.gouv.fr", "m.id.thirdparty"),
        ("two@example.gouv.fr", "m.id.thirdparty"),
    ] {
        for (status, errcode) in [(403, "M_FORBIDDEN"), (403, "M_FORBIDDEN"), (429, "M_LIMIT_EXCEEDED")] {
            home.call("", "POST", "/login", log_in(name, kind)).await.refused(status, errcode);
        }
    }
}

#[tokio::test]
async fn nobody_has_other_servers_asked_without_end() {
    let home = Home::with(STRICT).await;
    let ask = async |path: &str| home.call("", "GET", path, Value::Null).await.status.as_u16();
    // There is no federation here: what counts is that the third question is not put at all.
    assert_ne!(ask("/profile/@x:one.example").await, 429);
    assert_ne!(ask("/profile/@x:two.example/displayname").await, 429);
    for path in ["/profile/@x:three.example", "/profile/@x:three.example/avatar_url"] {
        assert_eq!(ask(path).await, 429, "{path}");
    }
    assert_eq!(ask("/directory/room/%23x:three.example").await, 429);
    assert_eq!(ask("/publicRooms?server=three.example").await, 429);
    assert_eq!(ask("/profile/@nobody:a.test").await, 404, "one's own users cost nobody else anything");
}

#[tokio::test]
async fn a_reset_of_nobodys_password_is_counted() {
    let home = Home::with("client.rates.registration = { per_second = 0.0001, burst = 2 }").await;
    let reset = json!({ "new_password": "a long enough one" });
    for status in [401, 401, 429] {
        let answer = home.call("", "POST", "/account/password", reset.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.json);
    }
}

#[tokio::test]
async fn a_stranger_gets_the_same_answer_whether_the_room_is_there_or_not() {
    let home = Home::new().await;
    let (alice, eve) = (home.user("alice").await, home.user("eve").await);
    let room = alice.room(json!({ "preset": "private_chat", "name": "secret" })).await;
    let event = alice.say(&room, "1", "secret").await;
    let open = eve.room(json!({ "preset": "public_chat" })).await;
    let questions = |room: &str| {
        [
            format!("GET /rooms/{room}/messages?dir=b"),
            format!("GET /rooms/{room}/state"),
            format!("GET /rooms/{room}/state/m.room.name"),
            format!("GET /rooms/{room}/members"),
            format!("GET /rooms/{room}/joined_members"),
            format!("GET /rooms/{room}/event/{event}"),
            format!("GET /rooms/{room}/context/{event}"),
            format!("GET /_matrix/client/v1/rooms/{room}/relations/{event}"),
            format!("GET /_matrix/client/v1/rooms/{room}/threads"),
            format!("GET /_matrix/client/v1/rooms/{room}/hierarchy"),
            format!("GET /_matrix/client/v1/room_summary/{room}"),
            format!("GET /_matrix/client/v1/rooms/{room}/timestamp_to_event?ts=0&dir=f"),
            format!("GET /rooms/{room}/aliases"),
            format!("POST /rooms/{room}/invite"),
            format!("POST /rooms/{room}/receipt/m.read/{event}"),
            format!("PUT /rooms/{room}/redact/{event}/r1"),
            format!("PUT /rooms/{room}/send/m.room.message/r2"),
            format!("PUT /rooms/{room}/state/m.room.topic"),
            format!("PUT /rooms/{room}/typing/{}", eve.id),
            format!("POST /rooms/{room}/upgrade"),
            format!("POST /rooms/{room}/report/{event}"),
        ]
    };
    let bodies = json!({
        "user_id": "@alice:a.test", "body": "x", "msgtype": "m.text", "topic": "x", "typing": true,
        "new_version": "11", "timeout": 1,
    });
    for (real, made_up) in questions(&room).iter().zip(questions("!nowhere:a.test")) {
        let ask = async |question: &str| {
            let (method, path) = question.split_once(' ').unwrap();
            let body = if method == "GET" { Value::Null } else { bodies.clone() };
            eve.call(method, path, body).await
        };
        let (real_answer, made_up_answer) = (ask(real).await, ask(&made_up).await);
        let code = real_answer.status.as_u16();
        assert!(code == 403 || code == 404, "{real}: {code} {}", real_answer.json);
        assert!(!real_answer.json.to_string().contains("secret"), "{real}: {}", real_answer.json);
        let other = made_up_answer.status.as_u16();
        assert!(other == 403 || other == 404, "{made_up}: {other} {}", made_up_answer.json);
    }
    // An event of another room under a room that one is in.
    for path in [
        format!("/rooms/{open}/event/{event}"),
        format!("/rooms/{open}/context/{event}"),
        format!("/_matrix/client/v1/rooms/{open}/relations/{event}"),
    ] {
        eve.get(&path).await.refused(404, "M_NOT_FOUND");
    }
    let redact = eve.put(&format!("/rooms/{open}/redact/{event}/r3"), json!({})).await;
    assert!(redact.status.as_u16() != 500, "{}", redact.json);
    let still = alice.get(&format!("/rooms/{room}/event/{event}")).await.ok();
    assert_eq!(still["content"]["body"], "secret", "redacted from another room");
}

#[tokio::test]
async fn what_belongs_to_another_user_is_refused() {
    let home = Home::new().await;
    let (alice, eve) = (home.user("alice").await, home.user("eve").await);
    let id = &alice.id;
    for (method, path) in [
        ("GET", format!("/user/{id}/account_data/m.direct")),
        ("PUT", format!("/user/{id}/account_data/m.direct")),
        ("GET", format!("/user/{id}/rooms/!r:a.test/tags")),
        ("PUT", format!("/user/{id}/rooms/!r:a.test/tags/x")),
        ("POST", format!("/user/{id}/filter")),
        ("GET", format!("/user/{id}/filter/0")),
        ("PUT", format!("/profile/{id}/displayname")),
        ("PUT", format!("/presence/{id}/status")),
        ("PUT", format!("/rooms/!r:a.test/typing/{id}")),
    ] {
        let body = match method {
            "GET" => Value::Null,
            "POST" => json!({}),
            _ if path.starts_with("/profile") => json!({ "displayname": "Eve" }),
            _ => json!({ "presence": "online", "typing": true }),
        };
        let answer = eve.call(method, &path, body).await;
        assert_eq!((answer.status.as_u16(), &answer.json["errcode"]), (403, &json!("M_FORBIDDEN")), "{path}");
    }
    let device = &alice.device;
    for (method, path) in [("GET", format!("/devices/{device}")), ("PUT", format!("/devices/{device}"))] {
        let body = if method == "GET" { Value::Null } else { json!({ "display_name": "mine" }) };
        eve.call(method, &path, body).await.refused(404, "M_NOT_FOUND");
    }
    let stolen = json!({ "device_keys": {
        "user_id": id, "device_id": eve.device, "algorithms": [], "keys": {}, "signatures": {} } });
    assert_eq!(eve.post("/keys/upload", stolen).await.status.as_u16(), 400);
    eve.get(&format!("/_matrix/client/v3/admin/whois/{id}")).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn one_user_asks_so_much_and_no_more() {
    let home = Home::with("client.rates.request = { per_second = 0.0001, burst = 2 }").await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    for _ in 0..2 {
        alice.get("/account/whoami").await.ok();
    }
    alice.get("/sync?timeout=0").await.refused(429, "M_LIMIT_EXCEEDED");
    alice
        .put("/presence/@alice:a.test/status", json!({ "presence": "online" }))
        .await
        .refused(429, "M_LIMIT_EXCEEDED");
    bob.get("/account/whoami").await.ok();
    alice.post("/logout", json!({})).await.ok();
}

#[tokio::test]
async fn what_others_are_woken_by_is_counted() {
    let rates = ["signal", "to_device", "device"]
        .map(|rate| format!("client.rates.{rate} = {{ per_second = 0.0001, burst = 2 }}"));
    let home = Home::with(&rates.join("\n")).await;
    let alice = home.user("alice").await;
    let room = alice.room(json!({})).await;
    let event = alice.say(&room, "1", "hello").await;
    let typing = format!("/rooms/{room}/typing/{}", alice.id);
    alice.put(&typing, json!({ "typing": true, "timeout": 1000 })).await.ok();
    let receipt = format!("/rooms/{room}/receipt/m.read/{event}");
    alice.post(&receipt, json!({})).await.ok();
    alice.put(&typing, json!({ "typing": false })).await.refused(429, "M_LIMIT_EXCEEDED");
    alice.post(&receipt, json!({})).await.refused(429, "M_LIMIT_EXCEEDED");
    let markers = json!({ "m.fully_read": event });
    alice.post(&format!("/rooms/{room}/read_markers"), markers).await.refused(429, "M_LIMIT_EXCEEDED");
    let presence = format!("/presence/{}/status", alice.id);
    alice.put(&presence, json!({ "presence": "online" })).await.refused(429, "M_LIMIT_EXCEEDED");
    alice.say(&room, "2", "messages are counted apart").await;

    let device = format!("/devices/{}", alice.device);
    for name in ["one", "two"] {
        alice.put(&device, json!({ "display_name": name })).await.ok();
    }
    alice.put(&device, json!({ "display_name": "three" })).await.refused(429, "M_LIMIT_EXCEEDED");
    let keys = json!({ "device_keys": { "user_id": alice.id, "device_id": alice.device,
        "algorithms": [], "keys": {}, "signatures": {} } });
    alice.post("/keys/upload", keys).await.refused(429, "M_LIMIT_EXCEEDED");
    alice.post("/keys/upload", json!({})).await.ok();

    for txn in ["1", "2"] {
        alice.put(&format!("/sendToDevice/x.test/{txn}"), json!({ "messages": {} })).await.ok();
    }
    let third = alice.put("/sendToDevice/x.test/3", json!({ "messages": {} })).await;
    third.refused(429, "M_LIMIT_EXCEEDED");
}
