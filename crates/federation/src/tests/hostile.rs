//! Servers that mean harm: what they cost before they have proved who they are, and after.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Body;
use chappe_rooms::Draft;
use chappe_rules::json;
use chappe_web::Rate;
use chappe_world::{Fake, FakeNet, World};
use futures_util::future::join_all;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use ruma::{CanonicalJsonValue, OwnedEventId, OwnedServerName, events::TimelineEventType, server_name};
use serde_json::{Value, value::RawValue};
use tower::ServiceExt;

use super::{
    Server, config, couple, eventually, key,
    lies::{NOBODYS, news, seat},
    peer::{Peer, Seat},
};
use crate::{
    Config, Rates,
    auth::{Addressee, Signed, sign},
    inbound::Received,
    keys::own_document,
};

fn rates(change: impl Fn(&mut Rates)) -> Config {
    let mut rates = Rates::default();
    change(&mut rates);
    Config { rates, ..config() }
}

fn authorization(method: &Method, uri: &str, (origin, seed): (&str, u8), body: &str) -> http::HeaderValue {
    let origin: OwnedServerName = origin.try_into().unwrap();
    let signed = Signed { method, uri, body: body.as_bytes() };
    sign(signed, &origin, Addressee::homeserver(server_name!("b.example")), &key(seed)).unwrap()
}

async fn ask(
    server: &Server,
    (method, uri): (Method, &str),
    who: (&str, u8),
    body: &str,
) -> (StatusCode, Value) {
    let proof = authorization(&method, uri, who, body);
    let request = Request::builder().method(method).uri(uri).header(header::AUTHORIZATION, proof);
    server.answer(request.body(Body::from(body.to_owned())).unwrap()).await
}

const ALIAS: &str = "/_matrix/federation/v1/query/directory?room_alias=%23x%3Ab.example";

#[tokio::test(start_paused = true)]
async fn nobody_sends_a_body_before_its_key_is_known() {
    let net = FakeNet::new();
    let b = Server::start(&net, "b.example", 2, config());
    let allow = Some(vec!["a.example".to_owned()]);
    let closed = Server::start(&net, "b.example", 2, Config { allow, ..config() });
    let uri = "/_matrix/federation/v1/send/1";
    for (server, origin, status) in [
        (&b, Some("nobody.example"), StatusCode::UNAUTHORIZED),
        (&b, None, StatusCode::UNAUTHORIZED),
        (&closed, Some("evil.example"), StatusCode::FORBIDDEN),
    ] {
        let read = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&read);
        let body = futures_util::stream::once(async move {
            noted.store(true, SeqCst);
            Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 1 << 20]))
        });
        let mut request = Request::put(uri);
        if let Some(origin) = origin {
            let proof = authorization(&Method::PUT, uri, (origin, 9), "{}");
            request = request.header(header::AUTHORIZATION, proof);
        }
        let refused = server.answer(request.body(Body::from_stream(body)).unwrap()).await;
        assert_eq!(refused.0, status, "{origin:?}");
        assert!(!read.load(SeqCst), "{origin:?}: the body was read");
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_have_a_bounded_number_of_keys_looked_for() {
    let net = FakeNet::new();
    let _a = Server::start(&net, "a.example", 1, config());
    let _c = Server::start(&net, "c.example", 3, config());
    let b = Server::start(&net, "b.example", 2, rates(|rates| rates.key_lookups = Rate::new(0.000_1, 3)));
    assert_eq!(ask(&b, (Method::GET, ALIAS), ("a.example", 1), "").await.0, StatusCode::NOT_FOUND);
    for number in 0..2 {
        let name = format!("n{number}.example");
        assert_eq!(ask(&b, (Method::GET, ALIAS), (&name, 9), "").await.0, StatusCode::UNAUTHORIZED);
    }
    let (status, body) = ask(&b, (Method::GET, ALIAS), ("n3.example", 9), "").await;
    assert_eq!((status, &body["errcode"]), (StatusCode::TOO_MANY_REQUESTS, &Value::from("M_LIMIT_EXCEEDED")));
    // As a notary it looks for nothing more either, and still tells what is at hand.
    for (name, known) in [("a.example", 1), ("c.example", 0)] {
        let request = Request::get(format!("/_matrix/key/v2/query/{name}")).body(Body::empty()).unwrap();
        let (status, told) = b.answer(request).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(told["server_keys"].as_array().unwrap().len(), known, "{name}: {told}");
    }
    // A server whose key is at hand is not held up.
    assert_eq!(ask(&b, (Method::GET, ALIAS), ("a.example", 1), "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn a_key_document_with_more_in_it_is_not_countersigned() {
    let net = FakeNet::new();
    let b = Server::start(&net, "b.example", 2, config());
    for (extra, vouched) in [(None, 1), (Some("content"), 0), (Some("uri"), 0)] {
        let name = format!("evil-{}.example", extra.unwrap_or("not"));
        let server: OwnedServerName = name.as_str().try_into().unwrap();
        let world = World::fake(Fake::new(&name, 66, &net));
        let mut document = own_document(&server, &key(6), &config(), world.now());
        if let Some(field) = extra {
            document.remove("signatures");
            document.insert(field.to_owned(), CanonicalJsonValue::String("x".to_owned()));
            key(6).sign_json(&server, &mut document);
        }
        let text = json::canonical(&document);
        let page = tower::service_fn(move |_: Request<http_body_util::Full<bytes::Bytes>>| {
            let text = text.clone();
            async move {
                let body = http_body_util::Full::new(bytes::Bytes::from(text));
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            }
        });
        net.route(&name, &world, page);
        let request = Request::get(format!("/_matrix/key/v2/query/{name}")).body(Body::empty()).unwrap();
        let (_, told) = b.answer(request).await;
        assert_eq!(told["server_keys"].as_array().unwrap().len(), vouched, "{name}: {told}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_server_asks_so_much_and_no_more() {
    let net = FakeNet::new();
    let _a = Server::start(&net, "a.example", 1, config());
    let _c = Server::start(&net, "c.example", 3, config());
    let b = Server::start(&net, "b.example", 2, rates(|rates| rates.requests = Rate::new(0.000_1, 2)));
    // Somebody else's requests in its name do not count.
    assert_eq!(ask(&b, (Method::GET, ALIAS), ("a.example", 9), "").await.0, StatusCode::UNAUTHORIZED);
    for status in [StatusCode::NOT_FOUND, StatusCode::NOT_FOUND, StatusCode::TOO_MANY_REQUESTS] {
        assert_eq!(ask(&b, (Method::GET, ALIAS), ("a.example", 1), "").await.0, status);
    }
    assert_eq!(ask(&b, (Method::GET, ALIAS), ("c.example", 3), "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn signed_requests_to_the_identity_service_are_counted_and_show_life_like_others() {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 1, config());
    let b = Server::start(&net, "b.example", 2, rates(|rates| rates.requests = Rate::new(0.000_1, 2)));
    // It was not reached for a while.
    net.unroute("a.example");
    b.network.backoff().failed(&a.name, None).await.unwrap();
    a.back(&net);
    let uri = "/_matrix/identity/v2/3pid/unbind";
    for status in [None, None, Some(StatusCode::TOO_MANY_REQUESTS)] {
        let proof = authorization(&Method::POST, uri, ("a.example", 1), "{}");
        let request = Request::post(uri).header(header::AUTHORIZATION, proof).body(()).unwrap();
        let (parts, ()) = request.into_parts();
        let address = chappe_web::Origin(std::net::Ipv4Addr::UNSPECIFIED.into());
        let signer = b.network.signer(&parts, Body::from("{}"), address, &["b.example"]).await;
        assert_eq!(signer.err().map(|error| error.status()), status);
        assert_eq!(b.network.backoff().wait_until(&a.name).await.unwrap(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_has_other_servers_asked_for_invites_without_end() {
    let net = FakeNet::new();
    let change = |rates: &mut Rates| {
        rates.bound = Rate::new(0.000_1, 20);
        rates.bound_invites = Rate::new(0.000_1, 4);
    };
    let b = Server::start(&net, "b.example", 2, rates(change));
    let asked = super::count(&net, "/_matrix/federation/v1/exchange_third_party_invite");
    let put = async |names: &[&str]| {
        let invite = |name: &&str| {
            serde_json::json!({
                "medium": "email", "address": "x@x.example", "mxid": "@bob:b.example", "room_id": "!r:x.example",
                "sender": format!("@alice:{name}"), "signed": { "mxid": "@bob:b.example", "token": "t", "signatures": {} },
            })
        };
        let invites: Vec<Value> = names.iter().map(invite).collect();
        let body = serde_json::json!({
            "medium": "email", "address": "x@x.example", "mxid": "@bob:b.example", "invites": invites,
        });
        let request = Request::put("/_matrix/federation/v1/3pid/onbind").body(Body::from(body.to_string()));
        b.answer(request.unwrap()).await.0
    };
    // One server is asked so much, whoever wants it: this one is there, and refuses.
    let _a = Server::start(&net, "a.example", 1, config());
    assert_eq!(put(&["a.example"; 3]).await, StatusCode::OK);
    assert_eq!(put(&["a.example"; 3]).await, StatusCode::BAD_GATEWAY, "another time");
    assert_eq!(asked.load(SeqCst), 4);
    // One address has so many asked: nothing of this request is done.
    let names: Vec<String> = (0..15).map(|n| format!("n{n}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(put(&names).await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(put(&[]).await, StatusCode::TOO_MANY_REQUESTS, "before anything is read");
    assert_eq!(b.network.backoff().state(server_name!("n1.example")).await.unwrap().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn invites_are_counted_by_server_and_by_user() {
    let net = FakeNet::new();
    let _a = Server::start(&net, "a.example", 1, config());
    let _c = Server::start(&net, "c.example", 3, config());
    let b = Server::start(
        &net,
        "b.example",
        2,
        rates(|rates| {
            rates.invites = Rate::new(0.000_1, 3);
            rates.invites_to_user = Rate::new(0.000_1, 2);
        }),
    );
    let invite = async |who: (&str, u8), to: &str| {
        let uri = "/_matrix/federation/v2/invite/!r:a.example/$e";
        let body =
            format!(r#"{{"event":{{"state_key":"{to}"}},"invite_room_state":[],"room_version":"11"}}"#);
        ask(&b, (Method::PUT, uri), who, &body).await.0
    };
    let (a, c) = (("a.example", 1), ("c.example", 3));
    assert_eq!(invite(a, "@bob:b.example").await, StatusCode::BAD_REQUEST);
    assert_eq!(invite(c, "@bob:b.example").await, StatusCode::BAD_REQUEST);
    assert_eq!(invite(c, "@bob:b.example").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(invite(a, "@eve:b.example").await, StatusCode::BAD_REQUEST);
    assert_eq!(invite(a, "@joe:b.example").await, StatusCode::BAD_REQUEST);
    assert_eq!(invite(a, "@zoe:b.example").await, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn a_server_with_too_much_under_way_has_to_wait() {
    let net = FakeNet::new();
    let (a, b, _) = couple(&net).await;
    let received = |id: &str| Received {
        origin: a.name.clone(),
        id: id.to_owned(),
        pdus: vec![RawValue::from_string(r#"{"room_id":"!r:a.example"}"#.to_owned()).unwrap()],
        edus: Vec::new(),
    };
    let loads = b.federation.load_of(&a.name, 100);
    let refused = b.federation.receive(received("x")).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(loads);
    b.federation.receive(received("x")).await.unwrap();
    assert!(b.federation.is_unloaded(), "what was dealt with still counts");
    let edu = RawValue::from_string(format!("\"{}\"", "x".repeat(33 << 20))).unwrap();
    let long = Received { pdus: Vec::new(), edus: vec![edu], ..received("y") };
    let refused = b.federation.receive(long).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "bytes do not count");
}

#[tokio::test(start_paused = true)]
async fn answers_that_nobody_fetches_take_so_much_room_and_not_for_ever() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let uri = |event: OwnedEventId| format!("/_matrix/federation/v1/state/{room}?event_id={event}");
    let request = |uri: &str| {
        let proof = authorization(&Method::GET, uri, ("a.example", 1), "");
        Request::get(uri).header(header::AUTHORIZATION, proof).body(Body::empty()).unwrap()
    };
    // One that is short needs no room, however many of them are left lying.
    let short = uri(b.say("bob", &room, "x").await);
    let mut left_lying = Vec::new();
    for _ in 0..40 {
        left_lying.push(b.router.clone().oneshot(request(&short)).await.unwrap());
        assert_eq!(left_lying.last().unwrap().status(), StatusCode::OK);
    }
    let text = "x".repeat(40 << 10);
    for kind in ["long.one", "long.two"] {
        let content = serde_json::json!({ "text": text }).as_object().unwrap().clone();
        let draft = Draft::state(TimelineEventType::from(kind), "", content);
        a.rooms.send(&a.actor("alice"), &room, draft, None).await.unwrap();
    }
    eventually("it is told", async || a.waiting(&b).await == 0).await;
    let long = uri(b.say("bob", &room, "y").await);
    let left = b.router.clone().oneshot(request(&long)).await.unwrap();
    assert_eq!(left.status(), StatusCode::OK);
    tokio::time::sleep(Duration::from_mins(3)).await;
    assert!(left.into_body().collect().await.is_err(), "it is kept for ever");
    let (status, told) = b.answer(request(&long)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(!told["pdus"].as_array().unwrap().is_empty(), "{told}");
}

#[tokio::test(start_paused = true)]
async fn transactions_of_a_wrong_shape_are_refused_whole() {
    let net = FakeNet::new();
    let (_a, b, _) = couple(&net).await;
    let uri = "/_matrix/federation/v1/send/1";
    let frame = |pdus: &str, edus: &str| {
        format!(r#"{{"origin":"a.example","origin_server_ts":1,"pdus":{pdus},"edus":{edus}}}"#)
    };
    let many = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
    let edus = format!("[{}]", vec![r#"{"edu_type":"x","content":{}}"#; 101].join(","));
    for (what, body) in [
        ("51 events", frame(&many(51), "[]")),
        ("101 EDUs", frame("[]", &edus)),
        ("no list", frame("{}", "[]")),
        ("a list", "[]".to_owned()),
    ] {
        let (status, told) = ask(&b, (Method::PUT, uri), ("a.example", 1), &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{what}: {told}");
    }
    let long = format!("/_matrix/federation/v1/send/{}", "x".repeat(256));
    let (status, told) = ask(&b, (Method::PUT, &long), ("a.example", 1), &frame("[]", "[]")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "an id that is too long: {told}");
    // What nobody can have signed.
    for body in ["{".to_owned(), frame("[1e999]", "[]"), "[".repeat(1_000_000)] {
        let proof = authorization(&Method::PUT, uri, ("a.example", 1), "{}");
        let request = Request::put(uri).header(header::AUTHORIZATION, proof).body(Body::from(body)).unwrap();
        let (status, told) = b.answer(request).await;
        assert_eq!((status, &told["errcode"]), (StatusCode::BAD_REQUEST, &Value::from("M_NOT_JSON")));
    }
    assert_eq!(ask(&b, (Method::PUT, uri), ("a.example", 1), &frame(&many(50), "[]")).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn what_is_nested_too_deep_is_dropped_alone() {
    let net = FakeNet::new();
    let (_a, b, _) = couple(&net).await;
    let bob = b.account("bob").await;
    super::devices::device(&b, &bob, "D").await;
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let edu = |id: &str, more: &str| {
        format!(
            r#"{{"edu_type":"m.direct_to_device","content":{{"sender":"@a:a.example","type":"x","message_id":"{id}",
               "messages":{{"@bob:b.example":{{"D":{{"id":"{id}"{more}}}}}}}}}}}"#
        )
    };
    let with = |more: &str| format!(r#","more":{more}"#);
    let readable = format!("{}{}", "[".repeat(110), "]".repeat(110));
    let edus = [edu("1", &with(&deep)), edu("2", &with(&readable)), deep.clone(), edu("3", "")].join(",");
    let body = format!(
        r#"{{"origin":"a.example","origin_server_ts":1,"pdus":[{deep}],"edus":[{edus}],"x":{deep}}}"#
    );
    let uri = "/_matrix/federation/v1/send/1";
    let (status, told) = ask(&b, (Method::PUT, uri), ("a.example", 1), &body).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let reader = b.store.read();
    let none = chappe_store::Position(0);
    let all = chappe_store::Position(u64::MAX);
    let letters = b.accounts.to_device_messages(&reader, &bob, "D".into(), none, all, 10).await.unwrap();
    let letters: Vec<&str> = letters.iter().map(|letter| letter.event.get()).collect();
    assert_eq!(letters, [r#"{"type":"x","sender":"@a:a.example","content":{"id":"3"}}"#]);
    // Where it is what is asked, it is refused as what it is.
    let body = format!(
        r#"{{"type":"m.room.member","room_id":"!r:b.example","sender":"@bob:b.example","state_key":"@a:a.example",
           "content":{{"membership":"invite","third_party_invite":{{"signed":{{"x":{deep}}}}}}}}}"#
    );
    let uri = "/_matrix/federation/v1/exchange_third_party_invite/!r:b.example";
    let (status, told) = ask(&b, (Method::PUT, uri), ("a.example", 1), &body).await;
    assert_eq!((status, &told["errcode"]), (StatusCode::BAD_REQUEST, &Value::from("M_BAD_JSON")), "{told}");
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_in_an_edu_is_dropped_alone() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let event = a.say("alice", &room, "read me").await;
    eventually("it arrives", async || b.has(&event).await).await;
    let (alice, long) = (a.actor("alice").user, "x".repeat(300));
    let hear = async |kind: &str, content: Value, txn: &str| {
        let edu = serde_json::json!({ "edu_type": kind, "content": content });
        super::devices::hear(&b, &a.name, &edu, txn).await;
    };
    let shown = |user: &str, state: &str| serde_json::json!({ "user_id": user, "presence": state });
    let push = [
        shown(alice.as_str(), &long),
        shown(&format!("@{long}:a.example"), "online"),
        shown(alice.as_str(), "offline"),
    ];
    hear("m.presence", serde_json::json!({ "push": push }), "presence").await;
    assert_eq!(*b.seen.presence.lock(), [alice.as_str()]);
    let nid = b.store.read().room_nid(&room).await.unwrap().unwrap();
    for (thread, ts, kept) in [(&*format!("${long}"), 5, 0), ("$thread", 1_u64 << 53, 0), ("$thread", 5, 1)] {
        let read = serde_json::json!({ "event_ids": [event], "data": { "thread_id": thread, "ts": ts } });
        let receipt = serde_json::json!({ room.as_str(): { "m.read": { alice.as_str(): read } } });
        hear("m.receipt", receipt, &format!("{thread} {ts}")).await;
        assert_eq!(b.store.read().room_receipts(nid).await.unwrap().len(), kept, "{thread} {ts}");
    }
}

#[tokio::test(start_paused = true)]
async fn servers_with_nobody_in_a_room_hold_up_nobody_who_is_there() {
    let net = FakeNet::new();
    let (a, member, seat) = seat(&net, "11").await;
    let stranger = |number: u8| {
        let stranger = Peer::start(&net, &format!("s{number}.example"), 10 + number);
        stranger.answer(|uri| {
            let nothing = async {
                tokio::time::sleep(Duration::from_secs(19)).await;
                Ok::<_, std::io::Error>(bytes::Bytes::from_static(br#"{"events":[]}"#))
            };
            let slowly = || Body::from_stream(futures_util::stream::once(nothing));
            uri.contains("/get_missing_events/").then(slowly)
        });
        let user = format!("@m:{}", stranger.name);
        let (room, join, auth) = (seat.room.clone(), seat.join.clone(), seat.auth.clone());
        let Seat { rules, depth, .. } = seat;
        (stranger, Seat { room, user, rules, join, depth, auth, state: Vec::new() })
    };
    let strangers: Vec<_> = (0..4).map(stranger).collect();
    let attacks = strangers.iter().flat_map(|stranger| (0..4).map(move |txn| (stranger, txn)));
    let attacks = join_all(attacks.map(async |((stranger, seat), txn)| {
        let said = |n: u64| stranger.message(seat, &format!("{txn} {n}"), &[NOBODYS], seat.depth + n);
        stranger.send(&a, &txn.to_string(), &[said(1), said(2), said(3)]).await
    }));
    let heard = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let sent = a.world.instant();
        assert!(news(&a, (&member, &seat), "good", seat.join.as_str()).await);
        sent.elapsed()
    };
    let (_, took) = futures_util::join!(attacks, heard);
    assert!(took < Duration::from_secs(5), "{took:?}");
}
