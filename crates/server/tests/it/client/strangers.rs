//! Every endpoint that names a room, an event or somebody's things, asked by those who have no business there.
//!
//! `strangers.txt` says of each endpoint what a stranger gets. Whatever it is: nothing of what is hidden is in it, and nothing
//! changes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    dehydrated,
    home::{Answer, Home, User},
};

const LIST: &str = include_str!("strangers.txt");

/// Part of everything that strangers must not see.
const HIDDEN: &str = "HIDDEN";
/// The name of the room, which those who are invited may know.
const NAME: &str = "VEILED";

/// Rates at which nobody waits.
const UNLIMITED: [&str; 8] =
    ["request", "registration", "message", "join", "invite", "search", "upload", "login_by_ip"];

/// What somebody gets who has no business there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// 403 or 404, whoever asks, and for a stranger the same answer whether what is named is there or not.
    Closed,
    /// 403 or 404, whoever asks.
    Refused,
    /// 403 or 404 for a stranger; those who are invited may.
    Enter,
    /// The same, but for those who are invited.
    Invited,
    /// The same for a stranger; those who were there get what they may know, those who are invited perhaps.
    Past,
    /// An answer about the one who asks.
    Own,
    /// An answer that everybody gets, of what is there.
    Open,
    /// Nothing of anybody is named.
    Nothing,
}

/// A line of the list.
struct Line {
    rule: Rule,
    /// What follows the path.
    query: &'static str,
}

fn list() -> BTreeMap<String, Line> {
    let line = |line: &'static str| {
        let (rule, rest) = line.split_once(' ').unwrap();
        let (method, address) = rest.split_once(' ').unwrap();
        let rule = match rule {
            "closed" => Rule::Closed,
            "refused" => Rule::Refused,
            "enter" => Rule::Enter,
            "invited" => Rule::Invited,
            "past" => Rule::Past,
            "own" => Rule::Own,
            "open" => Rule::Open,
            "nothing" => Rule::Nothing,
            other => unreachable!("{other}"),
        };
        let (path, query) = address.split_once('?').unwrap_or((address, ""));
        (format!("{method} {path}"), Line { rule, query })
    };
    LIST.lines().filter(|text| !text.is_empty() && !text.starts_with('#')).map(line).collect()
}

/// A path without the version that it is of: `rooms/{room_id}/send`.
fn shape(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').collect();
    let ["", "_matrix", api, version, rest @ ..] = &segments[..] else { return path.to_owned() };
    let rest = match rest {
        [] => &[*version],
        // Names of proposals, such as `org.matrix.msc4140`.
        [proposal, rest @ ..] if *version == "unstable" && proposal.contains('.') => rest,
        rest => rest,
    };
    if *api == "client" { rest.join("/") } else { format!("{api}/{}", rest.join("/")) }
}

/// All endpoints: what the list says of them under, and method and path.
fn endpoints() -> Vec<(String, String, String)> {
    let (client, media) = (chappe_client_api::routes(), chappe_client_api::media_routes());
    let routes = client.table().iter().chain(media.table());
    let known = |route: &chappe_web::Route| {
        let listed = format!("{} {}", route.method, shape(&route.path));
        (listed, route.method.clone(), route.path.clone())
    };
    routes.map(known).collect()
}

#[test]
fn every_endpoint_says_what_a_stranger_gets() {
    let listed: BTreeSet<String> = list().into_keys().collect();
    let there: BTreeSet<String> = endpoints().into_iter().map(|(listed, ..)| listed).collect();
    let (new, gone): (Vec<_>, Vec<_>) =
        (there.difference(&listed).collect(), listed.difference(&there).collect());
    assert!(new.is_empty() && gone.is_empty(), "not listed: {new:#?}\nlisted, but gone: {gone:#?}");
}

/// What the parameters of a path stand for.
struct Names {
    room: String,
    event: String,
    user: String,
    device: String,
    filter: String,
    version: String,
    alias: String,
    media: String,
}

impl Names {
    /// What nobody ever made.
    fn made_up() -> Self {
        Self {
            room: "!nowhere:a.test".into(),
            event: format!("${}", "A".repeat(43)),
            user: "@nobody:a.test".into(),
            device: "NODEVICE".into(),
            filter: "99".into(),
            version: "99".into(),
            alias: "%23nowhere:a.test".into(),
            media: "nothing".into(),
        }
    }

    fn fill(&self, path: &str) -> String {
        let part = |segment: &str| {
            let value = match segment {
                "{room_id}" | "{room_id_or_alias}" => &self.room,
                "{event_id}" | "{thread_root}" => &self.event,
                "{user_id}" => &self.user,
                "{device_id}" => &self.device,
                "{filter_id}" => &self.filter,
                "{version}" => &self.version,
                "{room_alias}" => &self.alias,
                "{media_id}" => &self.media,
                "{server_name}" => "a.test",
                "{rel_type}" => "m.thread",
                "{receipt_type}" => "m.read",
                "{event_type}" => "m.room.topic",
                "{kind}" => "override",
                "{field}" => "displayname",
                "{action}" => "send",
                "{state_key}" => "",
                other if other.starts_with('{') => "x",
                other => other,
            };
            value.to_owned()
        };
        path.split('/').map(part).collect::<Vec<_>>().join("/")
    }

    /// A body that an endpoint understands.
    fn body_for(&self, path: &str) -> Value {
        let (user, device) = (&self.user, &self.device);
        let end = |end: &str| path.ends_with(end);
        match () {
            () if end("/keys/query") => json!({ "device_keys": { user: [device] } }),
            () if end("/keys/claim") => json!({ "one_time_keys": { user: { device: "signed_curve25519" } } }),
            () if end("/profile/{user_id}/{field}") => json!({ "displayname": "x" }),
            () if end("/user/{user_id}/filter") => json!({}),
            () if end("/delayed_events/{delay_id}") => json!({ "action": "send" }),
            () => self.body(),
        }
    }

    /// A body with all that most endpoints want to know; nothing of the asker is in it.
    fn body(&self) -> Value {
        let mut body = self.common_body();
        let fields = body.as_object_mut().unwrap();
        for more in [self.keys_body(), self.search_body()] {
            fields.extend(more.as_object().unwrap().clone());
        }
        body
    }

    fn common_body(&self) -> Value {
        json!({
            "user_id": self.user, "room_id": self.room, "event_id": self.event, "device_id": self.device,
            "devices": [self.device], "messages": {}, "topic": "x", "body": "x", "msgtype": "m.text",
            "displayname": "x", "presence": "online", "typing": true, "timeout": 1000, "visibility": "public",
            "new_version": "11", "m.fully_read": self.event, "m.read": self.event, "reason": "x",
            "locked": true, "suspended": true, "delay_ms": 1000, "content": { "topic": "x" },
        })
    }

    fn keys_body(&self) -> Value {
        let (user, device) = (&self.user, &self.device);
        json!({
            "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": { "public_key": "x" },
            "version": self.version, "rooms": {}, "sessions": {}, "first_message_index": 0, "forwarded_count": 0,
            "is_verified": true, "session_data": {},
            "device_keys": {
                "user_id": user, "device_id": device, "algorithms": [], "keys": {}, "signatures": {},
            },
            "master_key": {
                "user_id": user, "usage": ["master"], "keys": { "ed25519:x": "x" }, "signatures": {},
            },
        })
    }

    fn search_body(&self) -> Value {
        let room_events = json!({ "search_term": "hidden", "filter": { "rooms": [self.room] } });
        json!({
            "search_categories": { "room_events": room_events }, "search_term": "alice",
            "room_subscriptions": { self.room.clone(): { "timeline_limit": 20, "required_state": [["*", "*"]] } },
        })
    }
}

/// A room of Alice's, and who has no business there any more or not yet.
struct Stage<'a> {
    alice: User<'a>,
    /// Never there, was there, was thrown out, is invited.
    others: [User<'a>; 4],
    names: Names,
}

impl<'a> Stage<'a> {
    async fn new(home: &'a Home) -> Self {
        let (alice, eve) = (home.user("alice").await, home.user("eve").await);
        let (gone, banned) = (home.user("gone").await, home.user("banned").await);
        let invited = home.user("invited").await;
        let room = alice.room(json!({ "preset": "private_chat", "room_alias_name": "cabinet" })).await;
        for user in [&gone, &banned, &invited] {
            alice.post(&format!("/rooms/{room}/invite"), json!({ "user_id": user.id })).await.ok();
        }
        for user in [&gone, &banned] {
            user.post(&format!("/join/{room}"), json!({})).await.ok();
        }
        gone.post(&format!("/rooms/{room}/leave"), json!({})).await.ok();
        alice.post(&format!("/rooms/{room}/ban"), json!({ "user_id": banned.id })).await.ok();
        let event = alice.say(&room, "1", HIDDEN).await;
        let mut names = Names::made_up();
        (names.room, names.event, names.user) = (room, event, alice.id.clone());
        (names.device, names.alias) = (alice.device.clone(), "%23cabinet:a.test".into());
        let mut stage = Self { alice, others: [eve, gone, banned, invited], names };
        stage.fill_room().await;
        stage.fill_account().await;
        stage
    }

    /// A name, a thread that is followed, and what is to come.
    async fn fill_room(&self) {
        let (alice, Names { room, event, .. }) = (&self.alice, &self.names);
        alice.put(&format!("/rooms/{room}/state/m.room.name"), json!({ "name": NAME })).await.ok();
        let relation = json!({ "rel_type": "m.thread", "event_id": event });
        let reply = json!({ "msgtype": "m.text", "body": HIDDEN, "m.relates_to": relation });
        alice.put(&format!("/rooms/{room}/send/m.room.message/2"), reply).await.ok();
        let unstable = "/_matrix/client/unstable";
        let thread = format!("{unstable}/io.element.msc4306/rooms/{room}/thread/{event}/subscription");
        alice.put(&thread, json!({})).await.ok();
        let later = format!("{unstable}/org.matrix.msc4140/rooms/{room}/delayed_event/m.room.message/3");
        let content = json!({ "delay_ms": 3_600_000, "content": { "msgtype": "m.text", "body": HIDDEN } });
        alice.put(&later, content).await.ok();
    }

    /// One of everything that an account keeps.
    async fn fill_account(&mut self) {
        let (alice, Names { room, device, .. }) = (&self.alice, &self.names);
        let id = &alice.id;
        alice.put(&format!("/devices/{device}"), json!({ "display_name": HIDDEN })).await.ok();
        alice.put(&format!("/user/{id}/account_data/x"), json!({ "x": HIDDEN })).await.ok();
        alice.put(&format!("/user/{id}/rooms/{room}/account_data/x"), json!({ "x": HIDDEN })).await.ok();
        alice.put(&format!("/user/{id}/rooms/{room}/tags/u.{HIDDEN}"), json!({ "order": 0.5 })).await.ok();
        let filter = json!({ "room": { "timeline": { "types": [HIDDEN] } } });
        let filter = alice.post(&format!("/user/{id}/filter"), filter).await.ok();
        let backup = json!({
            "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
            "auth_data": { "public_key": HIDDEN, "signatures": {} },
        });
        let version = alice.post("/room_keys/version", backup).await.ok();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (filter, version) = (text(&filter["filter_id"]), text(&version["version"]));
        let session = json!({
            "first_message_index": 0, "forwarded_count": 0, "is_verified": true, "session_data": { "x": HIDDEN },
        });
        alice.put(&format!("/room_keys/keys/{room}/x?version={version}"), session).await.ok();
        alice.put(dehydrated::DEVICE, dehydrated::asleep(alice, HIDDEN)).await.ok();
        let medium = alice.post("/_matrix/media/v1/create", json!({})).await.ok();
        let address = text(&medium["content_uri"]);
        self.names.media = address.rsplit('/').next().map(str::to_owned).unwrap();
        (self.names.filter, self.names.version) = (filter, version);
    }

    /// All that Alice has and her room holds.
    async fn now(&self) -> BTreeMap<String, Value> {
        let (id, room) = (&self.alice.id, &self.names.room);
        let unstable = "/_matrix/client/unstable";
        let mut all = BTreeMap::new();
        for path in [
            "/sync?timeout=0".to_owned(),
            "/devices".to_owned(),
            "/room_keys/version".to_owned(),
            format!("/room_keys/keys?version={}", self.names.version),
            "/pushers".to_owned(),
            format!("/profile/{id}"),
            format!("/user/{id}/filter/{}", self.names.filter),
            format!("/directory/list/room/{room}"),
            format!("/rooms/{room}/aliases"),
            format!("{unstable}/org.matrix.msc4140/delayed_events"),
            format!("{unstable}/io.element.msc4306/rooms/{room}/thread/{}/subscription", self.names.event),
            dehydrated::DEVICE.to_owned(),
        ] {
            let mut answer = self.alice.get(&path).await.json;
            scrub(&mut answer);
            all.insert(path, answer);
        }
        all
    }
}

/// Takes away what differs from one look to the next.
fn scrub(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for changing in ["age", "next_batch", "last_seen_ts", "presence"] {
                fields.remove(changing);
            }
            fields.values_mut().for_each(scrub);
        }
        Value::Array(items) => items.iter_mut().for_each(scrub),
        _ => {}
    }
}

/// A refusal in the form that the specification wants.
fn is_refusal(answer: &Answer) -> bool {
    let code = &answer.json["errcode"];
    let forbidden = answer.status == 403 && code == "M_FORBIDDEN";
    let not_found = answer.status == 404 && code == "M_NOT_FOUND";
    (forbidden || not_found) && answer.json["error"].is_string()
}

/// Asks under one path as everybody; gives what is wrong with the answers.
async fn ask(stage: &Stage<'_>, line: &Line, (method, path): (&str, &str), n: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let made_up = Names::made_up();
    for (index, other) in stage.others.iter().enumerate() {
        if line.rule == Rule::Enter && index == 3 {
            continue;
        }
        let put = async |names: &Names, itself: bool| {
            let path = if itself { path.replace("{user_id}", &other.id) } else { path.to_owned() };
            let txn = format!("{}{n}", other.id.len());
            let filled = names.fill(&path.replace("{txn_id}", &txn));
            let query = line.query.replace("{room}", &names.room).replace("{version}", &names.version);
            let query = query.replace("{user}", &names.user).replace("{event}", &names.event);
            let body = if method == "GET" { Value::Null } else { names.body_for(&path) };
            other.call(method, &format!("{filled}?{query}"), body).await
        };
        // Where user and room are named, everybody asks as Alice, which nobody is, and as themselves.
        let both = path.contains("{user_id}") && path.contains("{room_id}");
        let ways: &[bool] = if both { &[false, true] } else { &[false] };
        for &itself in ways {
            let answer = put(&stage.names, itself).await;
            let said = format!("{} {}", answer.status, answer.json);
            let expected = match line.rule {
                _ if both && !itself => is_refusal(&answer),
                Rule::Closed | Rule::Refused => is_refusal(&answer),
                Rule::Invited => index == 3 || is_refusal(&answer),
                Rule::Enter | Rule::Past => index > 0 || is_refusal(&answer),
                Rule::Own | Rule::Open | Rule::Nothing => !answer.status.is_server_error(),
            };
            if !expected || said.contains(HIDDEN) || (index < 3 && said.contains(NAME)) {
                wrong.push(format!("{method} {path} as {}: {said}", other.id));
            }
            if index == 0 && !matches!(line.rule, Rule::Open | Rule::Refused | Rule::Enter) {
                let other = put(&made_up, itself).await;
                let alike = (answer.status, &answer.json["errcode"], &answer.json["error"])
                    == (other.status, &other.json["errcode"], &other.json["error"]);
                if !alike {
                    let other = format!("{} {}", other.status, other.json);
                    wrong.push(format!("{method} {path}: {said}, but {other} for what is not there"));
                }
            }
        }
    }
    wrong
}

#[tokio::test]
async fn whoever_has_no_business_there_learns_and_changes_nothing() {
    let rates = UNLIMITED.map(|rate| format!("client.rates.{rate} = {{ per_second = 0, burst = 1 }}"));
    let home = Home::with(&rates.join("\n")).await;
    let stage = Stage::new(&home).await;
    let (list, mut before) = (list(), stage.now().await);
    let mut wrong = Vec::new();
    for (n, (listed, method, path)) in endpoints().into_iter().enumerate() {
        let line = &list[&listed];
        if line.rule == Rule::Nothing {
            continue;
        }
        wrong.extend(ask(&stage, line, (&method, &path), n).await);
        let now = stage.now().await;
        for (what, was) in &before {
            if now[what] != *was {
                wrong.push(format!("{method} {path} changes {what}:\n{was}\n{}", now[what]));
            }
        }
        before = now;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
