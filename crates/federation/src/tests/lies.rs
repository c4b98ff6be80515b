//! What a member's server may send and answer: gaps, states and history that are lies, forged news, a room that claims to
//! follow another one.

mod devices;
mod gaps;
mod history;
mod rooms;

use axum::body::Body;
use chappe_rules::{Pdu, version};
use chappe_world::FakeNet;
use ruma::{
    OwnedRoomId, RoomId, RoomVersionId,
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

/// From now on the peer lets Alice of a.example into the room that has this state.
pub(super) fn let_in(evil: &Peer, state: &[Pdu], auth_chain: &[Pdu]) {
    let ids: Vec<&str> = state.iter().map(|pdu| pdu.event_id().as_str()).collect();
    let alice = "@alice:a.example";
    let offer = json!({ "room_version": "11", "event": {
        "room_id": state[0].room_id(), "type": "m.room.member", "sender": alice, "state_key": alice,
        "prev_events": [ids[3]], "auth_events": [ids[0], ids[2], ids[3]], "depth": 5,
        "content": { "membership": "join" },
    } });
    let raws = |pdus: &[Pdu]| pdus.iter().map(raw).collect::<Vec<_>>();
    let answer = json!({ "origin": evil.name, "state": raws(state), "auth_chain": raws(auth_chain) });
    evil.answer(move |uri| match uri {
        uri if uri.contains("/make_join/") => body(&offer),
        uri if uri.contains("/send_join/") => body(&answer),
        _ => None,
    });
}
