//! What a member's server may send and answer: gaps, states and history that are lies, forged news, a room that claims to
//! follow another one.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use axum::body::Body;
use bytes::Bytes;
use chappe_accounts::{Erase, NewUser, RemoteUsers};
use chappe_rooms::{Change, Draft, PublicRoomsRequest};
use chappe_rules::{Pdu, version};
use chappe_store::accounts_keys::{DeviceListHeads, RemoteLists};
use chappe_world::FakeNet;
use http::{Method, StatusCode};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, RoomVersionId, UserId,
    api::client::room::{
        Visibility,
        create_room::v3::{Request as CreateRoom, RoomPreset},
    },
};
use serde_json::{Value, json};

use super::{
    Server, config,
    peer::{Peer, Seat, raw},
};

pub(super) const MALLORY: &str = "@mallory:evil.example";
pub(super) const NOBODYS: &str = "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A server with a room of Alice's in which the peer has a user.
pub(super) async fn seat(net: &FakeNet, version: &str) -> (Server, Peer, Seat) {
    let a = Server::start(net, "a.example", 1, config());
    let evil = Peer::start(net, "evil.example", 6);
    let room = open_room(&a, version, None).await;
    let seat = evil.join(&a, &room, MALLORY).await;
    (a, evil, seat)
}

pub(super) async fn open_room(a: &Server, version: &str, alias: Option<&str>) -> OwnedRoomId {
    let mut request = CreateRoom::new();
    request.preset = Some(RoomPreset::PublicChat);
    request.room_version = Some(RoomVersionId::try_from(version).unwrap());
    request.room_alias_name = alias.map(str::to_owned);
    request.visibility = Visibility::Public;
    a.rooms.create(&a.actor("alice"), request).await.unwrap()
}

/// The messages that the room shows.
pub(super) async fn shown(a: &Server, room: &RoomId) -> Vec<String> {
    let reader = a.store.read();
    let nid = reader.room_nid(room).await.unwrap().unwrap();
    let mut bodies = Vec::new();
    for row in reader.timeline_forward(nid, i64::MIN + 1, 10_000).await.unwrap() {
        let event: Value = serde_json::from_str(&reader.pdu(nid, row.num).await.unwrap().json).unwrap();
        bodies.extend(event["content"]["body"].as_str().map(str::to_owned));
    }
    bodies
}

/// A message that rests on one event and is sent: whether it was taken. Its sender is not told that what is around it could
/// not be had.
pub(super) async fn news(a: &Server, (evil, seat): (&Peer, &Seat), txn: &str, prev: &str) -> bool {
    let news = evil.message(seat, txn, &[prev], seat.depth + 50);
    let answer = evil.send(a, txn, std::slice::from_ref(&news)).await;
    let taken = a.has(&news.event_id().to_owned()).await;
    assert!(!taken || answer[news.event_id().as_str()] == json!({}), "{answer}");
    taken
}

#[expect(clippy::unnecessary_wraps, reason = "as an answer is")]
pub(super) fn body(value: &Value) -> Option<Body> {
    Some(Body::from(value.to_string()))
}

/// Never ends; counts the bytes that were taken.
#[expect(clippy::unnecessary_wraps, reason = "as an answer is")]
fn endless(taken: &Arc<AtomicUsize>) -> Option<Body> {
    let taken = Arc::clone(taken);
    let piece = Bytes::from(vec![b' '; 1 << 20]);
    Some(Body::from_stream(futures_util::stream::repeat_with(move || {
        taken.fetch_add(piece.len(), SeqCst);
        Ok::<_, std::io::Error>(piece.clone())
    })))
}

#[tokio::test(start_paused = true)]
async fn lies_about_a_gap_show_nothing_and_stop_nobody() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let other = open_room(&a, "11", None).await;
    let other = evil.join(&a, &other, MALLORY).await;
    let join = seat.join.as_str();
    let withheld = evil.message(&seat, "withheld", &[NOBODYS], seat.depth + 1);
    let mut forged = seat.event("m.room.message", json!({ "body": "forged" }), &[join], seat.depth + 1);
    forged["sender"] = json!("@alice:a.example");
    let forged = evil.sign(seat.rules, forged);
    let foreign = evil.message(&other, "foreign", &[other.join.as_str()], other.depth + 1);
    let mut unsigned = raw(&withheld);
    unsigned["signatures"] = json!({});
    let branch = |n: u64| evil.message(&seat, &format!("branch {n}"), &[join], seat.depth + n);
    let unrelated: Vec<Pdu> = (1..=50).map(branch).collect();
    let lies: [(&str, &Pdu, Vec<Value>); 6] = [
        ("nothing", &withheld, vec![]),
        ("no events", &withheld, vec![json!(1), json!({}), json!("x"), json!([]), Value::Null]),
        ("unsigned", &withheld, vec![unsigned]),
        ("forged", &forged, vec![raw(&forged)]),
        ("of another room", &foreign, vec![raw(&foreign)]),
        ("unrelated", &withheld, unrelated.iter().map(raw).collect()),
    ];
    for (what, missing, events) in lies {
        let state = json!({ "pdu_ids": seat.state, "auth_chain_ids": [] });
        evil.answer(move |uri| match uri {
            uri if uri.contains("/get_missing_events/") => body(&json!({ "events": events })),
            uri if uri.contains("/event/") => {
                body(&json!({ "origin": "x", "origin_server_ts": 1, "pdus": [events.first()] }))
            }
            uri if uri.contains("/state_ids/") => body(&state),
            _ => None,
        });
        assert!(!news(&a, (&evil, &seat), what, missing.event_id().as_str()).await, "{what}");
        assert!(!a.has(&missing.event_id().to_owned()).await, "{what}");
        assert!(evil.asked("/") < 10, "{what}: {} questions", evil.asked("/"));
        let good = format!("good after {what}");
        assert!(news(&a, (&evil, &seat), &good, join).await, "{what}");
        assert_eq!(shown(&a, &seat.room).await.last(), Some(&good));
    }
    for event in &unrelated {
        assert!(!a.has(&event.event_id().to_owned()).await);
    }
    assert!(shown(&a, &seat.room).await.iter().all(|body| body.starts_with("good")));
    assert!(shown(&a, &other.room).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_gap_without_end_is_followed_so_far() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    a.rooms.reconfigure(chappe_rooms::Config { missing_events_limit: 500, ..Default::default() });
    let mut chain = vec![evil.message(&seat, "0", &[NOBODYS], seat.depth + 1)];
    for n in 1..700 {
        let before = chain[n - 1].event_id().to_owned();
        chain.push(evil.message(&seat, &n.to_string(), &[before.as_str()], seat.depth + 1 + n as u64));
    }
    let top = chain[699].event_id().to_owned();
    let (raws, rounds): (Vec<Value>, _) = (chain.iter().map(raw).collect(), AtomicUsize::new(0));
    evil.answer(move |uri| {
        let round = uri.contains("/get_missing_events/").then(|| rounds.fetch_add(1, SeqCst))?;
        let end = raws.len().saturating_sub(round * 50);
        body(&json!({ "events": raws[end.saturating_sub(50)..end] }))
    });
    assert!(!news(&a, (&evil, &seat), "news", top.as_str()).await);
    assert!(evil.asked("/get_missing_events/") <= 10, "{} rounds", evil.asked("/get_missing_events/"));
    assert!(evil.asked("/state") <= 3, "{} states", evil.asked("/state"));
    assert!(shown(&a, &seat.room).await.is_empty());
    assert!(news(&a, (&evil, &seat), "good", seat.join.as_str()).await);
}

#[tokio::test(start_paused = true)]
async fn events_that_rest_on_each_other_are_not_taken() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "2").await;
    let named = |name: &str, prev: &str| {
        let mut event = seat.event("m.room.message", json!({ "body": name }), &[prev], seat.depth + 5);
        event["event_id"] = json!(format!("${name}:evil.example"));
        evil.sign(seat.rules, event)
    };
    let circle = [named("one", "$two:evil.example"), named("two", "$one:evil.example")];
    let raws: Vec<Value> = circle.iter().map(raw).collect();
    evil.answer(move |uri| uri.contains("/get_missing_events/").then(|| body(&json!({ "events": raws })))?);
    let news = named("news", "$one:evil.example");
    evil.send(&a, "1", &[news.clone(), circle[0].clone(), circle[1].clone()]).await;
    for event in circle.iter().chain([&news]) {
        assert!(!a.has(&event.event_id().to_owned()).await, "{} is kept", event.event_id());
    }
    assert!(shown(&a, &seat.room).await.is_empty());
    let good = evil.send(&a, "2", &[named("good", seat.join.as_str())]).await;
    assert_eq!(good["$good:evil.example"], json!({}));
}

#[tokio::test(start_paused = true)]
async fn lies_about_the_state_change_nothing_and_end_at_the_limit() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let withheld = evil.message(&seat, "withheld", &[NOBODYS], seat.depth + 1);
    let levels = json!({ "users": { MALLORY: 100 } });
    let mut levels = seat.event("m.room.power_levels", levels, &[seat.join.as_str()], seat.depth + 1);
    levels["state_key"] = json!("");
    let levels = evil.sign(seat.rules, levels);
    let made_up = |count: usize| (0..count).map(|n| format!("${n:A>43}")).collect::<Vec<_>>();
    let mut forged: Vec<String> = seat.state.iter().map(ToString::to_string).collect();
    forged.push(levels.event_id().to_string());
    let taken = Arc::new(AtomicUsize::new(0));
    for (what, ids) in
        [("made up", made_up(1_000)), ("too many", made_up(500_001)), ("endless", vec![]), ("forged", forged)]
    {
        let (told, levels, missing) =
            (json!({ "pdu_ids": ids, "auth_chain_ids": [] }), raw(&levels), raw(&withheld));
        let taken = Arc::clone(&taken);
        evil.answer(move |uri| match uri {
            uri if uri.contains("/get_missing_events/") => body(&json!({ "events": [missing] })),
            uri if uri.contains("/state_ids/") && what == "endless" => endless(&taken),
            uri if uri.contains("/state_ids/") => body(&told),
            uri if uri.contains("/state/") => body(&json!({ "pdus": [], "auth_chain": [] })),
            uri if uri.contains("/event/") => {
                body(&json!({ "origin": "x", "origin_server_ts": 1, "pdus": [levels] }))
            }
            _ => None,
        });
        news(&a, (&evil, &seat), what, withheld.event_id().as_str()).await;
        assert!(evil.asked("/") < 60, "{what}: {} questions", evil.asked("/"));
        tokio::time::advance(std::time::Duration::from_hours(1)).await;
    }
    let taken = taken.load(SeqCst) >> 20;
    assert!((120..140).contains(&taken), "{taken} MiB");
    let reader = a.store.read();
    let nid = reader.room_nid(&seat.room).await.unwrap().unwrap();
    let key = chappe_store::state::StateKey::new("m.room.power_levels", "");
    let now = reader.state_now(nid, &[key]).await.unwrap()[0].unwrap();
    assert!(!reader.pdu(nid, now).await.unwrap().json.contains(MALLORY));
    assert!(news(&a, (&evil, &seat), "good", seat.join.as_str()).await);
}

#[tokio::test(start_paused = true)]
async fn lies_about_old_events_fill_nothing() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let older = evil.message(&seat, "older", &[seat.join.as_str()], seat.depth + 1);
    let middle = evil.message(&seat, "middle", &[older.event_id().as_str()], seat.depth + 2);
    let (raw_older, raw_middle) = (raw(&older), raw(&middle));
    let state: Vec<&str> = seat.state.iter().chain([&seat.join]).map(|id| id.as_str()).collect();
    let state = json!({ "pdu_ids": state, "auth_chain_ids": [] });
    let single = json!({ "origin": "x", "origin_server_ts": 1, "pdus": [raw_older] });
    evil.answer(move |uri| match uri {
        uri if uri.contains("/get_missing_events/") => body(&json!({ "events": [raw_middle] })),
        uri if uri.contains("/state_ids/") => body(&state),
        uri if uri.contains("/event/") => body(&single),
        _ => None,
    });
    assert!(news(&a, (&evil, &seat), "news", middle.event_id().as_str()).await);
    assert_eq!(shown(&a, &seat.room).await, ["middle", "news"]);

    let join = seat.join.as_str();
    let mut unsigned = raw(&older);
    unsigned["signatures"] = json!({});
    let mut forged = seat.event("m.room.message", json!({ "body": "forged" }), &[join], seat.depth + 1);
    forged["sender"] = json!("@alice:a.example");
    let unrelated = evil.message(&seat, "unrelated", &[NOBODYS], seat.depth + 1);
    let by_stranger = |n: usize| {
        let mut event = seat.event("m.room.message", json!({ "body": "stranger" }), &[join], seat.depth + 1);
        event["sender"] = json!(format!("@x:h{n}.example"));
        evil.signed(seat.rules, &event).unwrap()
    };
    let looked_up = super::count(&net, "/.well-known/");
    let taken = Arc::new(AtomicUsize::new(0));
    for (what, pdus) in [
        ("unsigned", vec![unsigned]),
        ("forged", vec![raw(&evil.sign(seat.rules, forged))]),
        ("unrelated", vec![raw(&unrelated); 1_000]),
        ("strangers", (0..1_000).map(by_stranger).collect()),
        ("no events", vec![json!(7), json!({})]),
        ("endless", vec![]),
    ] {
        let (answer, endless_body) =
            (json!({ "origin": "x", "origin_server_ts": 1, "pdus": pdus }), Arc::clone(&taken));
        evil.answer(move |uri| match uri {
            uri if !uri.contains("/backfill/") => None,
            _ if what == "endless" => endless(&endless_body),
            _ => body(&answer),
        });
        assert_eq!(a.rooms.fetch_older(&seat.room, 100).await.unwrap(), 0, "{what}");
        assert_eq!(evil.asked("/backfill/"), 1, "{what}");
    }
    assert!(looked_up.load(SeqCst) <= 100, "{} servers are looked for", looked_up.load(SeqCst));
    assert!(taken.load(SeqCst) <= 20 << 20, "{} bytes", taken.load(SeqCst));
    assert_eq!(shown(&a, &seat.room).await, ["middle", "news"]);
    tokio::time::advance(std::time::Duration::from_hours(1)).await;
    let answer = json!({ "origin": "x", "origin_server_ts": 1, "pdus": [raw(&older), raw(&unrelated)] });
    evil.answer(move |_| body(&answer));
    assert_eq!(a.rooms.fetch_older(&seat.room, 100).await.unwrap(), 1);
    assert_eq!(shown(&a, &seat.room).await, ["older", "middle", "news"]);
}

/// As after a night without the network in a busy room.
#[tokio::test(start_paused = true)]
async fn a_long_gap_is_filled_whole() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let mut chain: Vec<Pdu> = Vec::new();
    for n in 0..1_200 {
        let before = chain.last().map_or_else(|| seat.join.clone(), |last| last.event_id().to_owned());
        chain.push(evil.message(&seat, &n.to_string(), &[before.as_str()], seat.depth + 1 + n));
    }
    let top = chain[1_199].event_id().to_owned();
    let (raws, rounds): (Vec<Value>, _) = (chain.iter().map(raw).collect(), AtomicUsize::new(0));
    evil.answer(move |uri| {
        let round = uri.contains("/get_missing_events/").then(|| rounds.fetch_add(1, SeqCst))?;
        let end = raws.len().saturating_sub(round * 20);
        body(&json!({ "events": raws[end.saturating_sub(20)..end] }))
    });
    assert!(news(&a, (&evil, &seat), "news", top.as_str()).await);
    assert_eq!(evil.asked("/state"), 0);
    let mut said: Vec<String> = (0..1_200).map(|n| n.to_string()).collect();
    said.push("news".to_owned());
    assert_eq!(shown(&a, &seat.room).await, said);
}

#[tokio::test(start_paused = true)]
async fn an_auth_chain_without_end_costs_what_may_be_fetched() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let chain = long_chain(&evil, &seat, 1_500);
    let top = chain.last().unwrap().event_id().to_string();
    let mut event =
        seat.event("m.room.message", json!({ "body": "news" }), &[seat.join.as_str()], seat.depth + 1);
    event["auth_events"].as_array_mut().unwrap().pop();
    event["auth_events"].as_array_mut().unwrap().push(json!(top));
    for all_at_once in [true, false] {
        let by_id: std::collections::HashMap<String, Value> =
            chain.iter().map(|pdu| (pdu.event_id().to_string(), raw(pdu))).collect();
        let all: Vec<Value> = chain.iter().rev().map(raw).collect();
        evil.answer(move |uri| match uri.rsplit_once('/') {
            Some((path, id)) if path.ends_with("/event") => {
                let id = id.replace("%24", "$");
                body(&json!({ "origin": "x", "origin_server_ts": 1, "pdus": [by_id.get(&id)?] }))
            }
            _ if all_at_once && uri.contains("/event_auth/") => body(&json!({ "auth_chain": all })),
            _ => None,
        });
        event["content"]["body"] = json!(format!("news {all_at_once}"));
        let last = evil.sign(seat.rules, event.clone());
        evil.send(&a, &all_at_once.to_string(), std::slice::from_ref(&last)).await;
        assert!(!a.has(&last.event_id().to_owned()).await);
        assert!(evil.asked("/") <= 510, "{} questions", evil.asked("/"));
    }
    let mut kept = 0;
    for pdu in &chain {
        kept += usize::from(a.has(&pdu.event_id().to_owned()).await);
    }
    assert!(kept <= 1_000, "{kept} events are kept");
    assert!(news(&a, (&evil, &seat), "good", seat.join.as_str()).await);
}

#[tokio::test(start_paused = true)]
async fn slow_answers_hold_nobody_for_long() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let chain = long_chain(&evil, &seat, 300);
    let by_id: std::collections::HashMap<String, Value> =
        chain.iter().map(|pdu| (pdu.event_id().to_string(), raw(pdu))).collect();
    evil.answer(move |uri| {
        let (_, id) = uri.rsplit_once('/').filter(|(path, _)| path.ends_with("/event"))?;
        let event = by_id.get(&id.replace("%24", "$"))?;
        let told = json!({ "origin": "x", "origin_server_ts": 1, "pdus": [event] }).to_string();
        Some(Body::from_stream(futures_util::stream::once(async move {
            tokio::time::sleep(std::time::Duration::from_secs(15)).await;
            Ok::<_, std::io::Error>(Bytes::from(told))
        })))
    });
    let top = chain.last().unwrap().event_id().to_string();
    for (round, most) in [(1, 25), (2, 25)] {
        let mut event = seat.event("m.room.message", json!({ "body": round }), &[seat.join.as_str()], 9);
        event["auth_events"].as_array_mut().unwrap().pop();
        event["auth_events"].as_array_mut().unwrap().push(json!(top));
        evil.send(&a, &round.to_string(), &[evil.sign(seat.rules, event)]).await;
        tokio::time::sleep(std::time::Duration::from_mins(7)).await;
        let asked = evil.asked("/event/");
        assert!((10..=most).contains(&asked), "round {round}: {asked} questions");
    }
    assert!(news(&a, (&evil, &seat), "good", seat.join.as_str()).await);
}

/// Changes of the user's name, each justified by the one before, the first by something that nobody has.
fn long_chain(evil: &Peer, seat: &Seat, length: usize) -> Vec<Pdu> {
    let mut chain: Vec<Pdu> = Vec::with_capacity(length);
    for n in 0..length {
        let content = json!({ "membership": "join", "displayname": n.to_string() });
        let mut event = seat.event("m.room.member", content, &[seat.join.as_str()], seat.depth + 1);
        event["state_key"] = json!(MALLORY);
        let before = chain.last().map_or(NOBODYS, |pdu| pdu.event_id().as_str()).to_owned();
        event["auth_events"].as_array_mut().unwrap().pop();
        event["auth_events"].as_array_mut().unwrap().push(json!(before));
        chain.push(evil.sign(seat.rules, event));
    }
    chain
}

#[tokio::test(start_paused = true)]
async fn a_room_that_claims_to_follow_another_takes_nothing_of_it() {
    let net = FakeNet::new();
    let (a, evil) = (Server::start(&net, "a.example", 1, config()), Peer::start(&net, "evil.example", 6));
    let old = open_room(&a, "11", Some("salon")).await;
    let alias = RoomAliasId::parse("#salon:a.example").unwrap();
    let seat = evil.join(&a, &old, MALLORY).await;
    let levels = json!({ "users": { "@alice:a.example": 100, MALLORY: 100 } });
    let draft = Draft::state("m.room.power_levels", "", levels.as_object().unwrap().clone());
    let levels = a.rooms.send(&a.actor("alice"), &old, draft, None).await.unwrap();
    let new = hosted(&evil, &old);
    // Who has the power may say that the room has moved, and where to.
    let content = json!({ "body": "moved", "replacement_room": new });
    let mut tombstone = seat.event("m.room.tombstone", content, &[levels.as_str()], seat.depth + 2);
    tombstone["state_key"] = json!("");
    for entry in tombstone["auth_events"].as_array_mut().unwrap() {
        let stored =
            a.store.read().event_address(&ruma::EventId::parse(entry.as_str().unwrap()).unwrap()).await;
        let (nid, num) = stored.unwrap().unwrap();
        if a.store.read().pdu(nid, num).await.unwrap().json.contains("m.room.power_levels") {
            *entry = json!(levels);
        }
    }
    let tombstone = evil.sign(seat.rules, tombstone);
    let answer = evil.send(&a, "1", std::slice::from_ref(&tombstone)).await;
    assert_eq!(answer[tombstone.event_id().as_str()], json!({}), "{answer}");
    let via = vec![evil.name.clone()];
    a.rooms.join(&a.actor("alice"), &new, via, serde_json::Map::new()).await.unwrap();
    let reader = a.store.read();
    let nid = reader.room_nid(&old).await.unwrap().unwrap();
    assert_eq!(reader.alias(&alias).await.unwrap().unwrap().nid(), nid);
    let listed = a.rooms.public_rooms(&PublicRoomsRequest::default()).await.unwrap().chunk;
    let listed: Vec<OwnedRoomId> = listed.into_iter().map(|room| room.room_id).collect();
    assert_eq!(listed, [old]);
}

/// A room of the peer's own that says it follows `old`; it can be joined.
fn hosted(evil: &Peer, old: &RoomId) -> OwnedRoomId {
    let create = json!({ "room_version": "11", "predecessor": { "room_id": old, "event_id": NOBODYS } });
    let events = founded(evil, MALLORY, create);
    let_in(evil, &events, &events);
    events[0].room_id().to_owned()
}

/// The first events of a room of the peer's own: create event, join, power levels, join rules.
pub(super) fn founded(evil: &Peer, creator: &str, create: Value) -> Vec<Pdu> {
    let rules = version::rules(&RoomVersionId::V11).unwrap();
    let state = [
        ("m.room.create", "", create),
        ("m.room.member", creator, json!({ "membership": "join" })),
        ("m.room.power_levels", "", json!({ "users": { creator: 100 } })),
        ("m.room.join_rules", "", json!({ "join_rule": "public" })),
    ];
    let mut events: Vec<Pdu> = Vec::new();
    for (kind, key, content) in state {
        let before: Vec<&str> = events.iter().map(|pdu| pdu.event_id().as_str()).collect();
        let event = json!({
            "room_id": "!new:evil.example", "sender": creator, "type": kind, "state_key": key, "content": content,
            "prev_events": before.last().into_iter().collect::<Vec<_>>(), "auth_events": before,
            "depth": before.len() + 1, "origin_server_ts": 1_780_000_000_000_u64,
        });
        events.push(evil.sign(rules, event));
    }
    events
}

/// From now on the peer lets everybody into the room that has this state.
pub(super) fn let_in(evil: &Peer, state: &[Pdu], auth_chain: &[Pdu]) {
    let ids: Vec<&str> = state.iter().map(|pdu| pdu.event_id().as_str()).collect();
    let offer = json!({ "room_version": "11", "event": {
        "room_id": state[0].room_id(), "type": "m.room.member", "prev_events": [ids[3]],
        "auth_events": [ids[0], ids[2], ids[3]], "depth": 5, "content": { "membership": "join" },
    } });
    let raws = |pdus: &[Pdu]| pdus.iter().map(raw).collect::<Vec<_>>();
    let answer = json!({ "origin": evil.name, "state": raws(state), "auth_chain": raws(auth_chain) });
    evil.answer(move |uri| match uri {
        uri if uri.contains("/make_join/") => body(&offer),
        uri if uri.contains("/send_join/") => body(&answer),
        _ => None,
    });
}

#[tokio::test(start_paused = true)]
async fn news_about_others_keys_and_lists_that_jump_are_worth_little() {
    let net = FakeNet::new();
    let (a, evil, _seat) = seat(&net, "11").await;
    let alice = account(&a, "alice").await;
    let carol = UserId::parse("@carol:c.example").unwrap();
    let public = "A".repeat(43);
    let keys = |user: &UserId| {
        let master =
            json!({ "user_id": user, "usage": ["master"], "keys": { format!("ed25519:{public}"): public } });
        json!({ "edu_type": "m.signing_key_update", "content": { "user_id": user, "master_key": master } })
    };
    let jump = |n: u64| {
        json!({ "edu_type": "m.device_list_update", "content": {
            "user_id": MALLORY, "device_id": format!("D{n}"), "stream_id": (n + 100) << 40, "prev_id": [((n + 100) << 40) - 1],
        } })
    };
    let mut edus = vec![keys(&alice), keys(&carol)];
    edus.extend((1..=90).map(jump));
    let list = json!({ "user_id": MALLORY, "stream_id": 1_u64, "devices": [] });
    evil.answer(move |uri| uri.contains("/user/devices/").then(|| body(&list))?);
    let mallory = UserId::parse(MALLORY).unwrap();
    a.federation.query_keys(&alice, &evil.name, [(mallory, Vec::new())].into()).await.unwrap();
    let known = evil.asked("/user/devices/");
    let transaction = json!({ "origin": evil.name, "origin_server_ts": 1, "pdus": [], "edus": edus });
    let uri = "/_matrix/federation/v1/send/1";
    assert_eq!(evil.call(&a, Method::PUT, uri, &transaction).await.0, StatusCode::OK);
    for user in [&alice, &carol] {
        assert!(a.accounts.public_keys(None, user, &[]).await.unwrap().master.is_none(), "{user}");
    }
    tokio::time::sleep(std::time::Duration::from_mins(1)).await;
    let asked = evil.asked("/user/devices/") - known;
    assert!(known > 0 && asked <= 2, "{known} times before, {asked} times after");
}

/// A user of the peer's.
fn of_evil(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:evil.example")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn of_devices_of_whom_nobody_meets_nothing_is_kept() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let alice = account(&a, "alice").await;
    let list = |user: &UserId| json!({ "user_id": user, "stream_id": 7_u64, "devices": [] });
    evil.answer(move |uri| {
        let name = uri.strip_prefix("/_matrix/federation/v1/user/devices/%40")?.split('%').next()?;
        body(&list(&of_evil(name)))
    });
    let news = |user: &UserId, stream_id: u64| {
        json!({ "edu_type": "m.device_list_update", "content": {
            "user_id": user, "device_id": "D", "stream_id": stream_id, "prev_id": [stream_id - 1],
        } })
    };
    let keys = |user: &UserId| json!({ "edu_type": "m.signing_key_update", "content": { "user_id": user } });
    let tell = async |txn: &str, edus: Vec<Value>| {
        let transaction = json!({ "origin": evil.name, "origin_server_ts": 1, "pdus": [], "edus": edus });
        let uri = format!("/_matrix/federation/v1/send/{txn}");
        assert_eq!(evil.call(&a, Method::PUT, &uri, &transaction).await.0, StatusCode::OK);
    };
    // Until then Mallory has just come.
    tokio::time::sleep(std::time::Duration::from_mins(2)).await;
    let strangers: Vec<_> = (0..40).map(|n| of_evil(&format!("s{n}"))).collect();
    let edus = strangers.iter().flat_map(|user| [news(user, 9), keys(user)]).collect();
    tell("strangers", edus).await;
    let rows = async |user: &UserId| {
        let (reader, key) = (a.store.read(), user.to_owned());
        let changed = reader.get::<DeviceListHeads>(&key).await.unwrap().is_some();
        (reader.get::<RemoteLists>(&key).await.unwrap().is_some(), changed)
    };
    for user in &strangers {
        assert_eq!(rows(user).await, (false, false), "{user}");
    }
    assert!(a.accounts.stale_lists(None, 10).await.unwrap().is_empty());
    // Whom somebody meets is asked for, and those who meet are told of.
    tell("met", vec![news(&of_evil("mallory"), 9)]).await;
    assert_eq!(rows(&of_evil("mallory")).await, (true, true));

    let newcomer = &strangers[0];
    evil.join(&a, &seat.room, newcomer.as_str()).await;
    let asked = async || {
        let before = evil.asked(&format!("/user/devices/%40{}", newcomer.localpart()));
        a.federation.query_keys(&alice, &evil.name, [(newcomer.clone(), Vec::new())].into()).await.unwrap();
        evil.asked(&format!("/user/devices/%40{}", newcomer.localpart())) - before
    };
    assert_eq!((asked().await, asked().await), (1, 0), "the first look asks, the next one need not");
    // Gone and back, with news in between that nobody was to hear.
    let kick = Change::Kick;
    a.rooms.change(&a.actor("alice"), &seat.room, newcomer, kick, None).await.unwrap();
    tell("gone", vec![news(newcomer, 20), keys(newcomer)]).await;
    tokio::time::sleep(std::time::Duration::from_mins(30)).await;
    assert!(a.accounts.remote_list(newcomer).await.unwrap().unwrap().stale, "believed without being heard");
    evil.join(&a, &seat.room, newcomer.as_str()).await;
    assert_eq!((asked().await, asked().await), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn questions_about_keys_have_a_size() {
    let net = FakeNet::new();
    let (a, evil) = (Server::start(&net, "a.example", 1, config()), Peer::start(&net, "evil.example", 6));
    account(&a, "alice").await;
    let claim = async |devices: usize| {
        let devices: serde_json::Map<String, Value> =
            (0..devices).map(|n| (format!("D{n}"), json!("signed_curve25519"))).collect();
        let body = json!({ "one_time_keys": { "@alice:a.example": devices } });
        evil.call(&a, Method::POST, "/_matrix/federation/v1/user/keys/claim", &body).await.0
    };
    assert_eq!(claim(5_000).await, StatusCode::OK);
    assert_eq!(claim(5_001).await, StatusCode::PAYLOAD_TOO_LARGE);
    let users: serde_json::Map<String, Value> =
        (0..2_001).map(|n| (format!("@u{n}:a.example"), json!([]))).collect();
    let body = json!({ "device_keys": users });
    let uri = "/_matrix/federation/v1/user/keys/query";
    let (status, answer) = evil.call(&a, Method::POST, uri, &body).await;
    assert_eq!(status, StatusCode::OK);
    assert!(answer["device_keys"].as_object().unwrap().len() <= 2_000);
    let users: serde_json::Map<String, Value> =
        (0..5_000).map(|n| (format!("@u{n}:c.example"), json!([]))).collect();
    let (_, answer) = evil.call(&a, Method::POST, uri, &json!({ "device_keys": users })).await;
    assert_eq!(answer["device_keys"], json!({}), "of others' users nothing is told");
}

/// Invites a user of `a` into a room of the peer's, with what it says of the room.
async fn invite(
    (a, evil): (&Server, &Peer),
    user: &UserId,
    at: u64,
    room_state: &Value,
) -> (StatusCode, Value) {
    let event = json!({
        "room_id": "!new:evil.example", "sender": MALLORY, "type": "m.room.member", "state_key": user,
        "content": { "membership": "invite" }, "prev_events": [NOBODYS], "auth_events": [NOBODYS],
        "depth": 9, "origin_server_ts": at,
    });
    let pdu = evil.sign(version::rules(&RoomVersionId::V11).unwrap(), event);
    let body = json!({ "room_version": "11", "event": raw(&pdu), "invite_room_state": room_state });
    let uri = format!("/_matrix/federation/v2/invite/!new:evil.example/{}", pdu.event_id());
    evil.call(a, Method::PUT, &uri, &body).await
}

fn stripped(content: &Value) -> Value {
    json!({ "type": "m.room.create", "state_key": "", "sender": MALLORY, "content": content })
}

pub(super) async fn account(server: &Server, name: &str) -> OwnedUserId {
    let new = NewUser { localpart: Some(name.to_owned()), ..NewUser::default() };
    server.accounts.create_user(new).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn nobody_who_has_left_is_invited() {
    let net = FakeNet::new();
    let (a, evil) = (Server::start(&net, "a.example", 1, config()), Peer::start(&net, "evil.example", 6));
    let gone = account(&a, "gone").await;
    let room_state = json!([stripped(&json!({}))]);
    let (status, answer) = invite((&a, &evil), &gone, 1, &room_state).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    a.accounts.deactivate(&gone, Erase::No).await.unwrap();
    let (status, answer) = invite((&a, &evil), &gone, 2, &room_state).await;
    assert_eq!((status, &answer["errcode"]), (StatusCode::FORBIDDEN, &json!("M_FORBIDDEN")), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn an_invite_says_so_much_of_its_room_and_no_more() {
    let net = FakeNet::new();
    let (a, evil) = (Server::start(&net, "a.example", 1, config()), Peer::start(&net, "evil.example", 6));
    let alice = account(&a, "alice").await;
    let room = RoomId::parse("!new:evil.example").unwrap();
    let huge = "x".repeat(10 << 20);
    for (at, room_state) in (1..).zip([
        json!([stripped(&json!({ "huge": huge }))]),
        json!(vec![stripped(&json!({ "long": "x".repeat(500) })); 10_000]),
        json!(vec![stripped(&json!({ "long": "x".repeat(50) })); 1_000]),
        json!("no list"),
        json!([1, "x", null, [], {}]),
    ]) {
        let (status, answer) = invite((&a, &evil), &alice, at, &room_state).await;
        assert!(status == StatusCode::OK || status.is_client_error(), "{at}: {status} {answer}");
        if let Some(kept) = a.store.read().out_of_band(&alice, &room).await.unwrap() {
            let kept = serde_json::to_string(&kept.value.0).unwrap();
            assert!(kept.len() <= 100_000, "{at}: {} bytes are kept", kept.len());
        }
    }
    let (status, answer) = invite((&a, &evil), &alice, 9, &json!([stripped(&json!({}))])).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test(start_paused = true)]
async fn templates_of_leaves_and_knocks_are_not_signed_as_they_come() {
    let net = FakeNet::new();
    let (a, evil) = (Server::start(&net, "a.example", 1, config()), Peer::start(&net, "evil.example", 6));
    let alice = account(&a, "alice").await;
    let room = RoomId::parse("!new:evil.example").unwrap();
    let template = json!({ "room_version": "11", "event": {
        "type": "m.room.power_levels", "state_key": "", "sender": "@root:a.example", "room_id": "!other:a.example",
        "content": { "users": { MALLORY: 100 }, "membership": "ban" }, "redacts": NOBODYS,
        "prev_events": [NOBODYS], "auth_events": [NOBODYS], "depth": 7, "origin_server_ts": 1,
    } });
    evil.answer(move |uri| match uri {
        uri if uri.contains("/make_") => body(&template),
        uri if uri.contains("/send_knock/") => body(&json!({ "knock_room_state": [stripped(&json!({}))] })),
        uri if uri.contains("/send_") => body(&json!({})),
        _ => None,
    });
    let actor = a.actor("alice");
    a.rooms.knock(&actor, &room, vec![evil.name.clone()], None).await.unwrap();
    a.rooms.leave(&actor, &room, None).await.unwrap();
    for (path, membership) in [("/send_knock/", "knock"), ("/send_leave/", "leave")] {
        let told = evil.told(path);
        assert_eq!(told.len(), 1, "{path}");
        assert_eq!(told[0]["type"], "m.room.member");
        assert_eq!((&told[0]["sender"], &told[0]["state_key"]), (&json!(alice), &json!(alice)));
        assert_eq!(told[0]["room_id"], json!(room));
        assert_eq!(told[0]["content"], json!({ "membership": membership }));
        assert!(told[0].get("redacts").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn an_access_list_of_thousands_of_patterns_answers() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let list = json!({ "allow": ["*"], "deny": vec!["*e*x*p*z"; 5_000] });
    let draft = Draft::state("m.room.server_acl", "", list.as_object().unwrap().clone());
    a.rooms.send(&a.actor("alice"), &seat.room, draft, None).await.unwrap();
    for n in 0..50 {
        assert!(news(&a, (&evil, &seat), &n.to_string(), seat.join.as_str()).await);
    }
}
