//! What is said of rooms: invites, templates, a room that claims to follow another one, an access list that is long.

use chappe_accounts::Erase;
use chappe_rooms::{Draft, PublicRoomsRequest};
use chappe_rules::version;
use chappe_world::FakeNet;
use http::{Method, StatusCode};
use ruma::{EventId, OwnedRoomId, RoomAliasId, RoomId, RoomVersionId, UserId};
use serde_json::{Map, Value, json};

use super::{
    super::{
        Server, config,
        peer::{Peer, raw},
    },
    MALLORY, NOBODYS, body, founded, let_in, news, open_room, seat,
};

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
        let stored = a.store.read().event_address(&EventId::parse(entry.as_str().unwrap()).unwrap()).await;
        let (nid, num) = stored.unwrap().unwrap();
        if a.store.read().pdu(nid, num).await.unwrap().json.contains("m.room.power_levels") {
            *entry = json!(levels);
        }
    }
    let tombstone = evil.sign(seat.rules, tombstone);
    let answer = evil.send(&a, "1", std::slice::from_ref(&tombstone)).await;
    assert_eq!(answer[tombstone.event_id().as_str()], json!({}), "{answer}");
    let via = vec![evil.name.clone()];
    a.rooms.join(&a.actor("alice"), &new, via, Map::new()).await.unwrap();
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

#[tokio::test(start_paused = true)]
async fn nobody_who_has_left_is_invited() {
    let net = FakeNet::new();
    let (a, evil) = (Server::start(&net, "a.example", 1, config()), Peer::start(&net, "evil.example", 6));
    let gone = a.account("gone").await;
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
    let alice = a.account("alice").await;
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
    let alice = a.account("alice").await;
    let room = RoomId::parse("!new:evil.example").unwrap();
    let template = |membership: &str| {
        json!({ "room_version": "11", "event": {
            "type": "m.room.member", "state_key": alice, "sender": alice, "room_id": room, "redacts": NOBODYS,
            "content": { "users": { MALLORY: 100 }, "membership": membership }, "unsigned": { "age": 1 },
            "prev_events": [NOBODYS], "auth_events": [NOBODYS], "depth": 7, "origin_server_ts": 1,
        } })
    };
    let (knock, leave) = (template("knock"), template("leave"));
    evil.answer(move |uri| match uri {
        uri if uri.contains("/make_knock/") => body(&knock),
        uri if uri.contains("/make_leave/") => body(&leave),
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
