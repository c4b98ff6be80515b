//! Signed requests: tricks with headers, the list of allowed servers, answers of hostile servers.

use std::sync::Arc;

use axum::body::Body;
use chappe_accounts::{Claim, RemoteUsers};
use chappe_rooms::{Occasion, PeerError, Peers};
use chappe_world::{Fake, FakeNet, Fate, Repeatable, World};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use ruma::{event_id, room_alias_id, room_id, server_name, user_id};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Server, config, devices, key, pair, peer::Peer};
use crate::{
    Config,
    auth::{Addressee, Signed, sign},
};

const PATH: &str = "/_matrix/federation/v1/query/directory?room_alias=%23x%3Ab.example";

fn header_of(origin: &str, seed: u8, destination: &str, uri: &str) -> String {
    let signed = Signed { method: &Method::GET, uri, body: b"" };
    let (origin, destination) = (origin.try_into().unwrap(), destination.try_into().unwrap());
    let (origin, destination): (ruma::OwnedServerName, ruma::OwnedServerName) = (origin, destination);
    sign(signed, &origin, Addressee::homeserver(&destination), &key(seed))
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

async fn ask(server: &Server, headers: &[&str]) -> (StatusCode, Value) {
    let mut request = Request::get(PATH);
    for value in headers {
        request = request.header(header::AUTHORIZATION, *value);
    }
    server.answer(request.body(Body::empty()).unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn only_a_fresh_signature_of_the_sender_for_this_server_and_request_counts() {
    let net = FakeNet::new();
    let (_a, b) = pair(&net);
    let good = header_of("a.example", 1, "b.example", PATH);
    assert_eq!(ask(&b, &[&good]).await.0, StatusCode::NOT_FOUND);
    let without = good.replace("destination=\"b.example\",", "");
    assert_eq!(ask(&b, &[&without]).await.0, StatusCode::NOT_FOUND, "older servers leave it out");
    for (trick, headers) in [
        ("none", vec![]),
        ("two", vec![good.clone(), good.clone()]),
        ("for another server", vec![header_of("a.example", 1, "c.example", PATH)]),
        (
            "for another server, hidden",
            vec![header_of("a.example", 1, "c.example", PATH).replace("destination=\"c.example\",", "")],
        ),
        (
            "for another request",
            vec![header_of("a.example", 1, "b.example", "/_matrix/federation/v1/version")],
        ),
        ("by another key", vec![header_of("a.example", 9, "b.example", PATH).replace("k9", "k1")]),
        ("by an unknown key", vec![header_of("a.example", 9, "b.example", PATH)]),
        ("by ourselves", vec![header_of("b.example", 2, "b.example", PATH)]),
        ("by nobody", vec![header_of("nobody.example", 1, "b.example", PATH)]),
        ("token", vec!["Bearer abc".to_owned()]),
    ] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let (status, body) = ask(&b, &headers).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{trick}");
        assert_eq!(body["errcode"], "M_UNAUTHORIZED", "{trick}");
    }
}

#[tokio::test(start_paused = true)]
async fn servers_off_the_list_are_neither_answered_nor_asked() {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 1, config());
    let allow = Some(vec!["c.example".to_owned()]);
    let b = Server::start(&net, "b.example", 2, Config { allow, ..config() });
    let (status, body) = ask(&b, &[&header_of("a.example", 1, "b.example", PATH)]).await;
    assert_eq!((status, &body["errcode"]), (StatusCode::FORBIDDEN, &Value::from("M_FORBIDDEN")));
    let asked = b.network.alias(room_alias_id!("#x:a.example")).await;
    assert!(matches!(asked, Err(PeerError::Unreachable(_))), "{asked:?}");
    assert!(b.network.keys().ids(&a.name).await.is_empty(), "its keys were fetched all the same");
    b.network.allowed().replace(Some(&["a.example".to_owned()]));
    assert_eq!(ask(&b, &[&header_of("a.example", 1, "b.example", PATH)]).await.0, StatusCode::NOT_FOUND);
    assert!(matches!(b.network.alias(room_alias_id!("#x:a.example")).await, Err(PeerError::Refused { .. })));
}

fn hostile(net: &FakeNet, status: u16, body: &'static str) {
    let world = World::fake(Fake::new("evil.example", 66, net));
    let answer = tower::service_fn(move |_: Request<http_body_util::Full<bytes::Bytes>>| async move {
        let body = http_body_util::Full::new(bytes::Bytes::from_static(body.as_bytes()));
        Ok::<_, std::convert::Infallible>(http::Response::builder().status(status).body(body).unwrap())
    });
    net.route("evil.example", &world, answer);
}

#[tokio::test(start_paused = true)]
async fn hostile_answers_become_neutral_errors() {
    let alias = room_alias_id!("#x:evil.example");
    for (status, body) in [
        (401, r#"{"errcode":"M_UNKNOWN_TOKEN","soft_logout":false}"#),
        (429, r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":9999999}"#),
        (500, "<html>"),
        (302, ""),
        (200, "<html>"),
        (200, r#"{"room_id":7}"#),
    ] {
        let net = FakeNet::new();
        let b = Server::start(&net, "b.example", 2, config());
        hostile(&net, status, body);
        let error = b.network.alias(alias).await.unwrap_err();
        assert!(matches!(error, PeerError::Unreachable(_) | PeerError::Malformed(_)), "{status}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_is_left_alone_for_a_while() {
    let net = FakeNet::new();
    let b = Server::start(&net, "b.example", 2, config());
    hostile(&net, 503, "");
    let evil = server_name!("evil.example");
    b.network.event(evil, ruma::event_id!("$x")).await.unwrap_err();
    let requests = super::count(&net, "/_matrix/federation");
    b.network.event(evil, ruma::event_id!("$x")).await.unwrap_err();
    assert_eq!(requests.load(std::sync::atomic::Ordering::SeqCst), 0);
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    b.network.event(evil, ruma::event_id!("$x")).await.unwrap_err();
    assert_eq!(requests.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_finds_one_question_too_much_is_asked_others() {
    let net = FakeNet::new();
    let b = Server::start(&net, "b.example", 2, config());
    hostile(&net, 429, "{}");
    let evil = server_name!("evil.example");
    let requests = super::count(&net, "/_matrix/federation");
    for asked in [1, 2] {
        let error = b.network.event(evil, ruma::event_id!("$x")).await.unwrap_err();
        assert!(matches!(error, PeerError::Unreachable(_)), "{error:?}");
        assert_eq!(requests.load(std::sync::atomic::Ordering::SeqCst), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_of_the_network_that_does_not_know_us_yet_is_told_again() {
    use chappe_identity::{HomeserverError, Homeservers};
    for (status, body, again) in [
        (403, r#"{"errcode":"M_FORBIDDEN"}"#, true),
        (404, "<html>", true),
        (400, r#"{"errcode":"M_BINDING_NOT_PERMITTED"}"#, false),
        (429, "{}", true),
        (400, r#"{"errcode":"M_INVALID_PARAM"}"#, false),
    ] {
        let net = FakeNet::new();
        let b = Server::start(&net, "b.example", 2, config());
        hostile(&net, status, body);
        let told = b.federation.tell(server_name!("evil.example"), json!({})).await;
        assert_eq!(matches!(told, Err(HomeserverError::Unreachable)), again, "{status} {body}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_server_goes_out_once_it_is_allowed() {
    let net = FakeNet::new();
    let b = Server::start(&net, "b.example", 2, config());
    let allow = Some(Vec::new());
    let a = Server::start(&net, "a.example", 1, Config { allow, ..config() });
    let mut tx = chappe_store::Tx::new();
    tx.enqueue(&b.name, &chappe_store::OutboxItem::ToDevice("{}".to_owned()));
    a.store.commit(tx).await.unwrap();
    let requests = super::count(&net, "/");
    tokio::time::sleep(std::time::Duration::from_mins(10)).await;
    assert_eq!(requests.load(std::sync::atomic::Ordering::SeqCst), 0);
    a.network.allowed().replace(Some(&["b.example".to_owned()]));
    super::eventually("it is sent", async || a.waiting(&b).await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_server_refuses_is_found_and_left_out() {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 1, config());
    let world = World::fake(Fake::new("picky.example", 66, &net));
    let taken = Arc::new(Mutex::new(Vec::new()));
    let list = taken.clone();
    let answer = tower::service_fn(move |request: Request<http_body_util::Full<bytes::Bytes>>| {
        let list = list.clone();
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let read = serde_json::from_slice::<Value>(&body);
            let edus =
                read.as_ref().ok().and_then(|body| body["edus"].as_array().cloned()).unwrap_or_default();
            let bad = read.is_err() || edus.iter().any(|edu| edu["content"]["n"] == 3);
            if !bad {
                list.lock().extend(edus.iter().map(|edu| edu["content"]["n"].as_u64().unwrap()));
            }
            let (status, body) =
                if bad { (400, r#"{"errcode":"M_NOT_JSON","error":"no"}"#) } else { (200, r#"{"pdus":{}}"#) };
            let body = http_body_util::Full::new(bytes::Bytes::from_static(body.as_bytes()));
            Ok::<_, std::convert::Infallible>(http::Response::builder().status(status).body(body).unwrap())
        }
    });
    net.route("picky.example", &world, answer);
    let mut tx = chappe_store::Tx::new();
    // Too deep to be read by that server, once it is in a transaction.
    let deep = format!(r#"{{"n":6,"deep":{}{}}}"#, "[".repeat(125), "]".repeat(125));
    // What nobody can read at all.
    let half = r#"{"n":7,"half":"\ud800"}"#.to_owned();
    for content in
        [half].into_iter().chain((0..6).map(|n| format!(r#"{{"n":{n},"at":{n}.5}}"#))).chain([deep])
    {
        tx.enqueue(server_name!("picky.example"), &chappe_store::OutboxItem::ToDevice(content));
    }
    a.store.commit(tx).await.unwrap();
    super::eventually("the queue is empty", async || {
        a.store.read().outbox(server_name!("picky.example"), 10).await.unwrap().is_empty()
    })
    .await;
    assert_eq!(*taken.lock(), [0, 1, 2, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_becomes_a_users_brings_the_invites_that_waited() {
    let net = FakeNet::new();
    let (a, b) = pair(&net);
    let room = a.room("alice").await;
    let alice = a.actor("alice");
    let notary = key(9);
    let public = ruma::serde::Base64::<ruma::serde::base64::Standard, _>::new(notary.public_key().to_vec());
    let asked = json!({
        "display_name": "b...", "key_validity_url": "https://is.example/valid", "public_key": public,
        "public_keys": [{ "public_key": public }],
    });
    let asked = asked.as_object().unwrap().clone();
    let draft = chappe_rooms::Draft::state("m.room.third_party_invite", "tok", asked);
    a.rooms.send(&alice, &room, draft, None).await.unwrap();
    let bob = b.account("bob").await;
    let mut signed = serde_json::from_value(json!({ "mxid": bob, "token": "tok" })).unwrap();
    notary.sign_json(server_name!("is.example"), &mut signed);
    let bound = |mxid: &str, signed: &ruma::CanonicalJsonObject| {
        let invite = json!({
            "medium": "email", "address": "b@example.org", "mxid": mxid, "room_id": room,
            "sender": alice.user, "signed": signed,
        });
        json!({ "medium": "email", "address": "b@example.org", "mxid": mxid, "invites": [invite] })
    };
    let exchanged = Arc::new(Mutex::new(Vec::new()));
    let list = exchanged.clone();
    net.judge(move |_, _, request| {
        if request.uri().path().contains("/exchange_third_party_invite/") {
            list.lock().push(serde_json::from_slice::<Value>(request.body()).unwrap());
        }
        Fate::Deliver
    });
    let put = async |body: Value| {
        let request = Request::put("/_matrix/federation/v1/3pid/onbind").body(Body::from(body.to_string()));
        b.router.clone().oneshot(request.unwrap()).await.unwrap().status()
    };
    // Whoever asks does not learn whether there is such a user.
    assert_eq!(put(bound("@nobody:b.example", &signed)).await, StatusCode::OK);
    for nobody_invites in ["@nobody:b.example", bob.as_str()] {
        let body =
            json!({ "medium": "email", "address": "b@example.org", "mxid": nobody_invites, "invites": [] });
        assert_eq!(put(body).await, StatusCode::OK);
    }
    assert_eq!(put(bound("@bob:elsewhere.example", &signed)).await, StatusCode::NOT_FOUND);
    let mut forged = signed.clone();
    forged.insert("token".to_owned(), ruma::CanonicalJsonValue::String("other".to_owned()));
    assert_eq!(put(bound(bob.as_str(), &forged)).await, StatusCode::OK);
    assert!(b.store.read().out_of_band(&bob, &room).await.unwrap().is_none());
    net.unroute("a.example");
    assert_eq!(put(bound(bob.as_str(), &signed)).await, StatusCode::BAD_GATEWAY, "to be tried again");
    assert_eq!(put(bound("@nobody:b.example", &signed)).await, StatusCode::BAD_GATEWAY);
    a.back(&net);
    tokio::time::advance(std::time::Duration::from_hours(1)).await;
    // As identity servers of old do it.
    let body = Body::from(bound(bob.as_str(), &signed).to_string());
    let posted = Request::post("/_matrix/federation/v1/3pid/onbind").body(body).unwrap();
    assert_eq!(b.router.clone().oneshot(posted).await.unwrap().status(), StatusCode::OK);
    let asked = exchanged.lock().last().cloned().unwrap();
    assert_eq!(
        (&asked["room_id"], &asked["type"]),
        (&json!(room), &json!("m.room.member")),
        "all of it is needed"
    );
    let invite = b.store.read().out_of_band(&bob, &room).await.unwrap().unwrap().value.0;
    assert_eq!(invite.kind(), Some(chappe_store::Membership::Invite));
    b.rooms.join(&b.actor("bob"), &room, Vec::new(), serde_json::Map::new()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_uses_something_up_is_not_asked_again_when_a_connection_breaks() {
    let net = FakeNet::new();
    let (a, b) = pair(&net);
    let once: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&once);
    net.judge(move |from, _, request| {
        let ours = from == "a.example" && request.headers().contains_key(header::AUTHORIZATION);
        if ours && request.extensions().get::<Repeatable>().is_none() {
            seen.lock().push(request.uri().path().to_owned());
        }
        Fate::Deliver
    });
    assert!(a.network.event(&b.name, event_id!("$nobodys")).await.is_err());
    a.federation.claim_keys(&b.name, Claim::new()).await.unwrap();
    assert_eq!(*once.lock(), ["/_matrix/federation/v1/user/keys/claim"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_that_was_read_keeps_nobody_from_reading_others() {
    let net = FakeNet::new();
    let b = Server::start(&net, "b.example", 2, config());
    let peer = Peer::start(&net, "n.example", 5);
    peer.answer(|uri| uri.contains("/state/").then(|| Body::from(r#"{"pdus":[],"auth_chain":[]}"#)));
    let (room, event) = (room_id!("!r:n.example"), event_id!("$e"));
    let state = || Peers::state(&b.network, &peer.name, room, event, Occasion::Received);
    let held = (state().await.unwrap(), state().await.unwrap());
    let soon = std::time::Duration::from_secs(5);
    let next = b.world.timeout(soon, state()).await;
    assert!(next.is_some_and(|next| next.is_ok()), "a third one is not read while two are worked on");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_a_users_keys_has_a_length() {
    let net = FakeNet::new();
    let b = Server::start(&net, "b.example", 2, config());
    let peer = Peer::start(&net, "n.example", 5);
    for (length, taken) in [(3 << 20, true), (3_200 << 10, false)] {
        peer.answer(move |uri| {
            let answer = json!({ "device_keys": {}, "x": "x".repeat(length) }).to_string();
            uri.contains("/keys/query").then(|| Body::from(answer))
        });
        let users = [(user_id!("@eve:n.example").to_owned(), Vec::new())].into();
        let asker = user_id!("@bob:b.example");
        let told = devices::ask(&b, asker, &peer.name, users).await;
        assert_eq!(told.is_ok(), taken, "{length}");
    }
}
