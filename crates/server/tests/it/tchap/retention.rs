//! Row 90: what was said in a room goes, on every server of the network, when its time is over.

use std::time::Duration;

use chappe_world::FakeNet;
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    eventually,
    ministry::{Agent, DAY, Ministry},
    text,
};

const NETWORK: &str = r#"
[identity]
profile = "agents"
[rooms.access]
externals = ["e.gouv.fr"]
[rooms.retention]
minimum_days = 1
maximum_days = 365
"#;
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const SLIDING: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";

async fn two(net: &FakeNet) -> (Ministry, Ministry) {
    (Ministry::on(net, "a.gouv.fr", NETWORK).await, Ministry::on(net, "b.gouv.fr", NETWORK).await)
}

async fn ok(server: &Ministry, who: &Agent, method: &str, path: &str, body: Value) -> Value {
    server.call(&who.token, method, path, body).await.ok()
}

/// Sends an event; gives its id.
async fn send(server: &Ministry, who: &Agent, room: &str, content: Value) -> String {
    let txn = server.world.token(8);
    let path = format!("/rooms/{room}/send/m.room.message/{txn}");
    text(&ok(server, who, "PUT", &path, content).await["event_id"])
}

async fn say(server: &Ministry, who: &Agent, room: &str, body: &str) -> String {
    send(server, who, room, json!({ "msgtype": "m.text", "body": body })).await
}

/// Uploads something; gives its id.
async fn upload(server: &Ministry, who: &Agent, what: &str) -> String {
    let said = ok(server, who, "POST", "/_matrix/media/v3/upload", json!(what)).await;
    text(&said["content_uri"]).rsplit_once('/').unwrap().1.to_owned()
}

async fn has_file(server: &Ministry, who: &Agent, id: &str) -> bool {
    let path = format!("/_matrix/client/v1/media/download/a.gouv.fr/{id}");
    server.call(&who.token, "GET", &path, Value::Null).await.status == StatusCode::OK
}

/// Lets time pass until a file is not there any more.
async fn file_goes(server: &Ministry, who: &Agent, id: &str) {
    for _ in 0..200 {
        if !has_file(server, who, id).await {
            return;
        }
        server.later(10 * MINUTE).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("the file stays");
}

fn bodies(events: &Value) -> Vec<String> {
    let events = events.as_array().into_iter().flatten();
    events.filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

/// What a user finds in a room, the newest first, page by page to the end of its history.
async fn history(server: &Ministry, who: &Agent, room: &str) -> Vec<String> {
    let (mut found, mut from) = (Vec::new(), String::new());
    for _ in 0..50 {
        let path = format!("/rooms/{room}/messages?dir=b&limit=4{from}");
        let page = ok(server, who, "GET", &path, Value::Null).await;
        found.extend(bodies(&page["chunk"]));
        match page["end"].as_str() {
            Some(end) => from = format!("&from={end}"),
            None => return found,
        }
    }
    unreachable!("the history has no end");
}

/// What a new device is shown of a room, and how much of it is unread.
async fn synced(server: &Ministry, who: &Agent, room: &str) -> (Vec<String>, u64) {
    let said = ok(server, who, "GET", "/sync?timeout=0", Value::Null).await;
    let joined = &said["rooms"]["join"][room];
    let unread = joined["unread_notifications"]["notification_count"].as_u64().unwrap();
    (bodies(&joined["timeline"]["events"]), unread)
}

async fn slid(server: &Ministry, who: &Agent, room: &str) -> Vec<String> {
    let list = json!({ "ranges": [[0, 9]], "timeline_limit": 20, "required_state": [] });
    let said = ok(server, who, "POST", SLIDING, json!({ "lists": { "all": list } })).await;
    bodies(&said["rooms"][room]["timeline"])
}

async fn found(server: &Ministry, who: &Agent, term: &str) -> u64 {
    let body = json!({ "search_categories": { "room_events": { "search_term": term } } });
    let said = ok(server, who, "POST", "/search", body).await;
    said["search_categories"]["room_events"]["count"].as_u64().unwrap()
}

#[tokio::test]
async fn row_90_what_was_said_is_gone_on_all_servers() {
    for version in ["1", "11"] {
        let net = FakeNet::new();
        let (mut a, b) = two(&net).await;
        let (alice, bob) = (a.agent("alice").await, b.agent("bob").await);
        let forum = json!({ "preset": "public_chat", "visibility": "public", "room_version": version });
        let room = text(&ok(&a, &alice, "POST", "/createRoom", forum).await["room_id"]);
        ok(&b, &bob, "POST", &format!("/join/{room}?server_name=a.gouv.fr"), json!({})).await;
        let file = upload(&a, &alice, "a picture").await;
        let old = say(&a, &alice, &room, "ancient").await;
        let image =
            json!({ "msgtype": "m.image", "body": "image", "url": format!("mxc://a.gouv.fr/{file}") });
        let image = send(&a, &alice, &room, image).await;
        let reply = json!({ "msgtype": "m.text", "body": "ancient reply",
            "m.relates_to": { "rel_type": "m.thread", "event_id": old } });
        send(&a, &alice, &room, reply).await;
        eventually("three messages", async || history(&b, &bob, &room).await.len() == 3).await;
        assert_eq!(synced(&b, &bob, &room).await.1, 3);
        assert!(has_file(&b, &bob, &file).await, "version {version}: kept there as well");
        eventually("an index", async || found(&a, &alice, "ancient").await == 2).await;
        a.later(89 * DAY).await;
        say(&b, &bob, &room, "young").await;
        eventually("the young one", async || history(&a, &alice, &room).await.len() == 4).await;
        a.later(DAY + MINUTE).await;

        // Hidden at once, before anything is taken away.
        let old_path = format!("/rooms/{room}/event/{old}");
        for (server, who) in [(&a, &alice), (&b, &bob)] {
            assert_eq!(history(server, who, &room).await, ["young"], "version {version}");
            assert_eq!(synced(server, who, &room).await.0, ["young"]);
            assert_eq!(slid(server, who, &room).await, ["young"]);
            assert_eq!(found(server, who, "ancient").await, 0);
            for path in [
                old_path.clone(),
                format!("/rooms/{room}/context/{image}"),
                format!("/_matrix/client/v1/rooms/{room}/relations/{old}"),
            ] {
                server.call(&who.token, "GET", &path, Value::Null).await.refused(404, "M_NOT_FOUND");
            }
            let threads =
                ok(server, who, "GET", &format!("/_matrix/client/v1/rooms/{room}/threads"), Value::Null)
                    .await;
            assert_eq!(threads["chunk"], json!([]));
        }
        assert_eq!(synced(&b, &bob, &room).await.1, 0, "what is gone is not unread");
        let notified = ok(&b, &bob, "GET", "/notifications", Value::Null).await;
        assert!(bodies(&json!([notified["notifications"][0]["event"]])).is_empty(), "{notified}");

        // After a restart, too, it is taken off the disk, and the file with it.
        a.again(Duration::ZERO, |text| text).await;
        a.later(HOUR).await;
        file_goes(&a, &alice, &file).await;
        file_goes(&b, &bob, &file).await;

        // The room goes on, for those who were there and for who comes.
        a.later(90 * DAY).await;
        for (server, who) in [(&a, &alice), (&b, &bob)] {
            assert!(history(server, who, &room).await.is_empty());
        }
        let (carol, dave) = (a.agent("carol").await, b.agent("dave").await);
        ok(&a, &carol, "POST", &format!("/join/{room}"), json!({})).await;
        ok(&b, &dave, "POST", &format!("/join/{room}?server_name=a.gouv.fr"), json!({})).await;
        say(&b, &dave, &room, "from b").await;
        eventually("b is heard", async || history(&a, &carol, &room).await == ["from b"]).await;
        say(&a, &carol, &room, "from a").await;
        eventually("a is heard", async || history(&b, &bob, &room).await == ["from a", "from b"]).await;
        assert_eq!(synced(&a, &alice, &room).await.0, ["from b", "from a"]);
    }
}

#[tokio::test]
async fn row_90_a_plain_server_keeps_everything() {
    let server = Ministry::alone("").await;
    let alice = server.agent("alice").await;
    let retention = json!({ "type": "m.room.retention", "content": { "max_lifetime": 1000 } });
    let room = json!({ "initial_state": [retention] });
    let room = text(&ok(&server, &alice, "POST", "/createRoom", room).await["room_id"]);
    say(&server, &alice, &room, "kept").await;
    server.later(1_000 * DAY).await;
    assert_eq!(history(&server, &alice, &room).await, ["kept"]);
}

#[tokio::test]
async fn uploads_that_nobody_asks_for_go_but_for_pictures() {
    let server = Ministry::alone("[media]\nown_unused_days = 30").await;
    let alice = server.agent("alice").await;
    let mut ids = Vec::new();
    for what in ["picture of a user", "picture of a room", "asked for", "forgotten"] {
        ids.push(upload(&server, &alice, what).await);
    }
    let picture = json!({ "avatar_url": format!("mxc://a.gouv.fr/{}", ids[0]) });
    ok(&server, &alice, "PUT", &format!("/profile/{}/avatar_url", alice.id), picture).await;
    let picture = json!({ "url": format!("mxc://a.gouv.fr/{}", ids[1]) });
    let room = json!({ "initial_state": [{ "type": "m.room.avatar", "content": picture }] });
    ok(&server, &alice, "POST", "/createRoom", room).await;
    server.later(20 * DAY).await;
    assert!(has_file(&server, &alice, &ids[2]).await);
    server.later(11 * DAY).await;
    let uploads = async || {
        let path = format!("/_synapse/admin/v1/users/{}/media", alice.id);
        let admin = server.accounts.update_user(&alice.id, |user| user.admin = true).await;
        admin.unwrap();
        ok(&server, &alice, "GET", &path, Value::Null).await["total"].as_u64()
    };
    eventually("one upload goes", async || uploads().await == Some(3)).await;
    assert!(!has_file(&server, &alice, &ids[3]).await);
}
