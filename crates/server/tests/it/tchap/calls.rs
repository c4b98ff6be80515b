//! Calls: relays, access to the SFU, proofs of who somebody is, what clients find.

use std::{convert::Infallible, sync::Arc, time::Duration};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use chappe_world::{FakeNet, World};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use ring::{
    digest::{SHA256, digest},
    hmac,
};
use serde_json::{Value, json};

use super::office::{Agent, Answer, Office};

const SERVICE: &str = "/_matrix/client/unstable/chappe/livekit";
const SECRET: &str = "a secret shared with the SFU";
const LIVEKIT: &str = r#"
[livekit]
url = "wss://sfu.test"
api_key = "chappe"
api_secret_file = "SECRET_FILE"
"#;

/// The claims of a token, as a SFU checks it.
fn claims(jwt: &str, world: &World) -> Value {
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::verify(&key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let (head, body) = signed.split_once('.').unwrap();
    let part = |text| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    assert_eq!(part(head), json!({ "alg": "HS256", "typ": "JWT" }));
    let claims = part(body);
    let now = world.now() / 1_000;
    assert!(claims["nbf"].as_u64().unwrap() <= now && claims["exp"].as_u64().unwrap() > now, "{claims}");
    assert!(claims["exp"].as_u64().unwrap() <= now + 3_600, "{claims}");
    assert_eq!(claims["iss"], "chappe");
    claims
}

/// What happens at a SFU: the names of the rooms that were made, and who is in.
#[derive(Default)]
struct Sfu {
    made: Mutex<Vec<String>>,
    there: Mutex<Vec<Value>>,
}

impl Sfu {
    fn ask(&self, procedure: &str, allowed: &Value, body: &Value) -> Value {
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        if procedure == "CreateRoom" {
            assert_eq!(*allowed, json!({ "roomCreate": true }));
            self.made.lock().push(text("name"));
            return json!({});
        }
        assert_eq!(procedure, "ListParticipants");
        assert_eq!(*allowed, json!({ "roomAdmin": true, "room": text("room") }));
        json!({ "participants": *self.there.lock() })
    }
}

/// A SFU that does what a token allows.
fn sfu(net: &FakeNet, world: &World) -> Arc<Sfu> {
    let sfu = Arc::new(Sfu::default());
    let (asked, at) = (sfu.clone(), world.clone());
    let answer = move |request: http::Request<Full<Bytes>>| {
        let (sfu, at) = (asked.clone(), at.clone());
        async move {
            let (parts, body) = request.into_parts();
            let procedure = parts.uri.path().strip_prefix("/twirp/livekit.RoomService/").unwrap();
            let bearer = parts.headers["authorization"].to_str().unwrap();
            let claims = claims(bearer.strip_prefix("Bearer ").unwrap(), &at);
            let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
            let said = sfu.ask(procedure, &claims["video"], &body).to_string();
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(said))))
        }
    };
    net.route("sfu.test", world, tower::service_fn(answer));
    sfu
}

/// A server with access to the SFU.
async fn office(net: &FakeNet, more: &str) -> Office {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let file = folder.path().join("livekit-secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let section = LIVEKIT.replace("SECRET_FILE", &file.display().to_string());
    Office::placed(folder, net, "a.test", &format!("{more}{section}")).await
}

fn legacy(openid: &Value, room: &str) -> Value {
    json!({ "room": room, "openid_token": openid, "device_id": "PHONE" })
}

fn slot(openid: &Value, user: &str, room: &str) -> Value {
    let member = json!({ "id": "m1", "claimed_user_id": user, "claimed_device_id": "PHONE" });
    json!({ "room_id": room, "slot_id": "m.call#ROOM", "openid_token": openid, "member": member })
}

fn hashed(parts: &[&str]) -> String {
    STANDARD_NO_PAD.encode(digest(&SHA256, json!(parts).to_string().as_bytes()))
}

/// A room that anybody may enter.
async fn room(host: &Agent<'_>) -> String {
    let made = host.post("/_matrix/client/v3/createRoom", json!({ "preset": "public_chat" })).await.ok();
    made["room_id"].as_str().unwrap().to_owned()
}

async fn ask(office: &Office, path: &str, body: Value) -> Answer {
    office.call("", "POST", &format!("{SERVICE}/{path}"), body).await
}

/// Whom a token is for and what it allows.
#[track_caller]
fn lets_in(answer: Answer, (world, room): (&World, &str), identity: &str) {
    let said = answer.ok();
    assert_eq!(said["url"], "wss://sfu.test");
    let claims = claims(said["jwt"].as_str().unwrap(), world);
    assert_eq!(claims["sub"], identity);
    let grant = json!({
        "room": hashed(&[room, "m.call#ROOM"]), "roomJoin": true,
        "canPublish": true, "canSubscribe": true, "canUpdateOwnMetadata": true,
    });
    assert_eq!(claims["video"], grant, "and no room is made with it");
}

#[tokio::test]
async fn row_91_credentials_for_the_relay() {
    let turn = "[client.turn]\nuris = [\"turn:turn.test\"]\nsecret = \"shared\"\nlifetime_s = 600";
    let a = Office::alone(turn).await;
    let path = "/_matrix/client/v3/voip/turnServer";
    a.call("", "GET", path, Value::Null).await.refused(401, "M_MISSING_TOKEN");
    a.call("stranger", "GET", path, Value::Null).await.refused(401, "M_UNKNOWN_TOKEN");
    let alice = a.agent("alice").await;
    let seconds = || a.world.now() / 1_000;
    let before = seconds();
    let said = alice.get(path).await.ok();
    let asked = before..=seconds();
    let (until, user) = said["username"].as_str().unwrap().split_once(':').unwrap();
    assert_eq!((user, &said["uris"], &said["ttl"]), (&*alice.id, &json!(["turn:turn.test"]), &json!(600)));
    assert!(asked.contains(&(until.parse::<u64>().unwrap() - 600)), "{until}: {asked:?}");
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"shared");
    let password = hmac::sign(&key, said["username"].as_str().unwrap().as_bytes());
    assert_eq!(said["password"], STANDARD.encode(password));
    let without = Office::alone("").await;
    assert_eq!(without.agent("alice").await.get(path).await.ok(), json!({}));
}

#[tokio::test]
async fn row_93_a_call_of_many_people() {
    let net = FakeNet::new();
    let a = office(&net, "[client]\nlivekit_services = [\"https://other.test/jwt\"]\n").await;
    let b = Office::on(&net, "b.test", "").await;
    let at = sfu(&net, &a.world);
    let (alice, bob) = (a.agent("alice").await, b.agent("bob").await);
    let room = room(&alice).await;
    let room = &*room;
    bob.post(&format!("/_matrix/client/v3/join/{room}?server_name=a.test"), json!({})).await.ok();
    let own = format!("https://a.test{SERVICE}");
    let told = json!([
        { "type": "livekit", "livekit_service_url": own },
        { "type": "livekit", "livekit_service_url": "https://other.test/jwt" },
    ]);
    let transports = "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports";
    assert_eq!(alice.get(transports).await.ok()["rtc_transports"], told);
    a.call("", "GET", transports, Value::Null).await.refused(401, "M_MISSING_TOKEN");
    let found = a.call("", "GET", "/.well-known/matrix/client", Value::Null).await.ok();
    assert_eq!(found["org.matrix.msc4143.rtc_foci"], told);

    // Users of other servers take part, and make no rooms.
    let openid = bob.openid().await;
    lets_in(ask(&a, "sfu/get", legacy(&openid, room)).await, (&a.world, room), "@bob:b.test:PHONE");
    let member = hashed(&["@bob:b.test", "PHONE", "m1"]);
    lets_in(ask(&a, "get_token", slot(&openid, &bob.id, room)).await, (&a.world, room), &member);
    assert!(at.made.lock().is_empty());
    let openid = alice.openid().await;
    lets_in(ask(&a, "sfu/get", legacy(&openid, room)).await, (&a.world, room), "@alice:a.test:PHONE");
    let member = hashed(&["@alice:a.test", "PHONE", "m1"]);
    let got = ask(&a, "get_token", slot(&openid, &alice.id, room)).await;
    assert_eq!(got.headers["access-control-allow-origin"], "*");
    lets_in(got, (&a.world, room), &member);
    assert_eq!(*at.made.lock(), vec![hashed(&[room, "m.call#ROOM"]); 2]);
}

#[tokio::test]
async fn row_93_members_of_calls_come_and_go_without_power() {
    let a = Office::alone("").await;
    let (alice, bob) = (a.agent("alice").await, a.agent("bob").await);
    let kind = "org.matrix.msc3401.call.member";
    let made = json!({
        "preset": "public_chat", "power_level_content_override": { "events": { kind: 0 } },
    });
    let room = alice.post("/_matrix/client/v3/createRoom", made).await.ok();
    let room = format!("rooms/{}", room["room_id"].as_str().unwrap());
    bob.post(&format!("/_matrix/client/v3/{room}/join"), json!({})).await.ok();
    let key = format!("_{}_PHONE", bob.id);
    let member = json!({ "application": "m.call", "call_id": "", "device_id": "PHONE" });
    let state = format!("/_matrix/client/v3/{room}/state/{kind}/{key}");
    bob.put(&state, member).await.ok();
    // Leaving, in case the client does not say any more that it is there.
    let delayed = format!("{state}?org.matrix.msc4140.delay=60000");
    let delay = bob.put(&delayed, json!({})).await.ok()["delay_id"].as_str().unwrap().to_owned();
    let act = format!("/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay}");
    bob.post(&act, json!({ "action": "restart" })).await.ok();
    assert_eq!(alice.get(&state).await.ok()["device_id"], "PHONE");
    bob.post(&act, json!({ "action": "send" })).await.ok();
    assert_eq!(alice.get(&state).await.ok(), json!({}));
}

#[tokio::test]
async fn row_93_nobody_is_let_in_who_does_not_prove_who_it_is() {
    let net = FakeNet::new();
    let a = office(&net, "").await;
    let at = sfu(&net, &a.world);
    let (alice, bob) = (a.agent("alice").await, a.agent("bob").await);
    let room = room(&alice).await;
    let room = &*room;
    let openid = alice.openid().await;
    // Who is not in the room, or not any more, or in a room that nobody knows.
    for body in [legacy(&bob.openid().await, room), legacy(&openid, "!elsewhere:a.test")] {
        ask(&a, "sfu/get", body).await.refused(403, "M_FORBIDDEN");
    }
    bob.post(&format!("/_matrix/client/v3/join/{room}"), json!({})).await.ok();
    let ban = json!({ "user_id": bob.id });
    alice.post(&format!("/_matrix/client/v3/rooms/{room}/ban"), ban).await.ok();
    ask(&a, "get_token", slot(&bob.openid().await, &bob.id, room)).await.refused(403, "M_FORBIDDEN");
    let unauthorized = async |path: &str, body: Value| {
        ask(&a, path, body).await.refused(401, "M_UNAUTHORIZED");
    };
    unauthorized("get_token", slot(&openid, &bob.id, room)).await;
    for wrong in ["made up", &alice.token] {
        let mut openid = openid.clone();
        openid["access_token"] = json!(wrong);
        unauthorized("sfu/get", legacy(&openid, room)).await;
    }
    // A server that speaks for others' users.
    let liar = tower::service_fn(async |_: http::Request<Full<Bytes>>| {
        let said = json!({ "sub": "@alice:a.test" }).to_string();
        Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(said))))
    });
    net.route("liar.test", &a.world, liar);
    let of = |server: &str| json!({ "access_token": "x", "matrix_server_name": server });
    unauthorized("sfu/get", legacy(&of("liar.test"), room)).await;
    ask(&a, "sfu/get", legacy(&of("nowhere.test"), room)).await.refused(502, "M_UNKNOWN");
    for (path, body) in [
        ("sfu/get", json!({ "room": room, "openid_token": openid, "device_id": "8448:PHONE" })),
        ("sfu/get", json!({ "room": "no room", "openid_token": openid, "device_id": "PHONE" })),
        ("get_token", slot(&openid, "nobody", room)),
    ] {
        ask(&a, path, body).await.refused(400, "M_BAD_JSON");
    }
    for path in ["sfu/get", "get_token"] {
        ask(&a, path, json!({})).await.refused(400, "M_MISSING_PARAM");
    }
    assert!(at.made.lock().is_empty());
    net.unroute("sfu.test");
    ask(&a, "sfu/get", legacy(&openid, room)).await.refused(502, "M_UNKNOWN");
    let without = Office::on(&net, "c.test", "").await;
    ask(&without, "sfu/get", legacy(&openid, room)).await.refused(404, "M_UNRECOGNIZED");
}

/// A member of a call in a room, and what says that they leave.
struct Leaving<'a> {
    of: &'a Agent<'a>,
    state: String,
    delay_id: String,
}

impl<'a> Leaving<'a> {
    /// Somebody who is about to enter the call of a room, and leaves it a while after.
    async fn soon(of: &'a Agent<'_>, room: &str, delay_ms: u64) -> Self {
        let kind = "org.matrix.msc3401.call.member";
        let state = format!("/_matrix/client/v3/rooms/{room}/state/{kind}/_{}_PHONE", of.id);
        of.put(&state, json!({ "device_id": "PHONE" })).await.ok();
        let delayed = format!("{state}?org.matrix.msc4140.delay={delay_ms}");
        let delay_id = of.put(&delayed, json!({})).await.ok()["delay_id"].as_str().unwrap().to_owned();
        Self { of, state, delay_id }
    }

    async fn is_member(&self) -> bool {
        self.of.get(&self.state).await.ok() == json!({ "device_id": "PHONE" })
    }

    /// A request with this leave to be looked after.
    fn with(&self, mut body: Value, timeout: Value) -> Value {
        body["delay_id"] = json!(self.delay_id);
        body["delay_timeout"] = timeout;
        body
    }
}

const DELEGATE: &str = "delegate_delayed_leave";

#[tokio::test(start_paused = true)]
async fn row_93_who_falls_out_of_a_call_has_left_it() {
    let net = FakeNet::new();
    let a = office(&net, "").await;
    let at = sfu(&net, &a.world);
    let (alice, bob) = (a.agent("alice").await, a.agent("bob").await);
    let room = room(&alice).await;
    let room = &*room;
    let power = format!("/_matrix/client/v3/rooms/{room}/state/m.room.power_levels/");
    let mut levels = alice.get(&power).await.ok();
    levels["events"]["org.matrix.msc3401.call.member"] = json!(0);
    alice.put(&power, levels).await.ok();
    bob.post(&format!("/_matrix/client/v3/join/{room}"), json!({})).await.ok();
    let minutes = async |minutes| tokio::time::sleep(Duration::from_mins(minutes)).await;

    // By a request of its own, and together with access by older clients.
    let (hers, his) = (Leaving::soon(&alice, room, 60_000).await, Leaving::soon(&bob, room, 60_000).await);
    let asked = hers.with(slot(&alice.openid().await, &alice.id, room), json!("60000"));
    assert_eq!(ask(&a, DELEGATE, asked).await.ok(), json!({}));
    let asked = his.with(legacy(&bob.openid().await, room), json!(60_000));
    lets_in(ask(&a, "sfu/get", asked).await, (&a.world, room), "@bob:a.test:PHONE");
    let her = json!({ "identity": hashed(&[&*alice.id, "PHONE", "m1"]), "state": "ACTIVE" });
    *at.there.lock() = vec![her.clone(), json!({ "identity": "@bob:a.test:PHONE" })];
    minutes(20).await;
    assert!(hers.is_member().await && his.is_member().await, "who is in stays in");
    *at.there.lock() = vec![her, json!({ "identity": "@bob:a.test:PHONE", "state": "DISCONNECTED" })];
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(hers.is_member().await && !his.is_member().await, "who is out has left at once");
    // A SFU that says nothing: leaves are sent at their time.
    net.unroute("sfu.test");
    minutes(2).await;
    assert!(!hers.is_member().await);
}

#[tokio::test(start_paused = true)]
async fn row_93_a_short_leave_is_put_off_in_time() {
    let net = FakeNet::new();
    let a = office(&net, "").await;
    let at = sfu(&net, &a.world);
    let alice = a.agent("alice").await;
    let room = room(&alice).await;
    let room = &*room;
    let leaving = Leaving::soon(&alice, room, 8_000).await;
    *at.there.lock() = vec![json!({ "identity": "@alice:a.test:PHONE" })];
    let asked = leaving.with(legacy(&alice.openid().await, room), json!(8_000));
    lets_in(ask(&a, "sfu/get", asked).await, (&a.world, room), "@alice:a.test:PHONE");
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert!(leaving.is_member().await);
    at.there.lock().clear();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!leaving.is_member().await);
}

#[tokio::test(start_paused = true)]
async fn row_93_of_delayed_leaves_the_last_one_is_looked_after() {
    let net = FakeNet::new();
    let a = office(&net, "").await;
    let at = sfu(&net, &a.world);
    let alice = a.agent("alice").await;
    let room = room(&alice).await;
    let room = &*room;
    let delegate = async |leaving: &Leaving<'_>| {
        let asked = leaving.with(slot(&alice.openid().await, &alice.id, room), json!("60000"));
        ask(&a, DELEGATE, asked).await.ok();
    };
    let first = Leaving::soon(&alice, room, 60_000).await;
    delegate(&first).await;
    *at.there.lock() = vec![json!({ "identity": hashed(&[&*alice.id, "PHONE", "m1"]) })];
    tokio::time::sleep(Duration::from_secs(20)).await;
    let second = Leaving::soon(&alice, room, 600_000).await;
    delegate(&second).await;
    tokio::time::sleep(Duration::from_mins(3)).await;
    assert!(!first.is_member().await, "the first one was put off no more");
    let waiting = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events";
    let left = alice.get(waiting).await.ok();
    assert_eq!(left["delayed_events"][0]["delay_id"], json!(second.delay_id));
}

#[tokio::test(start_paused = true)]
async fn row_93_only_ones_own_leaves_are_looked_after() {
    let net = FakeNet::new();
    let a = office(&net, "").await;
    let b = Office::on(&net, "b.test", "").await;
    sfu(&net, &a.world);
    let (alice, bob, carol) = (a.agent("alice").await, a.agent("bob").await, b.agent("carol").await);
    let (here, elsewhere) = (room(&alice).await, room(&alice).await);
    let openid = alice.openid().await;
    let of_alice = || slot(&openid, &alice.id, &here);
    let leaving = Leaving::soon(&alice, &here, 60_000).await;
    let refused = async |body: Value, status: u16, code: &str| {
        ask(&a, DELEGATE, body).await.refused(status, code);
    };
    bob.post(&format!("/_matrix/client/v3/join/{here}"), json!({})).await.ok();
    let of_bob = slot(&bob.openid().await, &bob.id, &here);
    refused(leaving.with(of_bob, json!("60000")), 400, "M_BAD_JSON").await;
    let in_another_room = slot(&openid, &alice.id, &elsewhere);
    refused(leaving.with(in_another_room, json!("60000")), 400, "M_BAD_JSON").await;
    for wrong in [json!("soon"), json!(0), json!(-1), Value::Null] {
        refused(leaving.with(of_alice(), wrong.clone()), 400, "M_BAD_JSON").await;
        let older = leaving.with(legacy(&openid, &here), wrong);
        ask(&a, "sfu/get", older).await.refused(400, "M_BAD_JSON");
    }
    refused(of_alice(), 400, "M_MISSING_PARAM").await;
    let too_short = Leaving::soon(&alice, &here, 5_000).await;
    refused(too_short.with(of_alice(), json!("5000")), 400, "M_BAD_JSON").await;
    // Which costs nobody the call.
    ask(&a, "get_token", too_short.with(of_alice(), json!("5000"))).await.ok();
    let mut unproved = of_alice();
    unproved["openid_token"]["access_token"] = json!("made up");
    refused(leaving.with(unproved, json!("60000")), 401, "M_UNAUTHORIZED").await;
    let for_another = slot(&openid, &bob.id, &here);
    refused(leaving.with(for_another, json!("60000")), 401, "M_UNAUTHORIZED").await;
    let stranger = slot(&carol.openid().await, &carol.id, &here);
    refused(leaving.with(stranger.clone(), json!("60000")), 403, "M_FORBIDDEN").await;
    carol.post(&format!("/_matrix/client/v3/join/{here}?server_name=a.test"), json!({})).await.ok();
    refused(leaving.with(stranger.clone(), json!("60000")), 400, "M_UNSUPPORTED").await;
    ask(&a, "get_token", leaving.with(stranger, json!("60000"))).await.ok();
}

#[tokio::test]
async fn row_93_access_to_calls_is_counted() {
    let net = FakeNet::new();
    let a = office(&net, "[client.rates]\ncall = { per_second = 0.001, burst = 2 }\n").await;
    let of = json!({ "access_token": "x", "matrix_server_name": "a.test" });
    for _ in 0..2 {
        ask(&a, "sfu/get", legacy(&of, "!r:a.test")).await.refused(401, "M_UNAUTHORIZED");
    }
    ask(&a, "sfu/get", legacy(&of, "!r:a.test")).await.refused(429, "M_LIMIT_EXCEEDED");
}

#[tokio::test]
async fn row_94_an_openid_token_says_who_somebody_is() {
    let a = Office::alone("").await;
    let (alice, bob) = (a.agent("alice").await, a.agent("bob").await);
    let openid = alice.openid().await;
    assert_eq!((&openid["token_type"], &openid["matrix_server_name"]), (&json!("Bearer"), &json!("a.test")));
    assert!(openid["expires_in"].as_u64().unwrap() > 0);
    let path = format!("/_matrix/client/v3/user/{}/openid/request_token", alice.id);
    a.call("", "POST", &path, json!({})).await.refused(401, "M_MISSING_TOKEN");
    bob.post(&path, json!({})).await.refused(403, "M_FORBIDDEN");
    let info = |token: &str| format!("/_matrix/federation/v1/openid/userinfo?access_token={token}");
    let said = a.call("", "GET", &info(openid["access_token"].as_str().unwrap()), Value::Null).await.ok();
    assert_eq!(said, json!({ "sub": alice.id }));
    for wrong in [&*alice.token, "made-up"] {
        a.call("", "GET", &info(wrong), Value::Null).await.refused(401, "M_UNKNOWN_TOKEN");
    }
}

#[tokio::test]
async fn row_110_what_clients_and_servers_find() {
    let maps = "https://openmaptiles.test/style.json";
    let more = format!(
        "[client]\nmap_style_url = \"{maps}\"\n[oauth]\nenabled = true\n[federation]\ndelegated_name = \"matrix.a.test:443\"\n"
    );
    let a = office(&FakeNet::new(), &more).await;
    let found = a.call("", "GET", "/.well-known/matrix/client", Value::Null).await;
    assert_eq!(found.headers["access-control-allow-origin"], "*");
    let account = "https://a.test/_matrix/client/unstable/chappe/oauth/account";
    let wanted = json!({
        "m.homeserver": { "base_url": "https://a.test" },
        "m.identity_server": { "base_url": "https://a.test" },
        "m.tile_server": { "map_style_url": maps },
        "org.matrix.msc2965.authentication": { "issuer": "https://a.test/", "account": account },
        "org.matrix.msc4143.rtc_foci": [
            { "type": "livekit", "livekit_service_url": format!("https://a.test{SERVICE}") },
        ],
    });
    assert_eq!(found.ok(), wanted);
    let metadata = a.call("", "GET", "/_matrix/client/v1/auth_metadata", Value::Null).await.ok();
    assert_eq!(metadata["issuer"], wanted["org.matrix.msc2965.authentication"]["issuer"]);
    let found = a.call("", "GET", "/.well-known/matrix/server", Value::Null).await.ok();
    assert_eq!(found, json!({ "m.server": "matrix.a.test:443" }));
}
