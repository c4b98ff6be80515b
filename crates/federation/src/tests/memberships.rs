//! What is no membership that its door is for, and what invites and answers to knocks say of a room.

use chappe_rules::{Pdu, build::SigningKey, version};
use chappe_world::FakeNet;
use http::{Method, StatusCode};
use ruma::{
    CanonicalJsonObject, OwnedRoomId, RoomId, RoomVersionId, UserId, canonical_json::try_from_json_map,
    server_name,
};
use serde_json::{Value, json};

use super::{
    Server, config,
    lies::{MALLORY, seat},
    peer::{Peer, Seat, raw},
};

/// The doors for memberships, and which.
const DOORS: [(&str, &str); 5] = [
    ("v1/send_join", "join"),
    ("v2/send_join", "join"),
    ("v1/send_leave", "leave"),
    ("v2/send_leave", "leave"),
    ("v1/send_knock", "knock"),
];

/// A membership of a user of the peer, otherwise than it should be.
fn member(seat: &Seat, membership: &str, changes: &Value) -> Value {
    let mut event =
        seat.event("m.room.member", json!({ "membership": membership }), &[seat.join.as_str()], 20);
    event["state_key"] = json!(MALLORY);
    for (field, value) in changes.as_object().unwrap() {
        event[field] = value.clone();
    }
    event
}

#[tokio::test(start_paused = true)]
async fn each_door_takes_its_own_membership_alone() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let put = async |door: &str, room: &RoomId, event: &Value, id: &str| {
        let uri = format!("/_matrix/federation/{door}/{room}/{id}");
        let (status, told) = evil.call(&a, Method::PUT, &uri, event).await;
        (status, told["errcode"].as_str().unwrap_or_default().to_owned())
    };
    let invalid = (StatusCode::BAD_REQUEST, "M_INVALID_PARAM".to_owned());
    for (door, membership) in DOORS {
        let id = |event: &Value| {
            Pdu::parse(seat.rules, event.to_string().as_bytes()).unwrap().event_id().to_owned()
        };
        let mut wrong: Vec<Value> = vec![
            json!({ "type": "m.room.message" }),
            json!({ "state_key": null }),
            json!({ "state_key": "@doris:evil.example" }),
            json!({ "sender": "@alice:a.example", "state_key": "@alice:a.example" }),
            json!({ "sender": "@carol:c.example", "state_key": "@carol:c.example" }),
            json!({ "room_id": "!other:evil.example" }),
            json!({ "content": {} }),
        ];
        let others =
            ["join", "leave", "knock", "invite", "ban"].into_iter().filter(|other| *other != membership);
        wrong.extend(others.map(|other| json!({ "content": { "membership": other } })));
        for changes in wrong {
            let mut event = member(&seat, membership, &changes);
            event.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            let event = raw(&evil.sign(seat.rules, event));
            assert_eq!(put(door, &seat.room, &event, id(&event).as_str()).await, invalid, "{door} {changes}");
        }
        let good = raw(&evil.sign(seat.rules, member(&seat, membership, &json!({}))));
        assert_eq!(put(door, &seat.room, &good, "$elsewhere").await, invalid, "{door}: another id");
        let mut forged = good.clone();
        forged["depth"] = json!(21);
        assert_eq!(put(door, &seat.room, &forged, id(&forged).as_str()).await, invalid, "{door}: forged");
        let mut unsigned = good.clone();
        unsigned["signatures"] = json!({});
        assert_eq!(put(door, &seat.room, &unsigned, id(&good).as_str()).await, invalid, "{door}: unsigned");
        for (field, value) in [("sender", json!("nobody")), ("prev_events", json!(7)), ("type", json!(null))]
        {
            let mut event = good.clone();
            event[field] = value;
            assert_eq!(put(door, &seat.room, &event, "$id").await, invalid, "{door}: {field}");
        }
        let mut fraction = good.clone();
        fraction["content"]["n"] = json!(1.5);
        let bad_json = (StatusCode::BAD_REQUEST, "M_BAD_JSON".to_owned());
        assert_eq!(put(door, &seat.room, &fraction, "$id").await, bad_json, "{door}");
        let nowhere = RoomId::parse("!nowhere:a.example").unwrap();
        let unknown = (StatusCode::NOT_FOUND, "M_NOT_FOUND".to_owned());
        assert_eq!(put(door, &nowhere, &good, id(&good).as_str()).await, unknown, "{door}");
    }
}

/// A room of the peer's of version 12 that is nowhere, and its state.
fn imagined(evil: &Peer) -> (OwnedRoomId, Value, Value) {
    let rules = version::rules(&RoomVersionId::V12).unwrap();
    let event = |kind: &str, content: Value| {
        json!({
            "type": kind, "state_key": "", "sender": MALLORY, "content": content, "depth": 1,
            "origin_server_ts": 1, "prev_events": [], "auth_events": [],
        })
    };
    let create = evil.sign(rules, event("m.room.create", json!({ "room_version": "12" })));
    let mut name = event("m.room.name", json!({ "name": "Nowhere" }));
    name["room_id"] = json!(create.room_id());
    (create.room_id().to_owned(), raw(&create), raw(&evil.sign(rules, name)))
}

/// The same event without its evidence.
fn bare(event: &Value) -> Value {
    json!({
        "type": event["type"], "state_key": event["state_key"], "sender": event["sender"], "content": event["content"],
    })
}

/// Named as signed by a server whose keys nobody gets any more.
fn of_a_lost_server(room: &RoomId) -> Value {
    let rules = version::rules(&RoomVersionId::V12).unwrap();
    let event = json!({
        "type": "m.room.topic", "state_key": "", "sender": "@x:lost.example", "content": { "topic": "lost" }, "depth": 1,
        "origin_server_ts": 1, "prev_events": [], "auth_events": [], "room_id": room,
        "hashes": { "sha256": "AAAA" }, "signatures": {},
    });
    let mut event: CanonicalJsonObject = try_from_json_map(event.as_object().unwrap().clone()).unwrap();
    SigningKey::from_seed([9; 32], "9").unwrap().sign_json(server_name!("lost.example"), &mut event);
    assert!(Pdu::parse(rules, serde_json::to_string(&event).unwrap().as_bytes()).is_ok());
    serde_json::to_value(event).unwrap()
}

/// What is shown of a room, by type.
async fn shown(server: &Server, user: &UserId, room: &RoomId) -> Vec<String> {
    let kept = server.store.read().out_of_band(user, room).await.unwrap().unwrap().value.0;
    let entries = kept.state.iter().map(|raw| serde_json::from_str::<Value>(raw.get()).unwrap());
    let kind = |entry: Value| {
        assert!(entry.get("signatures").is_none(), "{entry}");
        entry["type"].as_str().unwrap().trim_start_matches("m.room.").to_owned()
    };
    entries.map(kind).collect()
}

#[tokio::test(start_paused = true)]
async fn an_invite_tells_of_its_room_in_whole_and_signed_events() {
    let net = FakeNet::new();
    let (a, evil) = (Server::start(&net, "a.example", 1, config()), Peer::start(&net, "evil.example", 6));
    let alice = a.account("alice").await;
    let (room, create, name) = imagined(&evil);
    let (_, other_create, other_name) = {
        let mut others = imagined(&evil);
        others.1["origin_server_ts"] = json!(2);
        others.2["room_id"] = json!("!other:evil.example");
        others
    };
    let forged = |event: &Value, field: &str, value: Value| {
        let mut event = event.clone();
        event[field] = value;
        event
    };
    let with_key = |signature: &str| json!({ "evil.example": { "ed25519:k6": signature } });
    let invite = async |told: Option<&Value>| {
        let event = json!({
            "room_id": room, "sender": MALLORY, "type": "m.room.member", "state_key": alice, "depth": 9,
            "content": { "membership": "invite" }, "prev_events": ["$x"], "auth_events": [], "origin_server_ts": 1,
        });
        let pdu = evil.sign(version::rules(&RoomVersionId::V12).unwrap(), event);
        let mut body = json!({ "room_version": "12", "event": raw(&pdu) });
        if let Some(told) = told {
            body["invite_room_state"] = told.clone();
        }
        let uri = format!("/_matrix/federation/v2/invite/{room}/{}", pdu.event_id());
        evil.call(&a, Method::PUT, &uri, &body).await
    };
    let refused = [
        ("nothing", None),
        ("an empty list", Some(json!([]))),
        ("no list", Some(json!("x"))),
        ("no create event", Some(json!([name]))),
        ("stripped events", Some(json!([bare(&create), bare(&name)]))),
        ("a stripped create event more", Some(json!([create, bare(&create)]))),
        ("another room's create event", Some(json!([other_create, name]))),
        ("another room's name", Some(json!([create, other_name]))),
        ("no event", Some(json!([create, { "type": "m.room.topic" }]))),
        ("a number", Some(json!([create, 7]))),
        ("a forged name", Some(json!([create, forged(&name, "sender", json!("@root:evil.example"))]))),
        ("an unsigned name", Some(json!([create, forged(&name, "signatures", json!({}))]))),
        ("an unsigned create event", Some(json!([forged(&create, "signatures", json!({})), name]))),
        ("a wrong signature", Some(json!([forged(&create, "signatures", with_key(&"A".repeat(86)))]))),
    ];
    for (what, told) in refused {
        let (status, answer) = invite(told.as_ref()).await;
        let expected = (StatusCode::BAD_REQUEST, &json!("M_INVALID_PARAM"));
        assert_eq!((status, &answer["errcode"]), expected, "{what}: {answer}");
        assert!(a.store.read().out_of_band(&alice, &room).await.unwrap().is_none(), "{what}");
    }
    let changed = forged(&name, "content", json!({ "name": "Forged" }));
    let taken: [(&str, Value, &[&str]); 4] = [
        ("whole events", json!([name, create]), &["create", "name"]),
        ("as Synapse told it before", json!([create, bare(&name)]), &["create", "name"]),
        ("signed by a server that is gone", json!([of_a_lost_server(&room), create]), &["create"]),
        ("content changed: what redaction leaves", json!([create, changed]), &["create", "name"]),
    ];
    for (what, told, kinds) in taken {
        let (status, answer) = invite(Some(&told)).await;
        assert_eq!(status, StatusCode::OK, "{what}: {answer}");
        assert!(answer["event"]["signatures"]["a.example"].is_object(), "{answer}");
        assert_eq!(shown(&a, &alice, &room).await, kinds, "{what}");
    }
    let kept = a.store.read().out_of_band(&alice, &room).await.unwrap().unwrap().value.0;
    assert!(!kept.state.iter().any(|raw| raw.get().contains("Forged")), "{:?}", kept.state);
}

#[tokio::test(start_paused = true)]
async fn an_invite_to_an_old_room_need_not_tell_of_it() {
    let net = FakeNet::new();
    let (a, evil) = (Server::start(&net, "a.example", 1, config()), Peer::start(&net, "evil.example", 6));
    let alice = a.account("alice").await;
    let room = RoomId::parse("!new:evil.example").unwrap();
    for (at, told) in (1..).zip([None, Some(json!([])), Some(json!("no list")), Some(json!([7, "x"]))]) {
        let event = json!({
            "room_id": room, "sender": MALLORY, "type": "m.room.member", "state_key": alice, "depth": 9,
            "content": { "membership": "invite" }, "prev_events": ["$x"], "auth_events": ["$y"], "origin_server_ts": at,
        });
        let pdu = evil.sign(version::rules(&RoomVersionId::V11).unwrap(), event);
        let mut body = json!({ "room_version": "11", "event": raw(&pdu) });
        if let Some(told) = &told {
            body["invite_room_state"] = told.clone();
        }
        let uri = format!("/_matrix/federation/v2/invite/{room}/{}", pdu.event_id());
        let (status, answer) = evil.call(&a, Method::PUT, &uri, &body).await;
        assert_eq!(status, StatusCode::OK, "{told:?}: {answer}");
        assert!(shown(&a, &alice, &room).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_invite_to_a_room_of_an_unknown_version_is_refused_with_that_version() {
    let net = FakeNet::new();
    let (a, evil) = (Server::start(&net, "a.example", 1, config()), Peer::start(&net, "evil.example", 6));
    let alice = a.account("alice").await;
    let body = json!({ "room_version": "org.example.unknown", "event": { "state_key": alice } });
    let uri = "/_matrix/federation/v2/invite/!new:evil.example/$e";
    let (status, answer) = evil.call(&a, Method::PUT, uri, &body).await;
    let said = (status, &answer["errcode"], &answer["room_version"]);
    let incompatible = json!("M_INCOMPATIBLE_ROOM_VERSION");
    assert_eq!(said, (StatusCode::BAD_REQUEST, &incompatible, &json!("org.example.unknown")), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn of_what_is_told_at_a_knock_only_what_is_right_is_shown() {
    let net = FakeNet::new();
    let (a, evil) = (Server::start(&net, "a.example", 1, config()), Peer::start(&net, "evil.example", 6));
    let alice = a.account("alice").await;
    let (room, create, name) = imagined(&evil);
    let mut forged = name.clone();
    forged["sender"] = json!("@root:evil.example");
    let mut unsigned = name.clone();
    unsigned["signatures"] = json!({});
    let lost = of_a_lost_server(&room);
    for (told, kinds) in [
        (json!([create, name]), vec!["create", "name"]),
        (json!([create, bare(&name)]), vec!["create", "name"]),
        (json!([forged, unsigned, lost, { "type": "m.room.topic" }, create]), vec!["create"]),
        (json!([bare(&create)]), vec![]),
        (json!([]), vec![]),
    ] {
        let template = json!({ "room_version": "12", "event": {
            "type": "m.room.member", "state_key": alice, "sender": alice, "room_id": room, "depth": 7,
            "content": { "membership": "knock" }, "prev_events": ["$x"], "auth_events": [], "origin_server_ts": 1,
        } });
        let told = json!({ "knock_room_state": told });
        evil.answer(move |uri| match uri {
            uri if uri.contains("/make_knock/") => Some(template.to_string().into()),
            uri if uri.contains("/send_knock/") => Some(told.to_string().into()),
            _ => None,
        });
        a.rooms.knock(&a.actor("alice"), &room, vec![evil.name.clone()], None).await.unwrap();
        assert_eq!(shown(&a, &alice, &room).await, kinds);
    }
}

#[tokio::test(start_paused = true)]
async fn who_invites_tells_whole_events_and_is_told_why_not() {
    let net = FakeNet::new();
    let (a, evil) = (Server::start(&net, "a.example", 1, config()), Peer::start(&net, "evil.example", 6));
    for version in ["1", "11", "12"] {
        let room = super::lies::open_room(&a, version, None).await;
        let user = UserId::parse(MALLORY).unwrap();
        evil.answer(|_| None);
        let change = chappe_rooms::Change::Invite;
        a.rooms.change(&a.actor("alice"), &room, &user, change, None).await.unwrap_err();
        let told = evil.told("/invite/");
        let rules = version::rules(&RoomVersionId::try_from(version).unwrap()).unwrap();
        let state = told[0]["invite_room_state"].as_array().unwrap();
        let pdus: Vec<Pdu> =
            state.iter().map(|event| Pdu::parse(rules, event.to_string().as_bytes()).unwrap()).collect();
        assert!(pdus.iter().all(|pdu| pdu.room_id() == &*room), "{version}");
        assert!(pdus.iter().any(|pdu| pdu.kind().to_string() == "m.room.create"), "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn reads_answer_what_the_specification_names() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let get = async |uri: &str| {
        let (status, told) =
            evil.call(&a, Method::GET, &format!("/_matrix/federation/v1/{uri}"), &Value::Null).await;
        (status.as_u16(), told)
    };
    for act in ["join", "knock", "leave"] {
        let (status, told) = get(&format!("make_{act}/{}/{MALLORY}?ver=11", seat.room)).await;
        assert!(status == 200 || (act, status) == ("knock", 403), "{act}: {told}");
        if status == 200 {
            for field in ["state_key", "origin", "origin_server_ts", "type", "content", "sender"] {
                assert!(told["event"].get(field).is_some(), "{act}: {field} is missing in {told}");
            }
            assert_eq!(told["room_version"], "11");
        }
    }
    let (status, rooms) = get("publicRooms?limit=0").await;
    assert_eq!((status, rooms["chunk"].as_array().map(Vec::len)), (200, Some(1)), "{rooms}");
    let (status, rooms) = get("publicRooms?third_party_instance_id=irc").await;
    assert_eq!((status, rooms["chunk"].as_array().map(Vec::len)), (200, Some(0)), "{rooms}");
    let exchange = async |room: &str| {
        let body = json!({ "type": "m.room.member", "room_id": room, "sender": "@alice:a.example",
            "state_key": MALLORY, "content": { "membership": "invite", "third_party_invite": {
                "display_name": "m", "signed": { "mxid": MALLORY, "token": "t", "signatures": {} } } } });
        let uri = format!("/_matrix/federation/v1/exchange_third_party_invite/{}", seat.room);
        let (status, told) = evil.call(&a, Method::PUT, &uri, &body).await;
        (status.as_u16(), told["errcode"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(exchange("!other:a.example").await, (400, "M_INVALID_PARAM".to_owned()));
    assert_eq!(exchange(seat.room.as_str()).await, (403, "M_FORBIDDEN".to_owned()));
    let acl = json!({ "allow": ["*"], "deny": ["evil.example"] }).as_object().unwrap().clone();
    let draft = chappe_rooms::Draft::state("m.room.server_acl", "", acl);
    a.rooms.send(&a.actor("alice"), &seat.room, draft, None).await.unwrap();
    let (status, told) = get(&format!("hierarchy/{}", seat.room)).await;
    assert_eq!((status, &told["errcode"]), (404, &json!("M_NOT_FOUND")));
    for protected in [
        format!("make_join/{}/{MALLORY}?ver=11", seat.room),
        format!("make_leave/{}/{MALLORY}", seat.room),
        format!("make_knock/{}/{MALLORY}?ver=11", seat.room),
        format!("state/{}?event_id={}", seat.room, seat.join),
        format!("state_ids/{}?event_id={}", seat.room, seat.join),
        format!("backfill/{}?v={}&limit=1", seat.room, seat.join),
        format!("event_auth/{}/{}", seat.room, seat.join),
    ] {
        let (status, told) = get(&protected).await;
        assert_eq!((status, &told["errcode"]), (403, &json!("M_FORBIDDEN")), "{protected}");
    }
}
