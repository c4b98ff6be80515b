//! Users who were put out of a room whose server did not hear of it: how it hears, and how they come back.

use std::sync::Arc;

use chappe_kv::{Counting, Db, Memory, RoundTrips};
use chappe_rules::Pdu;
use chappe_store::{Membership, Status};
use ruma::{OwnedEventId, RoomVersionId, UInt, room_version_rules::RoomVersionRules, server_name};
use serde_json::{Map, json};

use super::{
    malformed::signed_in,
    net::{
        ALICE, BOB, CAROL, Net, actor, bodies, history, join, membership, noted, raw, room, say, state,
        status, user, whole_state,
    },
    partial::{Lie, at, tell},
};
use crate::{Change, Config, Error, Gap, Invitation, Rooms};

const BERT: &str = "@bert:b.example";

/// Alice's room with Bob and Bert.
async fn shared(net: &Net, preset: &str) -> (Rooms, Rooms, ruma::OwnedRoomId) {
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": preset, "invite": [BOB, BERT], "room_version": "11" })).await;
    for who in [BOB, BERT] {
        join(&b, who, &id).await;
        net.deliver().await;
    }
    (a, b, id)
}

async fn kick(a: &Rooms, id: &ruma::RoomId, who: &str) -> OwnedEventId {
    a.change(&actor(ALICE), id, &user(who), Change::Kick, None).await.unwrap();
    whole_state(a, id).await[&("m.room.member".to_owned(), who.to_owned())].clone()
}

#[tokio::test]
async fn who_is_put_out_on_top_of_what_is_missing_is_out() {
    let net = Net::default();
    let (a, b, id) = shared(&net, "public_chat").await;
    let c = net.server("c.example", 3);
    join(&c, CAROL, &id).await;
    net.deliver().await;
    kick(&a, &id, BERT).await;
    net.deliver().await;
    say(&c, CAROL, &id, "slow").await;
    net.lose(&c, "b.example").await;
    net.deliver().await;
    kick(&a, &id, BOB).await;
    net.deliver().await;
    assert_eq!(membership(&b, &id, BOB).await, Some("leave"));
    assert_eq!(bodies(&b, &id).await, ["slow"]);
}

#[tokio::test]
async fn a_server_that_was_put_out_is_told_what_was_before_and_no_more() {
    let net = Net::default();
    let (a, _b, id) = shared(&net, "public_chat").await;
    let within = say(&a, ALICE, &id, "within").await;
    kick(&a, &id, BERT).await;
    let kick = kick(&a, &id, BOB).await;
    let later = say(&a, ALICE, &id, "later").await;
    let gap = |latest: &[&OwnedEventId]| Gap {
        earliest: Vec::new(),
        latest: latest.iter().map(|event| (*event).clone()).collect(),
        limit: 2,
        min_depth: UInt::MIN,
    };
    let peer = server_name!("b.example");
    assert!(matches!(a.missing_events_for(peer, &id, gap(&[&later])).await, Err(Error::Forbidden(_))));
    let told = a.missing_events_for(peer, &id, gap(&[&later, &kick])).await.unwrap();
    assert!(told.len() == 2 && told[0].get().contains("within"), "{told:?}");
    for event in [&within, &kick] {
        assert!(a.event_for(peer, event).await.is_ok());
        assert!(a.state_ids_for(peer, &id, event).await.is_ok());
        assert!(a.event_auth_for(peer, &id, event).await.is_ok());
    }
    let told = a.backfill_for(peer, &id, &[later.clone(), kick.clone()], 1).await.unwrap();
    assert!(told[0].get().contains("leave"), "{told:?}");
    assert!(matches!(a.event_for(peer, &later).await, Err(Error::NotFound(_))));
    assert!(a.state_ids_for(peer, &id, &later).await.is_err());
    assert!(a.event_for(server_name!("d.example"), &kick).await.is_err());
}

#[tokio::test]
async fn whoever_is_out_does_not_have_everybody_looked_at_for_each_question() {
    let (net, trips) = (Net::default(), Arc::new(RoundTrips::default()));
    let a = net.server_on("a.example", 1, Db::new(Counting::new(Memory::default(), trips.clone())));
    let b = net.server("b.example", 2);
    let id = room(&a, ALICE, json!({ "preset": "public_chat", "room_version": "11" })).await;
    join(&b, BOB, &id).await;
    net.deliver().await;
    let within = say(&a, ALICE, &id, "within").await;
    let state = whole_state(&a, &id).await;
    let room_auth = ["m.room.create", "m.room.power_levels"].map(|kind| at(&state, kind, ""));
    let bob = at(&state, "m.room.member", BOB);
    let named = Lie {
        sender: BOB,
        kind: "m.room.name",
        key: Some(""),
        content: json!({ "name": "Bob's" }),
        prev: within.clone(),
        auth: room_auth.into_iter().chain([bob]).collect(),
    };
    let rejected = tell(&a, &id, named).await;
    assert_eq!(status(&a, &id, &rejected).await, Status::Rejected);
    kick(&a, &id, BOB).await;
    let peer = server_name!("b.example");
    let scans = async |event: &OwnedEventId, is_told: bool| {
        trips.take();
        assert_eq!(a.event_for(peer, event).await.is_ok(), is_told);
        usize::try_from(trips.take().1).unwrap()
    };
    let most = Membership::ALL.len() - 1;
    assert!(scans(&rejected, false).await < most, "what is no part of the room");
    scans(&within, true).await;
    assert!(scans(&within, true).await < most, "asked for again");
    assert!(scans(&state[&("m.room.create".to_owned(), String::new())], false).await < most, "another event");
}

#[tokio::test]
async fn whoever_is_in_does_not_have_everybody_looked_at_for_each_question() {
    let (net, trips) = (Net::default(), Arc::new(RoundTrips::default()));
    let a = net.server_on("a.example", 1, Db::new(Counting::new(Memory::default(), trips.clone())));
    let b = net.server("b.example", 2);
    let rule = json!({ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } });
    let body = json!({ "preset": "public_chat", "room_version": "11", "initial_state": [rule] });
    let id = room(&a, ALICE, body).await;
    let outside = say(&a, ALICE, &id, "outside").await;
    join(&b, BOB, &id).await;
    net.deliver().await;
    let one = say(&a, ALICE, &id, "one").await;
    let peer = server_name!("b.example");
    let shown = async |event: &OwnedEventId| {
        trips.take();
        let told = a.event_for(peer, event).await.unwrap();
        (told.get().contains("\"body\""), usize::try_from(trips.take().1).unwrap())
    };
    let all = Membership::ALL.len();
    for asked in ["first", "again"] {
        let (is_shown, scans) = shown(&one).await;
        assert!(is_shown && scans < all, "{asked}: {scans} scans");
    }
    assert!(!shown(&outside).await.0);
    let (is_shown, scans) = shown(&outside).await;
    assert!(!is_shown && scans < all, "{scans} scans for what nobody there may see");
    // Who was asked first is not all of them.
    join(&b, BERT, &id).await;
    net.deliver().await;
    b.leave(&actor(BOB), &id, None).await.unwrap();
    net.deliver().await;
    let two = say(&a, ALICE, &id, "two").await;
    for event in [&one, &two, &one, &two] {
        assert!(shown(event).await.0);
    }
    assert!(!shown(&outside).await.0);
}

#[tokio::test]
async fn who_was_put_out_unheard_is_invited_again_and_comes_back() {
    let net = Net::default();
    let (a, b, id) = shared(&net, "private_chat").await;
    for who in [BERT, BOB] {
        kick(&a, &id, who).await;
    }
    net.lose(&a, "b.example").await;
    say(&a, ALICE, &id, "meanwhile").await;
    assert_eq!(membership(&b, &id, BOB).await, Some("join"));
    a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
    for who in [BERT, BOB] {
        assert_eq!(membership(&b, &id, who).await, Some("leave"));
    }
    assert!(noted(&b, &id, BOB).await.is_some());
    b.join(&actor(BOB), &id, Vec::new(), Map::new()).await.unwrap();
    say(&b, BOB, &id, "back").await;
    net.deliver().await;
    assert_eq!(bodies(&a, &id).await, ["meanwhile", "back"]);
    assert_eq!(whole_state(&a, &id).await, whole_state(&b, &id).await);
}

#[tokio::test]
async fn an_invite_into_a_room_that_seems_to_be_here_is_kept() {
    let net = Net::default();
    let (a, b, id) = shared(&net, "private_chat").await;
    b.leave(&actor(BOB), &id, None).await.unwrap();
    net.deliver().await;
    kick(&a, &id, BERT).await;
    net.lose(&a, "b.example").await;
    a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
    net.deliver().await;
    assert_eq!(membership(&b, &id, BERT).await, Some("join"), "nobody has told");
    b.join(&actor(BOB), &id, Vec::new(), Map::new()).await.unwrap();
    assert_eq!(membership(&b, &id, BOB).await, Some("join"));
    assert_eq!(membership(&b, &id, BERT).await, Some("leave"));
    assert!(noted(&b, &id, BOB).await.is_none());
    say(&b, BOB, &id, "back").await;
    net.deliver().await;
    assert_eq!(bodies(&a, &id).await, ["back"]);
}

#[tokio::test]
async fn a_join_into_a_room_that_is_here_is_made_for_its_version() {
    let net = Net::default();
    let (_a, b, id) = shared(&net, "public_chat").await;
    *net.twist_version.lock() = Some(RoomVersionId::V7);
    let content = json!({ "membership": "join" }).as_object().unwrap().clone();
    let via = vec![server_name!("a.example").to_owned()];
    let refused = b.join_remote(&actor("@new:b.example"), &id, Vec::new(), via, content).await;
    assert!(matches!(refused, Err(Error::HostilePeer(_))), "{refused:?}");
}

#[tokio::test]
async fn who_was_put_out_as_a_told_state_says_keeps_what_was_seen_until_then_and_sees_no_more() {
    let net = Net::default();
    let (a, b, id) = shared(&net, "public_chat").await;
    b.reconfigure(Config { missing_events_batch: 1, missing_events_limit: 1, ..Config::default() });
    let named = async |topic: &str| {
        let draft = state("m.room.topic", "", &json!({ "topic": topic }));
        a.send(&actor(ALICE), &id, draft, None).await.unwrap()
    };
    named("before").await;
    say(&a, ALICE, &id, "seen").await;
    net.deliver().await;
    let kick = kick(&a, &id, BOB).await;
    named("after").await;
    let mut later = Vec::new();
    for body in ["one", "two", "three"] {
        later.push(say(&a, ALICE, &id, body).await);
    }
    net.lose(&a, "b.example").await;
    let last = raw(&a, &id, &later[2]).await;
    b.receive(server_name!("a.example"), vec![last]).await.remove(0).result.unwrap();
    assert_eq!(membership(&b, &id, BOB).await, Some("leave"));
    assert_eq!(status(&b, &id, &kick).await, Status::Outlier);
    let bob = actor(BOB);
    for _ in 0..2 {
        assert_eq!(history(&b, BOB, &id, 10).await, ["seen"]);
        let topic = b.state_content(&bob, &id, "m.room.topic".into(), "").await.unwrap();
        assert!(topic.get().contains("before"), "{topic}");
        for event in &later[1..] {
            assert!(b.visible_to_user(&bob.user, &id, event).await.is_err());
        }
        // Somebody who is in has what is missing fetched: it was said after Bob was put out.
        assert_eq!(history(&b, BERT, &id, 10).await, ["three", "two", "one", "seen"]);
    }
}

#[tokio::test]
async fn a_stranger_does_not_learn_by_an_invite_who_is_in_a_room() {
    let net = Net::default();
    let (a, _b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "private_chat", "room_version": "11" })).await;
    let rules = &RoomVersionRules::V11;
    let mut answers = Vec::new();
    for who in [ALICE, "@other:a.example"] {
        let event = json!({
            "type": "m.room.member", "sender": BOB, "state_key": who, "room_id": id, "depth": 9,
            "content": { "membership": "invite" }, "origin_server_ts": 1_000, "auth_events": [],
            "prev_events": ["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
        });
        let event = signed_in(rules, serde_json::from_value(event).unwrap());
        let pdu = Pdu::parse(rules, event.get().as_bytes()).unwrap();
        let invitation = Invitation { room_version: RoomVersionId::V11, event, room_state: Vec::new() };
        let answer = a.accept_invite(server_name!("b.example"), &id, pdu.event_id(), invitation).await;
        answers.push(answer.map(drop).map_err(|error| error.to_string()));
    }
    assert_eq!(answers[0], answers[1]);
    assert!(noted(&a, &id, ALICE).await.is_none());
}
