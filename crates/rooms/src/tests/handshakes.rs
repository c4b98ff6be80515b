//! What servers tell and grant each other around a room: invites and their end, restricted joins, history, times.

use std::{sync::Arc, time::Duration};

use chappe_accounts::Scope;
use chappe_kv::{Counting, Db, Memory, RoundTrips};
use chappe_rules::build::SigningKey;
use chappe_store::{EventNum, Membership, RoomNid};
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedServerName, UInt, api::Direction, room_alias_id,
};
use serde_json::{Map, Value, json};

use super::net::{
    ALICE, BOB, CAROL, Net, actor, bodies, join, membership, noted, request, room, say, state, user,
};
use crate::{BoundInvite, Change, Draft, Error, Gap, Invitation, Rooms};

const ANNE: &str = "@anne:a.example";

fn server(name: &str) -> OwnedServerName {
    name.try_into().unwrap()
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
    assert_eq!(noted(&b, &id, BOB).await.unwrap().kind(), Some(Membership::Invite));
    a.change(&actor(ANNE), &id, &user(BOB), Change::Invite, None).await.unwrap();
    a.change(&actor(ANNE), &id, &user(BOB), Change::Kick, Some("no".to_owned())).await.unwrap();
    net.deliver().await;
    let ended = noted(&b, &id, BOB).await.unwrap();
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
    assert_eq!(noted(&b, &id, BOB).await.unwrap().kind(), Some(Membership::Knock));
    refuse().await;
    net.deliver().await;
    assert_eq!(noted(&b, &id, BOB).await.unwrap().kind(), Some(Membership::Leave));
}

#[tokio::test]
async fn an_invite_turned_down_in_silence_ends_with_an_event_of_our_own() {
    for version in ["6", "11", "12"] {
        let net = Net::default();
        let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
        let id = room(&a, ALICE, json!({ "invite": [BOB], "room_version": version })).await;
        let invite = noted(&b, &id, BOB).await.unwrap();
        // Nobody is left who could be told.
        a.leave(&actor(ALICE), &id, None).await.unwrap();
        b.leave(&actor(BOB), &id, Some("late".to_owned())).await.unwrap();
        let left = noted(&b, &id, BOB).await.unwrap();
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
    assert_eq!(noted(&b, &id, BOB).await.unwrap().kind(), Some(Membership::Leave));
    assert_eq!(membership(&c, &id, BOB).await, Some("leave"));
    net.deliver().await;
    assert_eq!(membership(&a, &id, BOB).await, Some("leave"));
}

#[tokio::test]
async fn an_invite_tells_what_the_room_is() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "name": "Salon", "invite": [BOB], "room_version": "12" })).await;
    let told = noted(&b, &id, BOB).await.unwrap();
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

#[tokio::test(start_paused = true)]
async fn an_invite_does_not_wait_for_keys_that_nobody_gives() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "name": "Salon", "room_version": "12" })).await;
    let wires = net.clone();
    // The first keys are those of the invite itself.
    let then = async move {
        wires.before.lock().insert("keys", Box::pin(std::future::pending::<()>()));
    };
    net.before.lock().insert("keys", Box::pin(then));
    let asked = tokio::time::Instant::now();
    a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(net.before.lock().is_empty());
    let told = noted(&b, &id, BOB).await.unwrap().state;
    for shown in ["m.room.create", "Salon"] {
        assert!(told.iter().any(|event| event.get().contains(shown)), "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn whom_a_new_room_invites_from_elsewhere_is_invited_side_by_side() {
    let net = Net::default();
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), net.server("c.example", 3));
    *net.invites_meet.lock() = Some(Arc::new(tokio::sync::Barrier::new(2)));
    let made = room(&a, ALICE, json!({ "invite": [BOB, CAROL] }));
    let id = tokio::time::timeout(Duration::from_mins(1), made).await.unwrap();
    for (rooms, who) in [(&b, BOB), (&c, CAROL)] {
        assert_eq!(membership(&a, &id, who).await, Some("invite"));
        assert_eq!(noted(rooms, &id, who).await.unwrap().kind(), Some(Membership::Invite));
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_room_invites_once_more_where_a_server_was_away_for_a_moment() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    net.down.lock().insert(server("b.example"));
    let (wires, wires_then) = (net.clone(), net.clone());
    let back = async move {
        wires_then.down.lock().clear();
    };
    let away = async move {
        wires.before.lock().insert("invite", Box::pin(back));
    };
    net.before.lock().insert("invite", Box::pin(away));
    let id = room(&a, ALICE, json!({ "invite": [BOB] })).await;
    assert_eq!(membership(&a, &id, BOB).await, Some("invite"));
    assert_eq!(noted(&b, &id, BOB).await.unwrap().kind(), Some(Membership::Invite));
}

#[tokio::test(start_paused = true)]
async fn a_new_room_does_not_wait_for_ever_for_an_invite() {
    let net = Net::default();
    let (a, _b) = (net.server("a.example", 1), net.server("b.example", 2));
    net.before.lock().insert("invite", Box::pin(tokio::time::sleep(Duration::from_mins(1))));
    let asked = tokio::time::Instant::now();
    let id = room(&a, ALICE, json!({ "invite": [BOB], "is_direct": true })).await;
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    let mut commits = a.store().visible();
    while membership(&a, &id, BOB).await != Some("invite") {
        tokio::time::timeout(Duration::from_mins(2), commits.changed()).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_room_into_which_nobody_could_be_invited_is_taken_back() {
    let net = Net::default();
    let (a, _b) = (net.server("a.example", 1), net.server("b.example", 2));
    let create = async |body: Value| a.create(&actor(ALICE), request(body)).await;
    let rooms_of_alice = async || a.store().read().user_rooms(&user(ALICE)).await.unwrap().len();
    let chat = json!({
        "preset": "trusted_private_chat", "is_direct": true, "room_alias_name": "chat", "invite": [BOB],
    });
    net.down.lock().insert(server("b.example"));
    for body in [&chat, &json!({ "preset": "private_chat", "invite": [BOB, "@bert:b.example"] })] {
        let made = create(body.clone()).await;
        assert!(matches!(made, Err(Error::Unreachable)), "{made:?}");
        assert_eq!(rooms_of_alice().await, 0);
    }
    // Somebody else is there, or may come.
    for body in [json!({ "invite": [ANNE, BOB] }), json!({ "preset": "public_chat", "invite": [BOB] })] {
        create(body).await.unwrap();
    }
    assert_eq!(rooms_of_alice().await, 2);
    net.down.lock().clear();
    net.unlisted.lock().insert((server("b.example"), server("a.example")));
    let asked = tokio::time::Instant::now();
    let refused = create(chat.clone()).await;
    assert!(matches!(refused, Err(Error::Peer(_))), "{refused:?}");
    assert_eq!((asked.elapsed(), rooms_of_alice().await), (Duration::ZERO, 2));
    net.unlisted.lock().clear();
    let id = create(chat).await.unwrap();
    assert_eq!(membership(&a, &id, BOB).await, Some("invite"));
}

#[tokio::test(start_paused = true)]
async fn why_nobody_could_be_invited_is_told_of_who_was_named_first() {
    let net = Net::default();
    let a = net.server("a.example", 1);
    let _others = (net.server("b.example", 2), net.server("c.example", 3));
    net.unlisted.lock().insert((server("b.example"), server("a.example")));
    // This one is tried twice.
    net.down.lock().insert(server("c.example"));
    let create = async |invited: [&str; 2]| {
        let body = json!({ "preset": "private_chat", "invite": invited });
        a.create(&actor(ALICE), request(body)).await
    };
    let away = create([CAROL, BOB]).await;
    assert!(matches!(away, Err(Error::Unreachable)), "{away:?}");
    let refused = create([BOB, CAROL]).await;
    assert!(matches!(refused, Err(Error::Peer(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_room_is_furnished_when_nobody_waits_for_it() {
    let net = Net::default();
    let (a, _b) = (net.server("a.example", 1), net.server("b.example", 2));
    let old = room(&a, ALICE, json!({})).await;
    let set = |tags: &mut Map<String, Value>| drop(tags.insert("u.t".to_owned(), json!({})));
    a.0.accounts.update_tags(&user(ALICE), &old, set).await.unwrap();
    net.before.lock().insert("invite", Box::pin(tokio::time::sleep(Duration::from_secs(5))));
    let create = json!({ "predecessor": { "room_id": old, "event_id": "$last" } });
    let body = json!({ "invite": [BOB], "room_alias_name": "new", "creation_content": create });
    let alice = actor(ALICE);
    let made = a.create(&alice, request(body));
    assert!(a.0.world.timeout(Duration::from_secs(1), made).await.is_none());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let id = a.resolve_alias(room_alias_id!("#new:a.example")).await.unwrap().room_id;
    assert_eq!(membership(&a, &id, BOB).await, Some("invite"));
    let reader = a.store().read();
    let tags = a.0.accounts.account_data(&reader, &alice.user, Scope::Room(&id), "m.tag").await;
    assert!(tags.unwrap().is_some());
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
        tokio::time::advance(Duration::from_secs(1)).await;
        let event = say(&a, ALICE, &id, body).await;
        let view = a.view(&id).await.unwrap();
        let num = view.reader.event_num(view.nid, &event).await.unwrap().unwrap();
        said.push((event, view.load_one(num).await.unwrap().pdu.origin_server_ts()));
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    join(&b, BOB, &id).await;
    assert!(bodies(&b, &id).await.is_empty());
    let bob = actor(BOB);
    let at = |ts: MilliSecondsSinceUnixEpoch, direction| b.timestamp_to_event(&bob, &id, ts, direction);
    assert_eq!(at(said[1].1, Direction::Forward).await.unwrap(), said[1]);
    assert_eq!(bodies(&b, &id).await, ["one", "two", "three"]);
    assert_eq!(at(said[2].1, Direction::Backward).await.unwrap(), said[2]);
}

#[tokio::test(start_paused = true)]
async fn what_ignored_users_say_near_a_time_is_here_and_nobody_is_asked_for_it() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    say(&a, ALICE, &id, "before").await;
    join(&b, BOB, &id).await;
    net.deliver().await;
    for number in 0..60 {
        say(&a, ALICE, &id, &number.to_string()).await;
    }
    net.deliver().await;
    let list = json!({ "ignored_users": { ALICE: {} } });
    let list = serde_json::value::to_raw_value(&list).unwrap();
    let accounts = &b.0.accounts;
    accounts.set_account_data(&user(BOB), Scope::Global, "m.ignored_user_list", &list).await.unwrap();
    let found = b.timestamp_to_event(&actor(BOB), &id, b.0.now(), Direction::Backward).await;
    assert!(matches!(found, Err(Error::NotFound(_))), "{found:?}");
    assert_eq!(bodies(&b, &id).await.first().unwrap(), "0", "nothing older was fetched");
}

/// What a room says of an address whose identity server has this key.
fn asked_of(notary: &SigningKey) -> Value {
    let public = ruma::serde::Base64::<ruma::serde::base64::Standard, _>::new(notary.public_key().to_vec());
    json!({
        "display_name": "b...", "key_validity_url": "https://is.example/valid", "public_key": public,
        "public_keys": [{ "public_key": public }],
    })
}

/// What an identity server says of the user whose address it is.
fn signed_for(token: &str, key: &SigningKey, mxid: &str) -> Map<String, Value> {
    let mut object: CanonicalJsonObject =
        serde_json::from_value(json!({ "mxid": mxid, "token": token })).unwrap();
    key.sign_json(&server("is.example"), &mut object);
    serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap()
}

#[tokio::test]
async fn an_address_that_was_invited_becomes_a_user_by_the_word_of_the_identity_server() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({})).await;
    let notary = SigningKey::from_seed([9; 32], "0").unwrap();
    let asked = asked_of(&notary);
    a.send(&actor(ALICE), &id, state("m.room.third_party_invite", "tok", &asked), None).await.unwrap();
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
    // Nor does what others may take for the signature that counts.
    more["signatures"]["a.is.example"] = signed(&forger, BOB)["signatures"]["is.example"].clone();
    more["signatures"]["is.example"]["ed25519:-"] = json!("A".repeat(86));
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
    // Who did not invite the address is told nothing of the member.
    let refused = a.exchange_invite(&id, bound(ANNE, signed(&notary, BOB))).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
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

#[tokio::test]
async fn of_what_is_said_of_an_address_so_many_signatures_are_looked_at() {
    let net = Net::default();
    let (a, _b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({})).await;
    let notary = SigningKey::from_seed([9; 32], "0").unwrap();
    a.send(&actor(ALICE), &id, state("m.room.third_party_invite", "tok", &asked_of(&notary)), None)
        .await
        .unwrap();
    let mut signed = signed_for("tok", &notary, BOB);
    for n in 0..10 {
        signed["signatures"][format!("s{n}.example")] = json!({ "ed25519:0": "A".repeat(86) });
    }
    let bound = BoundInvite { sender: user(ALICE), invited: user(BOB), signed };
    let refused = a.exchange_invite(&id, bound).await;
    assert!(matches!(refused, Err(Error::BadJson(_))), "{refused:?}");
}

#[tokio::test]
async fn so_many_keys_of_an_invited_address_are_looked_at_when_it_has_become_a_users() {
    let net = Net::default();
    let (a, _b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({})).await;
    let notary = SigningKey::from_seed([9; 32], "0").unwrap();
    let of = |key: &SigningKey| json!({ "public_key": asked_of(key)["public_key"] });
    for (others, token) in [(10_u8, "too many"), (9, "tok")] {
        let others = (0..others).map(|seed| of(&SigningKey::from_seed([seed + 100; 32], "0").unwrap()));
        let keys: Vec<Value> = others.chain([of(&notary)]).collect();
        let asked = json!({ "display_name": "b...", "public_keys": keys });
        a.send(&actor(ALICE), &id, state("m.room.third_party_invite", token, &asked), None).await.unwrap();
        let bound =
            BoundInvite { sender: user(ALICE), invited: user(BOB), signed: signed_for(token, &notary, BOB) };
        let invited = a.exchange_invite(&id, bound).await;
        assert_eq!(invited.is_ok(), token == "tok", "{invited:?}");
    }
    assert_eq!(membership(&a, &id, BOB).await, Some("invite"));
}

#[tokio::test]
async fn the_word_of_the_identity_server_counts_however_its_base64_is_written() {
    let net = Net::default();
    let (a, _b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({})).await;
    let notary = SigningKey::from_seed([9; 32], "0").unwrap();
    let mut asked = asked_of(&notary);
    asked["public_key"] = json!(asked["public_key"].as_str().unwrap().replace('+', "-").replace('/', "_"));
    a.send(&actor(ALICE), &id, state("m.room.third_party_invite", "tok", &asked), None).await.unwrap();
    let mut signed = signed_for("tok", &notary, BOB);
    let signature = &mut signed["signatures"]["is.example"]["ed25519:0"];
    // Four characters that are no base64 are skipped.
    let odd = format!("!!!!{}", signature.as_str().unwrap().replace('+', "-").replace('/', "_"));
    *signature = json!(odd);
    a.exchange_invite(&id, BoundInvite { sender: user(ALICE), invited: user(BOB), signed }).await.unwrap();
    assert_eq!(membership(&a, &id, BOB).await, Some("invite"));
    let view = a.view(&id).await.unwrap();
    let invite = view.current("m.room.member".into(), BOB).await.unwrap().unwrap().pdu;
    assert!(invite.content().get().contains(&odd), "it is sent on as it was written");
}

#[tokio::test]
async fn nobody_elsewhere_is_invited_into_a_room_of_one_server() {
    for version in ["10", "12"] {
        let net = Net::default();
        let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
        let knock = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
        let own = json!({ "m.federate": false });
        let body = json!({
            "room_version": version, "creation_content": own, "initial_state": [knock], "invite": [ANNE],
        });
        let id = room(&a, ALICE, body).await;
        // Nobody there hears of it.
        net.before.lock().insert("invite", Box::pin(async {}));
        let notary = SigningKey::from_seed([9; 32], "0").unwrap();
        let asked = state("m.room.third_party_invite", "tok", &asked_of(&notary));
        a.send(&actor(ALICE), &id, asked, None).await.unwrap();
        let signed = signed_for("tok", &notary, BOB);
        let bound = BoundInvite { sender: user(ALICE), invited: user(BOB), signed };
        let member = state("m.room.member", BOB, &json!({ "membership": "invite" }));
        let alone = json!({
            "preset": "private_chat", "room_version": version, "creation_content": own, "invite": [BOB],
        });
        for refused in [
            a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await,
            a.send(&actor(ALICE), &id, member, None).await.map(drop),
            a.exchange_invite(&id, bound).await,
            a.create(&actor(ALICE), request(alone)).await.map(drop),
        ] {
            assert!(matches!(refused, Err(Error::Forbidden(_))), "{version}: {refused:?}");
        }
        let knocked = b.knock(&actor(BOB), &id, vec![server("a.example")], None).await;
        assert!(matches!(knocked, Err(Error::Peer(_))), "{version}: {knocked:?}");
        assert!(net.before.lock().contains_key("invite"), "{version}");
        assert_eq!(membership(&a, &id, BOB).await, None, "{version}");
        assert_eq!(membership(&a, &id, ANNE).await, Some("invite"), "{version}");
    }
}
