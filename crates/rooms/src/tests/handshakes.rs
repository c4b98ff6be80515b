//! What servers tell and grant each other around a room: invites and their end, restricted joins, history, times.

use std::sync::Arc;

use chappe_kv::{Counting, Db, Memory, RoundTrips};
use chappe_rules::build::SigningKey;
use chappe_store::{EventNum, Membership, RoomNid};
use ruma::{CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedServerName, UInt, api::Direction};
use serde_json::{Map, Value, json};

use super::net::{ALICE, BOB, CAROL, Net, actor, bodies, join, membership, room, say, state, user};
use crate::{BoundInvite, Change, Draft, Error, Gap, Invitation, Rooms};

const ANNE: &str = "@anne:a.example";

fn server(name: &str) -> OwnedServerName {
    name.try_into().unwrap()
}

async fn outside(rooms: &Rooms, who: &str, id: &ruma::RoomId) -> chappe_store::out_of_band::OutOfBand {
    rooms.store().read().out_of_band(&user(who), id).await.unwrap().unwrap().value.0
}

#[tokio::test]
async fn only_who_invited_takes_the_invite_back() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    a.join(&actor(ANNE), &id, Vec::new(), Map::new()).await.unwrap();
    let levels = json!({ "users": { ALICE: 100, ANNE: 50 } });
    a.send(&actor(ALICE), &id, state("m.room.power_levels", "", &levels), None).await.ok();
    a.change(&actor(ANNE), &id, &user(BOB), Change::Invite, None).await.unwrap();
    a.change(&actor(ALICE), &id, &user(BOB), Change::Kick, None).await.unwrap();
    net.deliver().await;
    assert_eq!(outside(&b, BOB, &id).await.kind(), Some(Membership::Invite));
    a.change(&actor(ANNE), &id, &user(BOB), Change::Invite, None).await.unwrap();
    a.change(&actor(ANNE), &id, &user(BOB), Change::Kick, Some("no".to_owned())).await.unwrap();
    net.deliver().await;
    let ended = outside(&b, BOB, &id).await;
    assert_eq!(ended.kind(), Some(Membership::Leave));
    assert!(ended.event.get().contains("\"reason\":\"no\""), "{}", ended.event);
}

#[tokio::test]
async fn the_refusal_of_an_earlier_knock_does_not_end_a_later_one() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let id = room(&a, ALICE, json!({ "initial_state": [rule] })).await;
    let knock = async || b.knock(&actor(BOB), &id, vec![server("a.example")], None).await.unwrap();
    let refuse = async || a.change(&actor(ALICE), &id, &user(BOB), Change::Kick, None).await.unwrap();
    knock().await;
    refuse().await;
    // The news is slow, the user is not.
    knock().await;
    net.deliver().await;
    assert_eq!(outside(&b, BOB, &id).await.kind(), Some(Membership::Knock));
    refuse().await;
    net.deliver().await;
    assert_eq!(outside(&b, BOB, &id).await.kind(), Some(Membership::Leave));
}

#[tokio::test]
async fn an_invite_turned_down_in_silence_ends_with_an_event_of_our_own() {
    for version in ["6", "11", "12"] {
        let net = Net::default();
        let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
        let id = room(&a, ALICE, json!({ "invite": [BOB], "room_version": version })).await;
        let invite = outside(&b, BOB, &id).await;
        // Nobody is left who could be told.
        a.leave(&actor(ALICE), &id, None).await.unwrap();
        b.leave(&actor(BOB), &id, Some("late".to_owned())).await.unwrap();
        let left = outside(&b, BOB, &id).await;
        let event: Value = serde_json::from_str(left.event.get()).unwrap();
        assert_eq!(event["content"], json!({ "membership": "leave", "reason": "late" }));
        assert_eq!((&event["sender"], &event["state_key"]), (&json!(BOB), &json!(BOB)));
        assert_ne!(left.event_id, invite.event_id);
        assert!(event["signatures"]["b.example"].is_object());
    }
}

#[tokio::test(start_paused = true)]
async fn an_invite_is_turned_down_though_who_invited_is_silent() {
    let net = Net::default();
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), net.server("c.example", 3));
    let id = room(&c, CAROL, json!({ "invite": [ALICE], "room_version": "11" })).await;
    a.join(&actor(ALICE), &id, vec![server("c.example")], Map::new()).await.unwrap();
    net.deliver().await;
    a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
    net.deliver().await;
    assert_eq!(membership(&c, &id, BOB).await, Some("invite"));
    net.before.lock().insert("make_leave", Box::pin(std::future::pending::<()>()));
    b.leave(&actor(BOB), &id, None).await.unwrap();
    assert_eq!(outside(&b, BOB, &id).await.kind(), Some(Membership::Leave));
    assert_eq!(membership(&c, &id, BOB).await, Some("leave"));
    net.deliver().await;
    assert_eq!(membership(&a, &id, BOB).await, Some("leave"));
}

#[tokio::test]
async fn an_invite_tells_what_the_room_is() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "name": "Salon", "invite": [BOB], "room_version": "12" })).await;
    let told = outside(&b, BOB, &id).await;
    let told: Vec<Value> = told.state.iter().map(|raw| serde_json::from_str(raw.get()).unwrap()).collect();
    let of = |kind: &str| told.iter().find(|event| event["type"] == kind).unwrap();
    assert!(of("m.room.create")["origin_server_ts"].is_u64());
    assert_eq!(of("m.room.name")["content"]["name"], "Salon");
    assert!(of("m.room.name").get("origin_server_ts").is_none());
    // The same invite without the create event is refused.
    let view = a.view(&id).await.unwrap();
    let member = view.current("m.room.member".into(), BOB).await.unwrap().unwrap().pdu;
    let name = view.current("m.room.name".into(), "").await.unwrap().unwrap().pdu;
    for room_state in [vec![name.to_raw()], Vec::new(), told_stripped(&told)] {
        let invitation =
            Invitation { room_version: "12".try_into().unwrap(), event: member.to_raw(), room_state };
        let refused = b.accept_invite(&server("a.example"), &id, member.event_id(), invitation).await;
        assert!(matches!(refused, Err(Error::InvalidParam(_))), "{refused:?}");
    }
}

fn told_stripped(told: &[Value]) -> Vec<Box<serde_json::value::RawValue>> {
    told.iter().map(|event| serde_json::value::to_raw_value(event).unwrap()).collect()
}

/// A club of `a` and `b`, and a room of both for its members in which only Alice may invite.
async fn club(net: &Net) -> (Rooms, Rooms, ruma::OwnedRoomId, ruma::OwnedRoomId) {
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let club = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
    let rule =
        json!({ "type": "m.room.join_rules", "content": { "join_rule": "restricted", "allow": allow } });
    let id =
        room(&a, ALICE, json!({ "preset": "public_chat", "room_version": "10", "initial_state": [rule] }))
            .await;
    let levels = json!({ "invite": 100, "users": { ALICE: 100 } });
    a.send(&actor(ALICE), &id, state("m.room.power_levels", "", &levels), None).await.unwrap();
    for id in [&club, &id] {
        join(&b, BOB, id).await;
        net.deliver().await;
    }
    (a, b, club, id)
}

#[tokio::test]
async fn a_server_that_cannot_let_in_is_passed_over_only_if_others_are_named() {
    let net = Net::default();
    let (_a, _b, club, id) = club(&net).await;
    let c = net.server("c.example", 3);
    join(&c, CAROL, &club).await;
    net.deliver().await;
    let refused = c.join(&actor(CAROL), &id, vec![server("b.example")], Map::new()).await;
    assert!(matches!(refused, Err(Error::Peer(_))), "{refused:?}");
    c.join(&actor(CAROL), &id, vec![server("b.example"), server("a.example")], Map::new()).await.unwrap();
    let view = c.view(&id).await.unwrap();
    let member = view.current("m.room.member".into(), CAROL).await.unwrap().unwrap().pdu;
    assert!(member.content().get().contains(ALICE));
}

#[tokio::test]
async fn who_is_in_the_room_knows_which_server_can_let_in() {
    let net = Net::default();
    let (z, c) = (net.server("z.example", 1), net.server("c.example", 2));
    let (zoe, dan, erin) = ("@zoe:z.example", "@dan:c.example", "@erin:c.example");
    let public = json!({ "preset": "public_chat", "room_version": "12" });
    let (club, id) = (room(&z, zoe, public.clone()).await, room(&z, zoe, public).await);
    // As many as are asked come before the one that can.
    for number in 0..8 {
        let name = format!("a{number}.example");
        let unable = net.server(&name, 10 + number);
        unable.join(&actor(&format!("@x:{name}")), &id, vec![server("z.example")], Map::new()).await.unwrap();
        net.deliver().await;
    }
    for (who, id) in [(CAROL, &id), (CAROL, &club), (dan, &club), (erin, &club)] {
        c.join(&actor(who), id, vec![server("z.example")], Map::new()).await.unwrap();
        net.deliver().await;
    }
    let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
    let rule = json!({ "join_rule": "restricted", "allow": allow });
    z.send(&actor(zoe), &id, state("m.room.join_rules", "", &rule), None).await.unwrap();
    net.deliver().await;
    for (who, via) in [(dan, Vec::new()), (erin, vec![server("a0.example")])] {
        c.join(&actor(who), &id, via, Map::new()).await.unwrap();
        net.deliver().await;
        let view = c.view(&id).await.unwrap();
        let member = view.current("m.room.member".into(), who).await.unwrap().unwrap().pdu;
        assert!(member.content().get().contains(zoe));
    }
}

#[tokio::test]
async fn where_nobody_named_is_reached_the_rooms_own_server_is_asked() {
    let net = Net::default();
    let (_a, _b, club, _) = club(&net).await;
    let c = net.server("c.example", 3);
    c.join(&actor(CAROL), &club, vec![server("gone.example")], Map::new()).await.unwrap();
}

#[tokio::test]
async fn who_authorises_a_join_is_not_for_the_client_to_say() {
    let net = Net::default();
    let (_a, b, _, id) = club(&net).await;
    let content = json!({
        "membership": "join", "displayname": "Bobby", "join_authorised_via_users_server": "unused",
    });
    b.send(&actor(BOB), &id, state("m.room.member", BOB, &content), None).await.unwrap();
    let view = b.view(&id).await.unwrap();
    let member = view.current("m.room.member".into(), BOB).await.unwrap().unwrap().pdu;
    assert!(!member.content().get().contains("unused"));
}

#[tokio::test]
async fn what_a_server_may_not_see_it_gets_redacted_and_in_its_place() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let hidden = json!({ "history_visibility": "joined" });
    a.send(&actor(ALICE), &id, state("m.room.history_visibility", "", &hidden), None).await.unwrap();
    let secret = say(&a, ALICE, &id, "secret").await;
    join(&b, BOB, &id).await;
    let view = a.view(&id).await.unwrap();
    let create = view.current("m.room.create".into(), "").await.unwrap().unwrap();
    let join = view.current("m.room.member".into(), BOB).await.unwrap().unwrap();
    let gap = Gap {
        earliest: vec![create.pdu.event_id().to_owned()],
        latest: vec![join.pdu.event_id().to_owned()],
        limit: 10,
        min_depth: UInt::MIN,
    };
    let peer = server("b.example");
    let told = a.missing_events_for(&peer, &id, gap).await.unwrap();
    let told: Vec<Value> = told.iter().map(|raw| serde_json::from_str(raw.get()).unwrap()).collect();
    let kinds: Vec<&str> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let expected =
        ["member", "power_levels", "join_rules", "history_visibility", "history_visibility", "message"];
    assert_eq!(kinds, expected.map(|kind| format!("m.room.{kind}")));
    assert_eq!(told[5]["content"], json!({}));
    assert!(!a.event_for(&peer, &secret).await.unwrap().get().contains("secret"));
    assert!(a.state_ids_for(&peer, &id, &secret).await.is_ok());
    let stranger = server("c.example");
    assert!(a.event_for(&stranger, &secret).await.is_err());
    assert!(a.state_ids_for(&stranger, &id, &secret).await.is_err());
}

#[tokio::test]
async fn whole_states_are_told_as_they_are_and_drive_nothing_out_of_the_caches() {
    let (net, trips) = (Net::default(), Arc::new(RoundTrips::default()));
    let db = Db::new(Counting::new(Memory::default(), trips.clone()));
    let a = net.server_on("a.example", 1, db.clone());
    let id =
        room(&a, ALICE, json!({ "preset": "public_chat", "room_version": "11", "name": "Secret" })).await;
    let view = a.view(&id).await.unwrap();
    let name = view.current("m.room.name".into(), "").await.unwrap().unwrap();
    let redaction = Draft::redaction(name.pdu.event_id(), None);
    a.send(&actor(ALICE), &id, redaction, None).await.unwrap();
    let last = say(&a, ALICE, &id, "last").await;
    // The same server with nothing in memory.
    let a = net.server_on("a.example", 1, db);
    let ids = a.state_ids_for(&server("a.example"), &id, &last).await.unwrap();
    let whole = a.state_for(&server("a.example"), &id, &last).await.unwrap();
    let view = a.view(&id).await.unwrap();
    let state = view.reader.current_state(view.nid).await.unwrap();
    let nums: Vec<EventNum> = state.into_iter().map(|(_, num)| num).collect();
    trips.take();
    view.reader.pdus(view.nid, &nums).await.unwrap();
    assert_eq!(trips.take().0, 1, "they were not kept");
    let events = view.load(&nums).await.unwrap();
    let sorted = |mut texts: Vec<String>| {
        texts.sort_unstable();
        texts
    };
    let told = sorted(whole.state.iter().map(|raw| raw.get().to_owned()).collect());
    assert_eq!(told, sorted(events.iter().map(|event| event.pdu.to_raw().get().to_owned()).collect()));
    assert!(told.iter().all(|event| !event.contains("Secret")));
    let named = sorted(ids.state.iter().map(ToString::to_string).collect());
    assert_eq!(named, sorted(events.iter().map(|event| event.pdu.event_id().to_string()).collect()));
    assert_eq!(ids.auth_chain.len(), whole.auth_chain.len());
}

#[tokio::test]
async fn which_servers_are_in_many_rooms_is_looked_up_once_for_each_state() {
    let (net, trips) = (Net::default(), Arc::new(RoundTrips::default()));
    let a = net.server_on("a.example", 1, Db::new(Counting::new(Memory::default(), trips.clone())));
    let b = net.server("b.example", 2);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(room(&a, ALICE, json!({ "preset": "public_chat" })).await);
    }
    let ask = async || {
        let reader = a.store().read();
        let rooms = reader.user_rooms(&user(ALICE)).await.unwrap();
        let rooms: Vec<RoomNid> = rooms.into_iter().map(|(nid, _)| nid).collect();
        trips.take();
        let servers = a.servers_in(&reader, &rooms).await.unwrap();
        (servers.len(), trips.take().1)
    };
    assert_eq!(ask().await.0, 1);
    assert_eq!(ask().await, (1, 0));
    b.join(&actor(BOB), &ids[0], vec![server("a.example")], Map::new()).await.unwrap();
    let (servers, scans) = ask().await;
    assert!(servers == 2 && scans <= 1, "{servers} servers, {scans} scans");
}

#[tokio::test]
async fn what_everybody_hides_from_this_server_is_asked_of_nobody_else() {
    for (visibility, is_hidden) in [("joined", true), ("shared", false)] {
        let net = Net::default();
        let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), net.server("c.example", 3));
        let content = json!({ "history_visibility": visibility });
        let rule = json!({ "type": "m.room.history_visibility", "content": content });
        let id = room(&a, ALICE, json!({ "preset": "public_chat", "initial_state": [rule] })).await;
        join(&c, CAROL, &id).await;
        net.deliver().await;
        let mut said = Vec::new();
        for (rooms, who) in [(&a, ALICE), (&c, CAROL)] {
            said.push(say(rooms, who, &id, "secret").await);
            net.deliver().await;
        }
        join(&b, BOB, &id).await;
        net.deliver().await;
        assert!(b.fetch_older(&id, 50).await.unwrap() > 3);
        assert_eq!(bodies(&b, &id).await.is_empty(), is_hidden);
        let asked = net.events.lock().clone();
        assert!(asked.iter().all(|(_, event)| !said.contains(event)), "{visibility}: {asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_before_our_own_is_asked_of_others_and_what_they_name_is_fetched() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let mut said = Vec::new();
    for body in ["one", "two", "three"] {
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let event = say(&a, ALICE, &id, body).await;
        let view = a.view(&id).await.unwrap();
        let num = view.reader.event_num(view.nid, &event).await.unwrap().unwrap();
        said.push((event, view.load_one(num).await.unwrap().pdu.origin_server_ts()));
    }
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    join(&b, BOB, &id).await;
    assert!(bodies(&b, &id).await.is_empty());
    let bob = actor(BOB);
    let at = |ts: MilliSecondsSinceUnixEpoch, direction| b.timestamp_to_event(&bob, &id, ts, direction);
    assert_eq!(at(said[1].1, Direction::Forward).await.unwrap(), said[1]);
    assert_eq!(bodies(&b, &id).await, ["one", "two", "three"]);
    assert_eq!(at(said[2].1, Direction::Backward).await.unwrap(), said[2]);
}

#[tokio::test]
async fn an_address_that_was_invited_becomes_a_user_by_the_word_of_the_identity_server() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({})).await;
    let notary = SigningKey::from_seed([9; 32], "0").unwrap();
    let public = ruma::serde::Base64::<ruma::serde::base64::Standard, _>::new(notary.public_key().to_vec());
    let asked = json!({
        "display_name": "b...", "key_validity_url": "https://is.example/valid", "public_key": public,
        "public_keys": [{ "public_key": public }],
    });
    a.send(&actor(ALICE), &id, state("m.room.third_party_invite", "tok", &asked), None).await.unwrap();
    let signed_for = |token: &str, key: &SigningKey, mxid: &str| -> Map<String, Value> {
        let mut object: CanonicalJsonObject =
            serde_json::from_value(json!({ "mxid": mxid, "token": token })).unwrap();
        key.sign_json(&server("is.example"), &mut object);
        serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap()
    };
    let signed = |key: &SigningKey, mxid: &str| signed_for("tok", key, mxid);
    let bound = |sender: &str, signed| BoundInvite { sender: user(sender), invited: user(BOB), signed };
    let forger = SigningKey::from_seed([8; 32], "0").unwrap();
    for forged in [signed(&forger, BOB), signed(&notary, CAROL)] {
        let refused = a.exchange_invite(&id, bound(ALICE, forged)).await;
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    }
    assert!(a.exchange_invite(&id, bound(ANNE, signed(&notary, BOB))).await.is_err(), "not who invited");
    // What else a peer writes there does not come under this server's signature.
    let mut more = signed(&notary, BOB);
    let signatures = more["signatures"].clone();
    more.insert("unsigned".to_owned(), json!({ "said": "by a stranger" }));
    more["signatures"]["is.example"]["ed25519:x"] = json!({ "said": "by a stranger" });
    more["signatures"]["other.example"] = json!("said by a stranger");
    a.exchange_invite(&id, bound(ALICE, more)).await.unwrap();
    assert_eq!(membership(&a, &id, BOB).await, Some("invite"));
    let view = a.view(&id).await.unwrap();
    let invite = view.current("m.room.member".into(), BOB).await.unwrap().unwrap().pdu;
    let invite: Value = invite.content_as().unwrap();
    let expected = json!({ "mxid": BOB, "token": "tok", "signatures": signatures });
    assert_eq!(invite["third_party_invite"]["signed"], expected);
    b.join(&actor(BOB), &id, Vec::new(), Map::new()).await.unwrap();
    // Once is enough, and a member is not thrown back to being invited.
    a.exchange_invite(&id, bound(ALICE, signed(&notary, BOB))).await.unwrap();
    assert_eq!(membership(&a, &id, BOB).await, Some("join"));
    // Nor is who has left since; for a new invitation there is a new word.
    b.leave(&actor(BOB), &id, None).await.unwrap();
    net.deliver().await;
    let again = a.exchange_invite(&id, bound(ALICE, signed(&notary, BOB))).await;
    assert!(matches!(again, Err(Error::Forbidden(_))), "{again:?}");
    assert_eq!(membership(&a, &id, BOB).await, Some("leave"));
    a.send(&actor(ALICE), &id, state("m.room.third_party_invite", "new", &asked), None).await.unwrap();
    a.exchange_invite(&id, bound(ALICE, signed_for("new", &notary, BOB))).await.unwrap();
    assert_eq!(membership(&a, &id, BOB).await, Some("invite"));
}
