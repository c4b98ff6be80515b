//! Peers that lie: templates, answers to joins, forged and foreign events.

use std::sync::Arc;

use chappe_rules::Pdu;
use ruma::{
    CanonicalJsonObject, RoomId, canonical_json::try_from_json_map, room_version_rules::RoomVersionRules,
    server_name,
};
use serde_json::{Value, json, value::RawValue};

use super::{
    malformed::signed_in,
    net::{ALICE, BOB, Net, actor, membership, raw, room, say, user, whole_state},
};
use crate::{
    Change, Error, JoinAnswer, Rooms, SignedMember,
    receive::{Budget, Checked, STATES},
};

async fn open_room(net: &Net) -> (Rooms, Rooms, ruma::OwnedRoomId) {
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    (a, b, id)
}

async fn join(b: &Rooms, id: &RoomId) -> Result<(), Error> {
    b.join(&actor(BOB), id, vec!["a.example".try_into().unwrap()], serde_json::Map::new()).await
}

fn with_field(raw: &RawValue, change: impl Fn(&mut Value)) -> Box<RawValue> {
    let mut value: Value = serde_json::from_str(raw.get()).unwrap();
    change(&mut value);
    serde_json::value::to_raw_value(&value).unwrap()
}

fn is(raw: &RawValue, kind: &str) -> bool {
    let value: Value = serde_json::from_str(raw.get()).unwrap();
    value["type"] == kind
}

#[tokio::test]
async fn lying_answers_to_a_join_are_refused_and_leave_no_room() {
    type Lie = fn(JoinAnswer) -> JoinAnswer;
    let lies: [(&str, Lie); 7] = [
        ("no create", |mut answer| {
            answer.state.retain(|raw| !is(raw, "m.room.create"));
            answer
        }),
        ("nothing", |_| JoinAnswer::default()),
        ("another room", |mut answer| {
            for raw in &mut answer.state {
                *raw = with_field(raw, |event| event["room_id"] = json!("!other:a.example"));
            }
            answer
        }),
        ("forged join rules", |mut answer| {
            for raw in answer.state.iter_mut().filter(|raw| is(raw, "m.room.join_rules")) {
                *raw = with_field(raw, |event| event["content"]["join_rule"] = json!("invite"));
            }
            answer
        }),
        ("unsigned", |mut answer| {
            for raw in &mut answer.state {
                *raw = with_field(raw, |event| event["signatures"] = json!({}));
            }
            answer
        }),
        ("another join", |mut answer| {
            answer.event = answer.state.first().cloned();
            answer
        }),
        ("two events of one key", |mut answer| {
            answer.state.extend(answer.state.clone());
            answer
        }),
    ];
    for (what, lie) in lies {
        let net = Net::default();
        let (a, b, id) = open_room(&net).await;
        *net.twist.lock() = Some(Arc::new(lie));
        let result = join(&b, &id).await;
        assert!(matches!(result, Err(Error::HostilePeer(_))), "{what}: {result:?}");
        assert!(b.store().read().user_rooms(&user(BOB)).await.unwrap().is_empty(), "{what}");
        assert_eq!(membership(&a, &id, BOB).await, Some("leave"), "{what}: elsewhere as well");
        // Told the truth, it works.
        *net.twist.lock() = None;
        join(&b, &id).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_that_is_accepted_and_does_not_come_in_in_time_is_taken_back() {
    let net = Net::default();
    let (a, b, id) = open_room(&net).await;
    net.before.lock().insert("join_answer", Box::pin(std::future::pending::<()>()));
    let late = join(&b, &id).await;
    assert!(matches!(late, Err(Error::Unreachable)), "{late:?}");
    assert!(b.store().read().user_rooms(&user(BOB)).await.unwrap().is_empty());
    assert_eq!(membership(&a, &id, BOB).await, Some("leave"), "elsewhere as well");
    join(&b, &id).await.unwrap();
}

#[tokio::test]
async fn a_template_cannot_make_us_sign_what_the_peer_likes() {
    let net = Net::default();
    let (a, b, id) = open_room(&net).await;
    *net.twist_template.lock() = Some(Arc::new(|mut event| {
        event["type"] = json!("m.room.power_levels");
        event["state_key"] = json!("");
        event["sender"] = json!("@root:b.example");
        event["room_id"] = json!("!other:a.example");
        event["content"] = json!({ "users": { "@mallory:a.example": 100 }, "membership": "ban" });
        event
    }));
    join(&b, &id).await.unwrap();
    let state = whole_state(&a, &id).await;
    assert!(state.contains_key(&("m.room.member".to_owned(), BOB.to_owned())));
    assert_eq!(state, whole_state(&b, &id).await);
}

#[tokio::test]
async fn only_the_right_membership_of_ones_own_user_is_accepted() {
    let net = Net::default();
    let (a, b, id) = open_room(&net).await;
    join(&b, &id).await.unwrap();
    let origin = server_name!("b.example");
    let message = say(&b, BOB, &id, "hi").await;
    let pdu = raw(&b, &id, &message).await;
    let member = SignedMember { event_id: message, pdu };
    assert!(matches!(a.accept_join(origin, &id, member.clone()).await, Err(Error::InvalidParam(_))));
    assert!(a.accept_leave(origin, &id, member.clone()).await.is_err());
    assert!(a.accept_knock(origin, &id, member).await.is_err());
    let theirs = a.make_join(origin, &id, &user("@carol:c.example"), crate::VERSIONS).await;
    assert!(matches!(theirs, Err(Error::Forbidden(_))));
    let old = a.make_join(origin, &id, &user("@new:b.example"), &[ruma::RoomVersionId::V1]).await;
    assert!(matches!(old, Err(Error::IncompatibleRoomVersion(_))));
}

#[tokio::test]
async fn a_refused_join_is_refused_again() {
    let net = Net::default();
    let (a, _b) = (net.server("a.example", 1), net.server("b.example", 2));
    let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let id = room(&a, ALICE, json!({ "initial_state": [rule], "room_version": "11" })).await;
    let origin = server_name!("b.example");
    let template = a.make_knock(origin, &id, &user(BOB), crate::VERSIONS).await.unwrap();
    let join = with_field(&template.event, |event| event["content"] = json!({ "membership": "join" }));
    let rules = &RoomVersionRules::V11;
    let join = signed_in(rules, serde_json::from_str(join.get()).unwrap());
    let event_id = Pdu::parse(rules, join.get().as_bytes()).unwrap().event_id().to_owned();
    let member = SignedMember { event_id, pdu: join };
    for _ in 0..2 {
        let answer = a.accept_join(origin, &id, member.clone()).await;
        assert!(matches!(answer, Err(Error::Forbidden(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn strangers_and_those_who_left_read_nothing() {
    let net = Net::default();
    let (a, b, id) = open_room(&net).await;
    let said = say(&a, ALICE, &id, "ours").await;
    let stranger = server_name!("c.example");
    assert!(a.event_for(stranger, &said).await.is_err());
    assert!(a.state_ids_for(stranger, &id, &said).await.is_err());
    assert!(a.event_auth_for(stranger, &id, &said).await.is_err());
    assert!(a.backfill_for(stranger, &id, std::slice::from_ref(&said), 10).await.is_err());
    join(&b, &id).await.unwrap();
    let other = room(&a, ALICE, json!({})).await;
    let hidden = say(&a, ALICE, &other, "hidden").await;
    let member = server_name!("b.example");
    assert!(a.event_for(member, &said).await.is_ok());
    assert!(matches!(a.event_for(member, &hidden).await, Err(Error::NotFound(_))));
    assert!(matches!(a.state_for(member, &id, &hidden).await, Err(Error::NotFound(_))));
    assert!(a.backfill_for(member, &id, std::slice::from_ref(&hidden), 10).await.unwrap().is_empty());
    b.leave(&actor(BOB), &id, None).await.unwrap();
    net.deliver().await;
    assert!(a.event_for(member, &said).await.is_err());
}

#[tokio::test]
async fn bad_events_of_a_transaction_do_not_stop_good_ones() {
    let net = Net::default();
    let (a, b, id) = open_room(&net).await;
    join(&b, &id).await.unwrap();
    net.deliver().await;
    let good = say(&b, BOB, &id, "good").await;
    let good = raw(&b, &id, &good).await;
    let forged = with_field(&good, |event| event["sender"] = json!(ALICE));
    let unsigned = with_field(&good, |event| event["signatures"] = json!({ "b.example": {} }));
    let deep = with_field(&good, |event| event["depth"] = json!(-1));
    let elsewhere = with_field(&good, |event| event["room_id"] = json!("!no:a.example"));
    let junk = RawValue::from_string("[1]".to_owned()).unwrap();
    let outcomes =
        a.receive(server_name!("b.example"), vec![junk, deep, forged, unsigned, elsewhere, good]).await;
    let taken: Vec<bool> = outcomes.iter().map(|outcome| outcome.result.is_ok()).collect();
    assert_eq!(taken, [false, false, false, false, false, true]);
}

#[tokio::test]
async fn an_access_control_list_keeps_a_server_out() {
    let net = Net::default();
    let (a, b, id) = open_room(&net).await;
    join(&b, &id).await.unwrap();
    let acl = json!({ "allow": ["*"], "deny": ["B.example"] });
    a.send(&actor(ALICE), &id, super::net::state("m.room.server_acl", "", &acl), None).await.unwrap();
    say(&b, BOB, &id, "unheard").await;
    net.deliver().await;
    assert!(!super::net::bodies(&a, &id).await.contains(&"unheard".to_owned()));
    assert!(
        a.make_join(server_name!("b.example"), &id, &user("@x:b.example"), crate::VERSIONS).await.is_err()
    );
    a.change(&actor(ALICE), &id, &user(BOB), Change::Kick, None).await.unwrap();
}

#[tokio::test]
async fn one_event_has_us_ask_for_few_states() {
    let net = Net::default();
    let (a, b, id) = open_room(&net).await;
    join(&b, &id).await.unwrap();
    net.deliver().await;
    let (rules, from) = (&RoomVersionRules::V11, server_name!("b.example"));
    let mut budget = Budget { events: 100, states: STATES, ..Budget::default() };
    for previous in [20, STATES, 1] {
        let prev: Vec<String> = (0..previous).map(|n| format!("${n:A>43}")).collect();
        let event = json!({
            "type": "m.room.message", "sender": BOB, "room_id": id, "content": {}, "depth": 50,
            "origin_server_ts": 1_000, "prev_events": prev, "auth_events": [],
        });
        let event: CanonicalJsonObject = try_from_json_map(event.as_object().unwrap().clone()).unwrap();
        let pdu = Pdu::parse(rules, signed_in(rules, event).get().as_bytes()).unwrap();
        let proven = a.0.check_one(rules, pdu).await.unwrap();
        assert!(Checked::from_handshake(from, proven).complete(&a.0, &mut budget).await.is_err());
        assert!(*net.states.lock() <= STATES, "{} after one with {previous}", net.states.lock());
    }
}
