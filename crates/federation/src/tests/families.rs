//! What a hostile member's server may push: signed transactions over the whole way, from the header to what the room shows.
//! docs/security.md says which family of attacks each belongs to.

use axum::body::Body;
use chappe_rooms::Draft;
use chappe_rules::{Pdu, build::SigningKey};
use chappe_world::FakeNet;
use http::{Method, Request, StatusCode, header};
use ruma::{OwnedEventId, RoomId, events::TimelineEventType, server_name};
use serde_json::{Value, json};

use super::{
    Server, eventually, key,
    lies::{MALLORY, body, news, open_room, seat, shown},
    peer::{Peer, Seat, raw},
};
use crate::auth::{Addressee, Signed, sign};

/// Sends a body as it stands, signed by `signer` for evil.example.
async fn put(a: &Server, signer: &SigningKey, txn: &str, body: &str) -> (StatusCode, Value) {
    let uri = format!("/_matrix/federation/v1/send/{txn}");
    let signed = Signed { method: &Method::PUT, uri: &uri, body: body.as_bytes() };
    let proof = sign(signed, server_name!("evil.example"), Addressee::homeserver(&a.name), signer).unwrap();
    let request = Request::put(&uri).header(header::AUTHORIZATION, proof).body(Body::from(body.to_owned()));
    a.answer(request.unwrap()).await
}

/// A transaction of these events, as text.
fn transaction(pdus: &[String]) -> String {
    format!(r#"{{"origin":"evil.example","origin_server_ts":1,"pdus":[{}]}}"#, pdus.join(","))
}

async fn takes(a: &Server, pdu: &Pdu) -> bool {
    a.has(&pdu.event_id().to_owned()).await
}

/// Sends a good message and has it taken.
async fn goes_on(a: &Server, (evil, seat): (&Peer, &Seat), body: &str) {
    let good = evil.message(seat, body, &[seat.join.as_str()], seat.depth + 1);
    let told = evil.send(a, &body.replace(' ', "-"), std::slice::from_ref(&good)).await;
    assert_eq!(told[good.event_id().as_str()], json!({}), "{body}");
    assert_eq!(shown(a, &seat.room).await.last().map(String::as_str), Some(body));
}

async fn set(a: &Server, room: &RoomId, kind: &str, content: Value) -> OwnedEventId {
    let draft = Draft::state(TimelineEventType::from(kind), "", content.as_object().unwrap().clone());
    a.rooms.send(&a.actor("alice"), room, draft, None).await.unwrap()
}

/// Whether the event stands redacted.
pub(super) async fn is_redacted(a: &Server, room: &RoomId, event: &OwnedEventId) -> bool {
    let reader = a.store.read();
    let nid = reader.room_nid(room).await.unwrap().unwrap();
    let num = reader.event_num(nid, event).await.unwrap().unwrap();
    reader.event_meta(nid, num).await.unwrap().redacted_by.some().is_some()
}

#[tokio::test(start_paused = true)]
async fn families_1_to_3_bad_events_are_dropped_alone_over_the_wire() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let signed = |change: &dyn Fn(&mut Value)| {
        let mut event =
            seat.event("m.room.message", json!({ "body": "bad" }), &[seat.join.as_str()], seat.depth + 1);
        change(&mut event);
        evil.signed(seat.rules, &event).unwrap().to_string()
    };
    let plain = signed(&|_| {});
    let depth = format!("\"depth\":{}", seat.depth + 1);
    let with_depth = |to: &str| plain.replace(&depth, &format!("\"depth\":{to}"));
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let bad = [
        ("depth below nothing", with_depth("-1")),
        ("depth of 2^53", with_depth("9007199254740992")),
        ("depth of 2^63", with_depth("9223372036854775808")),
        ("half a depth", with_depth("1.5")),
        ("depth as text", with_depth("\"1\"")),
        ("a large number", plain.replace("\"bad\"", "9007199254740993")),
        ("a fraction", plain.replace("\"bad\"", "0.5")),
        ("a key twice", plain.replace("\"body\":\"bad\"", "\"body\":\"bad\",\"body\":\"worse\"")),
        ("too deep", plain.replace("\"bad\"", &deep(200))),
        ("no object", "[]".to_owned()),
        ("a long type", signed(&|event| event["type"] = json!("t".repeat(256)))),
        (
            "a long sender",
            signed(&|event| event["sender"] = json!(format!("@{}:evil.example", "x".repeat(250)))),
        ),
        ("65,537 bytes", sized(&evil, &seat, 65_537)),
    ];
    for (number, (what, event)) in bad.into_iter().enumerate() {
        let name = format!("good after {what}");
        let good = evil.message(&seat, &name, &[seat.join.as_str()], seat.depth + 1);
        let body = transaction(&[event, good.json().to_owned()]);
        let (status, told) = put(&a, &key(6), &format!("bad{number}"), &body).await;
        assert_eq!(status, StatusCode::OK, "{what}: {told}");
        assert!(takes(&a, &good).await, "{what}");
        assert_eq!(shown(&a, &seat.room).await.last(), Some(&name));
    }
    assert!(shown(&a, &seat.room).await.iter().all(|body| body.starts_with("good after")));
    let largest = sized(&evil, &seat, 65_536);
    assert_eq!(put(&a, &key(6), "largest", &transaction(&[largest])).await.0, StatusCode::OK);
    let kept = shown(&a, &seat.room).await;
    assert!(kept.last().unwrap().len() > 60_000, "the largest event is one");
}

/// A message whose canonical form has so many bytes.
fn sized(evil: &Peer, seat: &Seat, bytes: usize) -> String {
    let of = |length: usize| {
        let content = json!({ "body": "x".repeat(length) });
        let event = seat.event("m.room.message", content, &[seat.join.as_str()], seat.depth + 1);
        evil.signed(seat.rules, &event).unwrap().to_string()
    };
    let event = of(bytes - of(0).len());
    assert_eq!(event.len(), bytes);
    event
}

#[tokio::test(start_paused = true)]
async fn family_4_what_is_packed_is_not_unpacked() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    for encoding in ["gzip", "br", "zstd", "deflate"] {
        let uri = "/_matrix/federation/v1/send/packed";
        let body = r#"{"origin":"evil.example","origin_server_ts":1,"pdus":[]}"#;
        let signed = Signed { method: &Method::PUT, uri, body: body.as_bytes() };
        let proof =
            sign(signed, server_name!("evil.example"), Addressee::homeserver(&a.name), &key(6)).unwrap();
        // Ten bytes that gzip would begin with: nobody looks what they may become.
        let packed = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3].repeat(100);
        let request = Request::put(uri)
            .header(header::AUTHORIZATION, proof)
            .header(header::CONTENT_ENCODING, encoding)
            .body(Body::from(packed));
        let (status, told) = a.answer(request.unwrap()).await;
        assert!(status.is_client_error(), "{encoding}: {status} {told}");
    }
    goes_on(&a, (&evil, &seat), "still here").await;
}

#[tokio::test(start_paused = true)]
async fn families_5_and_7_what_rests_on_what_was_refused_is_refused() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let other = open_room(&a, "11", None).await;
    let other = evil.join(&a, &other, MALLORY).await;
    let join = seat.join.as_str();
    let mut levels =
        seat.event("m.room.power_levels", json!({ "users": { MALLORY: 100 } }), &[join], seat.depth + 1);
    levels["state_key"] = json!("");
    let levels = evil.sign(seat.rules, levels);
    let id = levels.event_id().to_string();
    let justified = |change: &dyn Fn(&mut Vec<Value>), name: &str| {
        let mut event = seat.event("m.room.message", json!({ "body": name }), &[join], seat.depth + 2);
        change(event["auth_events"].as_array_mut().unwrap());
        evil.sign(seat.rules, event)
    };
    let rejected = justified(&|auth| auth.push(json!(id)), "by what was refused");
    let doubled = justified(&|auth| auth.push(auth[0].clone()), "by one twice");
    let foreign = justified(&|auth| auth.push(json!(other.join)), "by another room's");
    let homeless = justified(&|auth| auth.clear(), "by nothing");
    let after = evil.message(&seat, "after what was refused", &[&id], seat.depth + 2);
    let pdus = [levels.clone(), rejected.clone(), doubled.clone(), foreign.clone(), homeless, after.clone()];
    evil.send(&a, "all", &pdus).await;
    // What comes after a refused event is judged by the state before that one: it is taken and shown.
    assert_eq!(shown(&a, &seat.room).await, ["after what was refused"]);
    assert_eq!(
        a.current(&seat.room, "m.room.power_levels", "").await["content"]["users"][MALLORY],
        Value::Null
    );
    // Nor does it help to come again, alone.
    for (number, pdu) in [levels, rejected, doubled, foreign].iter().enumerate() {
        evil.send(&a, &format!("again{number}"), std::slice::from_ref(pdu)).await;
    }
    assert_eq!(shown(&a, &seat.room).await, ["after what was refused"]);
    assert!(takes(&a, &after).await);
}

#[tokio::test(start_paused = true)]
async fn family_6_nothing_is_believed_that_its_server_did_not_sign() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "10").await;
    let join = seat.join.as_str();
    let invited = "@friend:evil.example";
    // An invite in the name of whoever may invite: what excuses a missing signature is gone once the hash is wrong.
    let mut invite = seat.event("m.room.member", json!({ "membership": "invite" }), &[join], seat.depth + 1);
    invite["sender"] = json!("@alice:a.example");
    invite["state_key"] = json!(invited);
    let state = a.store.read();
    let nid = state.room_nid(&seat.room).await.unwrap().unwrap();
    let member = chappe_store::state::StateKey::new("m.room.member", "@alice:a.example");
    let num = state.state_now(nid, &[member]).await.unwrap()[0].unwrap();
    let alice = state.pdu(nid, num).await.unwrap().event_id.clone();
    drop(state);
    let auth = invite["auth_events"].as_array_mut().unwrap();
    auth.retain(|id| id != join);
    auth.push(json!(alice));
    let mut forged = evil.signed(seat.rules, &invite).unwrap();
    forged["content"] = json!({ "membership": "invite", "third_party_invite": {} });
    let unsigned = {
        let mut event = raw(&evil.message(&seat, "unsigned", &[join], seat.depth + 1));
        event["signatures"] = json!({});
        event
    };
    let altered = {
        let text = evil.message(&seat, "signed by another key", &[join], seat.depth + 1).json().to_owned();
        let mut event: Value = serde_json::from_str(&text).unwrap();
        event["origin_server_ts"] = json!(1_780_000_000_001_u64);
        event
    };
    let late = {
        let mut event = seat.event("m.room.message", json!({ "body": "after my key's end" }), &[join], 9);
        event["origin_server_ts"] = json!(9_007_199_254_740_991_u64);
        evil.signed(seat.rules, &event).unwrap()
    };
    let hollow = {
        let mut event = raw(&evil.message(&seat, "as it was", &[join], seat.depth + 1));
        event["content"]["body"] = json!("as it is not");
        event
    };
    for (number, event) in [forged, unsigned, altered, late, hollow].iter().enumerate() {
        let (status, told) =
            put(&a, &key(6), &format!("lie{number}"), &transaction(&[event.to_string()])).await;
        assert_eq!(status, StatusCode::OK, "{told}");
    }
    assert_eq!(a.current(&seat.room, "m.room.member", invited).await, Value::Null, "nobody is invited");
    assert!(shown(&a, &seat.room).await.is_empty(), "{:?}", shown(&a, &seat.room).await);
    assert_eq!(put(&a, &key(7), "x", &transaction(&[])).await.0, StatusCode::UNAUTHORIZED);
    goes_on(&a, (&evil, &seat), "still here").await;
}

#[tokio::test(start_paused = true)]
async fn family_13_an_offer_does_not_outlive_the_rule_it_was_made_under() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let (room, second) = (&seat.room, "@second:evil.example");
    let uri = format!("/_matrix/federation/v1/make_join/{room}/{second}?ver=11");
    let (status, offer) = evil.call(&a, Method::GET, &uri, &Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{offer}");
    set(&a, room, "m.room.join_rules", json!({ "join_rule": "invite" })).await;
    let late = evil.sign(seat.rules, offer["event"].clone());
    let uri = format!("/_matrix/federation/v2/send_join/{room}/{}", late.event_id());
    let (status, told) = evil.call(&a, Method::PUT, &uri, &raw(&late)).await;
    assert_eq!((status, &told["errcode"]), (StatusCode::FORBIDDEN, &json!("M_FORBIDDEN")));
    assert_eq!(a.current(room, "m.room.member", second).await, Value::Null);
}

#[tokio::test(start_paused = true)]
async fn family_15_nobody_without_power_redacts_others_from_elsewhere() {
    for version in ["10", "11"] {
        let net = FakeNet::new();
        let (a, evil, seat) = seat(&net, version).await;
        let join = seat.join.as_str();
        let said = a.say("alice", &seat.room, "hers").await;
        let elsewhere = open_room(&a, version, None).await;
        let foreign = a.say("alice", &elsewhere, "in another room").await;
        let own = evil.message(&seat, "mine", &[join], seat.depth + 1);
        evil.send(&a, "own", std::slice::from_ref(&own)).await;
        let create = seat.state[0].clone();
        let redact = |target: &OwnedEventId, in_content: bool| {
            let content = if in_content { json!({ "redacts": target }) } else { json!({}) };
            let mut event = seat.event("m.room.redaction", content, &[join], seat.depth + 2);
            if !in_content {
                event["redacts"] = json!(target);
            }
            evil.sign(seat.rules, event)
        };
        let own = own.event_id().to_owned();
        let (alice, mut told) = (a.actor("alice").user, Vec::new());
        for (number, target) in [&said, &foreign, &create, &own].into_iter().enumerate() {
            for in_content in [false, true] {
                let txn = format!("r{number}{in_content}");
                let redaction = redact(target, in_content);
                evil.send(&a, &txn, std::slice::from_ref(&redaction)).await;
                assert!(a.has(&redaction.event_id().to_owned()).await);
                let seen = a.rooms.visible_to_user(&alice, &seat.room, redaction.event_id());
                told.push(seen.await.is_ok());
            }
        }
        let of_own = [version == "10", version == "11"];
        assert_eq!(told[..6], [false; 6], "clients would apply them, {version}");
        assert_eq!(told[6..], of_own, "{version}");
        assert!(!is_redacted(&a, &seat.room, &said).await, "{version}");
        assert!(!is_redacted(&a, &elsewhere, &foreign).await, "{version}");
        assert!(!is_redacted(&a, &seat.room, &create).await, "{version}");
        assert!(is_redacted(&a, &seat.room, &own).await, "one's own words are one's own, {version}");
    }
}

#[tokio::test(start_paused = true)]
async fn family_15_what_was_taken_back_stays_so_though_history_brings_it_whole() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let said = evil.message(&seat, "taken back", &[seat.join.as_str()], seat.depth + 1);
    let content = json!({ "redacts": said.event_id() });
    let taken_back = seat.event("m.room.redaction", content, &[said.event_id().as_str()], seat.depth + 2);
    let taken_back = evil.sign(seat.rules, taken_back);
    let middle = evil.message(&seat, "middle", &[taken_back.event_id().as_str()], seat.depth + 3);
    let state: Vec<&str> = seat.state.iter().chain([&seat.join]).map(|id| id.as_str()).collect();
    let state = json!({ "pdu_ids": state, "auth_chain_ids": [] });
    let (old, page) = (raw(&taken_back), json!([raw(&taken_back), raw(&said)]));
    let between = raw(&middle);
    evil.answer(move |uri| {
        let told = |pdus: &Value| json!({ "origin": "x", "origin_server_ts": 1, "pdus": pdus });
        let answer = match uri {
            uri if uri.contains("/get_missing_events/") => json!({ "events": [between] }),
            uri if uri.contains("/state_ids/") => state.clone(),
            uri if uri.contains("/event/") => told(&json!([old])),
            uri if uri.contains("/backfill/") => told(&page),
            _ => return None,
        };
        Some(Body::from(answer.to_string()))
    });
    assert!(news(&a, (&evil, &seat), "news", middle.event_id().as_str()).await);
    assert_eq!(a.rooms.fetch_older(&seat.room, 100).await.unwrap(), 2);
    assert!(is_redacted(&a, &seat.room, &said.event_id().to_owned()).await);
}

#[tokio::test(start_paused = true)]
async fn family_15_what_was_redacted_before_it_had_a_place_stays_so() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let withheld = evil.message(&seat, "withheld", &[seat.join.as_str()], seat.depth + 1);
    let given = evil.message(&seat, "given", &[withheld.event_id().as_str()], seat.depth + 2);
    let state: Vec<&str> = seat.state.iter().chain([&seat.join]).map(|id| id.as_str()).collect();
    let state = json!({ "pdu_ids": state, "auth_chain_ids": [] });
    let single = json!({ "origin": "x", "origin_server_ts": 1, "pdus": [raw(&withheld)] });
    let between = json!({ "events": [raw(&given)] });
    evil.answer(move |uri| match uri {
        uri if uri.contains("/get_missing_events/") => body(&between),
        uri if uri.contains("/state_ids/") => body(&state),
        uri if uri.contains("/event/") => body(&single),
        _ => None,
    });
    assert!(news(&a, (&evil, &seat), "news", given.event_id().as_str()).await);
    let target = withheld.event_id().to_owned();
    a.rooms.send(&a.actor("alice"), &seat.room, Draft::redaction(&target, None), None).await.unwrap();
    assert!(is_redacted(&a, &seat.room, &target).await);
    evil.send(&a, "late", std::slice::from_ref(&withheld)).await;
    assert!(shown(&a, &seat.room).await.contains(&"withheld".to_owned()), "it has its place");
    assert!(is_redacted(&a, &seat.room, &target).await);
}

#[tokio::test(start_paused = true)]
async fn family_16_of_a_server_kept_out_not_even_typing_is_heard() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let typing = |txn: &'static str| {
        let edu = json!({ "edu_type": "m.typing",
            "content": { "room_id": seat.room, "user_id": MALLORY, "typing": true } });
        let body = json!({ "origin": evil.name, "origin_server_ts": 1, "pdus": [], "edus": [edu] });
        let (a, evil) = (&a, &evil);
        async move {
            let uri = format!("/_matrix/federation/v1/send/{txn}");
            assert_eq!(evil.call(a, Method::PUT, &uri, &body).await.0, StatusCode::OK);
        }
    };
    typing("before").await;
    eventually("it is heard", async || !a.seen.typing.lock().is_empty()).await;
    let acl = json!({ "allow": ["*"], "deny": ["evil.*", "a.example"], "allow_ip_literals": false });
    set(&a, &seat.room, "m.room.server_acl", acl).await;
    a.seen.typing.lock().clear();
    typing("after").await;
    let message = evil.message(&seat, "kept out", &[seat.join.as_str()], seat.depth + 1);
    let told = evil.send(&a, "kept-out", std::slice::from_ref(&message)).await;
    assert!(told[message.event_id().as_str()]["error"].is_string(), "{told}");
    assert!(a.seen.typing.lock().is_empty());
    assert!(!takes(&a, &message).await);
    // A list that keeps this server itself out keeps nobody here from going on.
    let own = a.say("alice", &seat.room, "alone").await;
    assert!(a.has(&own).await);
}

#[tokio::test(start_paused = true)]
async fn family_17_a_server_without_a_user_in_the_room_reads_the_same_everywhere() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let stranger = Peer::start(&net, "stranger.example", 9);
    let closed = {
        let mut request = ruma::api::client::room::create_room::v3::Request::new();
        request.preset = Some(ruma::api::client::room::create_room::v3::RoomPreset::PrivateChat);
        a.rooms.create(&a.actor("alice"), request).await.unwrap()
    };
    let event = a.say("alice", &closed, "between us").await;
    let nobodys = "$BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";
    let of = |room: &str, event: &str| {
        let v1 = "/_matrix/federation/v1";
        [
            (Method::GET, format!("{v1}/state/{room}?event_id={event}"), Value::Null),
            (Method::GET, format!("{v1}/state_ids/{room}?event_id={event}"), Value::Null),
            (Method::GET, format!("{v1}/event/{event}"), Value::Null),
            (Method::GET, format!("{v1}/event_auth/{room}/{event}"), Value::Null),
            (Method::GET, format!("{v1}/backfill/{room}?v={event}&limit=10"), Value::Null),
            (Method::GET, format!("{v1}/timestamp_to_event/{room}?ts=1&dir=f"), Value::Null),
            (Method::GET, format!("{v1}/hierarchy/{room}"), Value::Null),
            (
                Method::POST,
                format!("{v1}/get_missing_events/{room}"),
                json!({ "earliest_events": [], "latest_events": [event], "limit": 10 }),
            ),
        ]
    };
    let there = of(closed.as_str(), event.as_str());
    let nowhere = of("!nowhere:a.example", nobodys);
    for ((method, uri, body), (_, other, other_body)) in there.into_iter().zip(nowhere) {
        let told = stranger.call(&a, method.clone(), &uri, &body).await;
        assert!(!told.0.is_success(), "{uri}: {told:?}");
        let of_nothing = stranger.call(&a, method, &other, &other_body).await;
        assert_eq!(told, of_nothing, "{uri}");
    }
    // Who was put out reads no more than who never came.
    let banned = seat.room.clone();
    let user = ruma::UserId::parse(MALLORY).unwrap();
    a.rooms.change(&a.actor("alice"), &banned, &user, chappe_rooms::Change::Ban, None).await.unwrap();
    let later = a.say("alice", &banned, "now that they are gone").await;
    for (method, uri, body) in of(banned.as_str(), later.as_str()) {
        let told = evil.call(&a, method, &uri, &body).await;
        assert!(!told.1.to_string().contains("now that they are gone"), "{uri}: {told:?}");
    }
}
